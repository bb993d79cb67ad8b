"""Durations as people write them: seconds, or a number with a unit."""

import re
from decimal import Decimal

from pounce.config.kinds import Invalid, Kind, Problem, found, toml

_UNITS = {
    "d": Decimal(86_400),
    "h": Decimal(3_600),
    "min": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
"""The seconds of each unit, the longest first."""


class Duration(Kind[float]):
    """A duration, in seconds.

    The shortest, unless an option says more, is what epoll_wait(2) can wait; the longest, a week,
    is below what it can. With *off*, 0 is allowed as well, and switches off what the option is
    about.
    """

    metavar = "DURATION"
    maximum = 604_800.0
    pattern = re.compile(rf"([0-9]{{0,20}}\.?[0-9]{{1,20}})\s*({'|'.join(_UNITS)})")
    """What a string has to match as a whole."""

    def __init__(self, minimum: float = 0.001, *, off: bool = False) -> None:
        self.minimum = minimum
        self.off = off
        self.allowed = (
            'seconds or a duration such as "500 ms", "30 s", "5 min" or "2 h", '
            f"from {spell(minimum)} to {spell(self.maximum)}{', or 0 for off' if off else ''}"
        )

    def check(self, value: object) -> float:
        """Accept int, float and a number with its unit.

        Not bool, infinity, nan (which no comparison is true of), nor a string without a unit.
        """
        seconds = self._seconds(value)
        if seconds == 0 and not self.off:
            text = f"found {found(value)} (this cannot be off), expected {self.allowed}"
            raise Invalid(Problem(text))
        if seconds != 0 and not self.minimum <= seconds <= self.maximum:
            raise self.refuse(value)
        return abs(float(seconds))  # -0.0 is 0.0, too

    def _seconds(self, value: object) -> float:
        if isinstance(value, str) and (written := self.pattern.fullmatch(value)):
            number, unit = written.groups()
            return float(Decimal(number) * _UNITS[unit])
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(value)
        return value

    def _read(self, words: tuple[str, ...]) -> object:
        """A word without a unit is seconds: a shell has no numbers to tell from strings."""
        try:
            return float(words[-1])
        except ValueError:
            return words[-1]

    def write(self, value: float) -> str:
        """Write the duration with its unit."""
        return toml(spell(value)) if value else "0"


def spell(seconds: float) -> str:
    """Write a duration in the longest unit of which it is a whole number, or else in seconds.

    The same float is read from it. From a second up, there are no milliseconds: "2.5 s".
    """
    exact = Decimal(repr(seconds))
    for unit, length in _UNITS.items():
        if exact % length == 0 and (length >= 1 or exact < 1):
            return f"{exact // length} {unit}"
    return f"{exact} s"
