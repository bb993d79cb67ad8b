"""When event streams are told to end, and when they are cut."""

import pytest

from pounce.http.farewell import Farewell

NOW = 100.0


class Stream:
    """The only stream of the only connection."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    def event_streams(self) -> list["Stream"]:
        return [self]

    def end_stream(self, *, cut: bool) -> None:
        self.told.append(cut)


def moments(farewell: Farewell) -> tuple[float, float]:
    """How many seconds later the stream is told for the first time, and cut."""
    told: list[float] = []
    for tenth in range(1000):
        stream = Stream()
        farewell.sweep(NOW + tenth / 10, [stream])
        if stream.told == [len(told) == 1]:
            told.append(tenth / 10)
        if len(told) == 2:
            break
    return told[0], told[1]


@pytest.mark.parametrize(
    ("patience", "grace", "expected"),
    [
        (2.0, 30.0, (2.0, 3.0)),
        (20.0, 30.0, (20.0, 21.0)),
        (28.0, 30.0, (28.0, 29.0)),
        (30.0, 30.0, (29.0, 29.5)),
        (3600.0, 30.0, (29.0, 29.5)),
        (0.0, 30.0, (0.0, 1.0)),
        (2.0, 0.4, (0.0, 0.2)),
    ],
)
def test_the_last_second_is_for_hearing_it(
    patience: float, grace: float, expected: tuple[float, float]
) -> None:
    farewell = Farewell()
    farewell.begin(NOW, NOW + grace, patience)
    assert moments(farewell) == expected


def test_who_begins_again_may_only_be_sooner() -> None:
    farewell = Farewell()
    farewell.begin(NOW, NOW + 30, 5)
    farewell.begin(NOW, NOW + 60, 50)
    assert moments(farewell) == (5.0, 6.0)
    farewell.begin(NOW, NOW + 30)
    assert moments(farewell) == (0.0, 1.0)
