"""Options that are environment variables."""

from collections.abc import Mapping

from pounce.config.kinds import Invalid, Kind, Problem, described, toml, unshown


class Variables(Kind[Mapping[str, str]]):
    """Environment variables: a table of strings; on the command line one NAME=VALUE a time.

    Values may be secrets, and a reload's error is in the status, which everybody may read: it names
    the variable, and has nothing of the value.
    """

    allowed = "a table of strings"
    metavar = "NAME=VALUE"
    repeatable = True

    def check(self, value: object) -> dict[str, str]:
        """Accept mappings of str to str that environ(7) can hold; return a copy."""
        if not isinstance(value, Mapping):
            raise self.refuse(value)
        problems = [
            problem for name, text in value.items() if (problem := self._problem(name, text))
        ]
        if problems:
            raise Invalid(*problems)
        return dict(value)

    @staticmethod
    def _problem(name: str, text: object) -> Problem | None:
        if not name or set(name) & {"=", "\0"}:
            # No place: it would show what follows the "=".
            begin = toml(name.partition("=")[0])
            return Problem(f"found a name that begins {begin}, expected one without '=' and NUL")
        if not isinstance(text, str):
            return Problem(f"found {described(text)}, expected a string", (name,))
        if "\0" in text:
            return Problem("found a string with NUL, expected one without", (name,))
        return None

    def refuse(self, value: object) -> Invalid:
        """Say that *value* is not allowed."""
        return unshown(value, self.allowed)

    def parse(self, *words: str) -> Mapping[str, str]:
        """Read NAME=VALUE words."""
        problems = [
            Problem("found a word without NAME=, expected NAME=VALUE")
            for word in words
            if "=" not in word[1:]
        ]
        if problems:
            raise Invalid(*problems)
        return self.check(dict(word.split("=", 1) for word in words))

    def merge(self, below: Mapping[str, str], above: Mapping[str, str]) -> Mapping[str, str]:
        """Combine variable by variable."""
        return {**below, **above}
