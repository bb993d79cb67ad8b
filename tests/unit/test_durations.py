"""Durations: the units they are written in, and what is written is what is read."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pounce.config.durations import Duration, spell
from pounce.config.kinds import Invalid
from pounce.config.service import ServerConfig

READ = [
    (75, 75.0),
    (0.5, 0.5),
    ("75 s", 75.0),
    ("75s", 75.0),
    ("500 ms", 0.5),
    ("9 ms", 0.009),
    ("5 min", 300.0),
    ("1.5 h", 5400.0),
    (".5  h", 1800.0),
    ("7 d", 604_800.0),
]


@pytest.mark.parametrize(("written", "seconds"), READ)
def test_durations_are_seconds(written: float | str, seconds: float) -> None:
    assert ServerConfig(reload_timeout=written).reload_timeout == seconds  # type: ignore[arg-type] # as TOML


NONE = [
    *("", "s", "75", "30 parsecs", "5 m", "5 Min", "-5 s", "1e2 s", "1 min 30 s", "5. s", "5 s\n"),
    *("0.9 ms", "8 d", "9" * 20 + " d", "9" * 5000 + " s", "\N{ARABIC-INDIC DIGIT THREE} s"),
    *(-1, True, None),
]


@pytest.mark.parametrize("written", NONE)
def test_what_is_no_duration_is_refused_with_examples(written: object) -> None:
    with pytest.raises(Invalid, match='expected seconds or a duration such as "500 ms"'):
        Duration().check(written)


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, "0 s", "0.00 h"])
def test_zero_is_off_only_where_the_declaration_says_so(zero: float | str) -> None:
    declared = Duration(1.0, off=True)
    assert repr(declared.check(zero)) == "0.0"
    assert declared.write(0.0) == "0"
    assert declared.allowed.endswith("from 1 s to 7 d, or 0 for off")
    with pytest.raises(Invalid, match=r"found .* \(this cannot be off\), expected seconds"):
        Duration().check(zero)
    with pytest.raises(Invalid, match=r'found "1 ms", expected'):
        declared.check("1 ms")


@example(0.029)
@example(2.3)
@given(st.floats(0.001, 604_800))
def test_a_duration_is_read_as_it_was_written(seconds: float) -> None:
    assert Duration().check(spell(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((75, "75 s"), (60, "1 min"), (90, "90 s"), (7200, "2 h"), (86_400, "1 d")),
        *((2.5, "2.5 s"), (0.25, "250 ms"), (0.0015, "0.0015 s")),
    ],
)
def test_a_duration_is_written_in_its_longest_whole_unit(seconds: float, text: str) -> None:
    assert spell(seconds) == text
