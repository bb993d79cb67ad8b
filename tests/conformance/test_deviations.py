"""The list of deviations: that each is shown by the corpus, and that the corpus has no other."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.conformance import corpus
from tests.conformance.corpus import Case

LIST = Path(__file__).with_name("DEVIATIONS.md")

_SECTION = re.compile(r"RFC (\d+) section (\d+(?:\.\d+)*)")
_CITED = re.compile(r"RFC (\d+)|(?<![\d*/])(\d+(?:\.\d+)+)(?![\d*/])")


@dataclass(frozen=True, slots=True)
class Deviation:
    what: str
    although: str
    patterns: tuple[str, ...]

    def names(self, case: Case) -> bool:
        return any(fnmatchcase(case.name, pattern) for pattern in self.patterns)


def read() -> Iterator[Deviation]:
    for line in LIST.read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| pounce |"):
            what, although, _, shown_by = re.split(r" \| ", line.strip("| "))
            yield Deviation(what, although, tuple(re.findall(r"`([^`]+)`", shown_by)))


DEVIATIONS = tuple(read())


def sections(text: str) -> set[tuple[str, str]]:
    """The sections that *text* cites, each with its RFC: the one named last before it."""
    found, rfc = set(), ""
    for match in _CITED.finditer(text):
        rfc = match[1] or rfc
        if match[2]:
            found.add((rfc, match[2]))
    return found | set(_SECTION.findall(text))


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda each: each.what)
def test_a_deviation_is_shown_by_the_corpus(deviation: Deviation) -> None:
    cited = set(_SECTION.findall(deviation.although))
    assert cited, "a section has to justify it"
    assert deviation.patterns, "a case has to show it"
    for pattern in deviation.patterns:
        shown = [case for case in corpus.ALL if fnmatchcase(case.name, pattern)]
        assert shown, f"there is no case {pattern}"


@pytest.mark.parametrize("case", corpus.ALL, ids=lambda case: case.name)
def test_a_policy_is_listed(case: Case) -> None:
    if "policy" in case.because:
        assert any(each.names(case) for each in DEVIATIONS)


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda each: each.what)
def test_list_and_corpus_name_the_same_sections(deviation: Deviation) -> None:
    cited = sections(deviation.although)
    shown = [case for case in corpus.ALL if deviation.names(case)]
    assert any(cited & sections(case.because) for case in shown)


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda each: each.what)
def test_a_status_is_what_the_cases_get(deviation: Deviation) -> None:
    statuses = {int(text) for text in re.findall(r"\b[45]\d\d\b", deviation.what)}
    refused = [each for each in corpus.INVALID if deviation.names(each)]
    if deviation.what.startswith("refuses"):
        assert refused
    for case in refused:
        assert not statuses or case.statuses & statuses
