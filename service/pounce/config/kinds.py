"""The kinds of value an option can have: how each is checked, read from words, and written.

A kind takes what TOML or Python gives (`check`) or what a shell gives (`parse`) and returns
the one form the rest of pounce sees, or raises `Invalid`, which says what was found and
what is allowed.
"""

import ipaddress
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pounce.net.address import ALLOWED as ALLOWED_ADDRESSES
from pounce.net.address import Address

T = TypeVar("T")
TypedText = TypeVar("TypedText", bound=str)

CREDENTIAL = "credential:"
"""How a value begins that names a credential of the service (LoadCredential=, systemd.exec(5))."""

Steps = tuple[str | int, ...]
"""A place inside a configuration: keys and list indexes, as ``("listen", 0, "address")``."""


class Problem(NamedTuple):
    """Something wrong, and the place (below the option) where it is."""

    text: str
    steps: Steps = ()


class Invalid(ValueError):
    """A value was refused; carries every reason."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(problem.text for problem in problems))
        self.problems = problems


class Kind(ABC, Generic[T]):
    """One kind of value; subclasses say what is allowed in words and in code."""

    allowed: str
    """What may be given, as a phrase that follows "expected"."""
    metavar = "TEXT"
    unit = ""
    repeatable = False
    """Whether the command line may give several words, which together make the value."""

    @abstractmethod
    def check(self, value: object) -> T:
        """Return *value*, as TOML or Python gave it, in its final form; raises Invalid."""

    def parse(self, *words: str) -> T:
        """Return the value that command-line *words* mean; raises Invalid."""
        try:
            value = self._read(words)
        except ValueError:
            raise self.refuse(words[-1]) from None
        return self.check(value)

    def _read(self, words: tuple[str, ...]) -> object:
        """Turn words into what TOML would have given; raises ValueError where they cannot be."""
        return words[-1]

    def resolve(self, value: T, base: Path) -> T:
        """Return *value* with relative paths taken from *base*."""
        return value

    def merge(self, below: T, above: T) -> T:
        """Combine a file's value with the command line's, which has precedence."""
        return above

    def write(self, value: T) -> str:
        """Write *value* as TOML that `check` takes."""
        return toml(value)

    def refuse(self, value: object) -> Invalid:
        """Say that *value* is not allowed."""
        return Invalid(Problem(f"found {found(value)}, expected {self.allowed}"))


class Integer(Kind[int]):
    """A whole number within bounds, both included."""

    metavar = "N"

    def __init__(self, minimum: int = 0, maximum: int | None = None, unit: str = "") -> None:
        self.minimum = minimum
        self.maximum = maximum
        self.unit = unit
        self.allowed = "a whole number " + _bounds(minimum, maximum, unit)

    def check(self, value: object) -> int:
        """Accept int, but not its subclass bool: ``workers = true`` is a mistake."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse(value)
        if value < self.minimum or (self.maximum is not None and value > self.maximum):
            raise self.refuse(value)
        return value

    def _read(self, words: tuple[str, ...]) -> object:
        return int(words[-1])


class Boolean(Kind[bool]):
    """True or false; a pair of flags on the command line."""

    allowed = "true or false"

    def check(self, value: object) -> bool:
        """Accept bool alone: 0, 1 and "no" are mistakes."""
        if not isinstance(value, bool):
            raise self.refuse(value)
        return value

    def _read(self, words: tuple[str, ...]) -> object:
        return {"true": True, "false": False}.get(words[-1], words[-1])


class Text(Kind[str]):
    """A string that as a whole matches *pattern*, which *allowed* puts in words."""

    def __init__(self, pattern: str, allowed: str, metavar: str) -> None:
        self.pattern = re.compile(pattern)
        self.allowed = allowed
        self.metavar = metavar

    def check(self, value: object) -> str:
        """Accept str."""
        if not isinstance(value, str) or not self.pattern.fullmatch(value):
            raise self.refuse(value)
        return value


APPLICATION = Text(
    # A dotted name of a module, then a dotted name in it, then perhaps a call.
    pattern=r"([^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*(\(\))?)?",
    allowed='"module:attribute" or "module:factory()"',
    metavar="MODULE:ATTRIBUTE",
)
ROOT_PATH = Text(
    # Applications see paths decoded: "%20" is a blank there.
    pattern=r"(/[^/?#%\\\x00-\x1f\x7f]+)*",
    allowed='a path such as "/shop", decoded (without "%"), and without a slash at its end',
    metavar="PATH",
)


class Choice(Kind[TypedText]):
    """One of a few names."""

    def __init__(self, *names: TypedText) -> None:
        self.names = names
        self.metavar = "|".join(names)
        self.allowed = enumeration(names)

    def check(self, value: object) -> TypedText:
        """Accept exactly one of the names."""
        for name in self.names:
            if name == value:
                return name
        raise self.refuse(value)


class FilePath(Kind[str]):
    """A path, or one of *names*, which are not paths; the empty name stands for a default."""

    metavar = "PATH"

    def __init__(self, names: tuple[str, ...] = ("",), noun: str = "path") -> None:
        self.names = names
        self.allowed = enumeration([name for name in names if name], last=f"a {noun}")

    def check(self, value: object) -> str:
        """Accept str without NUL; whether the path exists is seen where it is used."""
        if not isinstance(value, str) or "\0" in value or not (value or "" in self.names):
            raise self.refuse(value)
        return value

    def resolve(self, value: str, base: Path) -> str:
        """Make a path absolute. Symbolic links stay: moving one is how a deploy is made."""
        return value if value in self.names else str(base / value)


class LogFilePath(FilePath):
    """A file's path, or one of *names*.

    Another word alone is refused: it is meant for a destination ("journal", "stdout", "-").
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(names, noun='file\'s path, with "/" or "." in it')

    def check(self, value: object) -> str:
        """Accept what looks like a path."""
        path = super().check(value)
        if path not in self.names and not set(path) & {"/", "."}:
            raise self.refuse(value)
        return path


class SecretFile(FilePath):
    """A path, or the name of a credential."""

    metavar = "FILE"

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        super().__init__(names, noun="path or credential:NAME")

    def resolve(self, value: str, base: Path) -> str:
        """Make a path absolute; where credentials are is known to the service alone."""
        return value if value.startswith(CREDENTIAL) else super().resolve(value, base)


class TrustedPeer(Kind[str]):
    """A peer's address, a network, ``unix`` for any unix socket's peer, or ``*`` for all."""

    allowed = 'an IP address, a network such as 10.0.0.0/8, "unix" or "*"'
    metavar = "PEER"

    def check(self, value: object) -> str:
        """Accept str."""
        if not isinstance(value, str) or not self._is_peer(value):
            raise self.refuse(value)
        return value

    @staticmethod
    def _is_peer(text: str) -> bool:
        # A link-local address with its interface (%eth0) would be believed on every other one, too.
        try:
            return text in {"unix", "*"} or ("%" not in text and bool(ipaddress.ip_network(text)))
        except ValueError:
            return False


class Texts(Kind[tuple[str, ...]]):
    """A list of strings, each of the kind *item*; one alone may stand for its list if *single*."""

    repeatable = True

    def __init__(self, item: Kind[str], *, single: bool = False) -> None:
        self.item = item
        self.single = single
        self.metavar = item.metavar
        self.allowed = f"{item.allowed}, or a list" if single else f"a list, each of {item.allowed}"

    def check(self, value: object) -> tuple[str, ...]:
        """Accept list and tuple; each refused item is a problem of its own."""
        if self.single and isinstance(value, str):
            value = (value,)
        if not isinstance(value, list | tuple):
            raise self.refuse(value)
        return tuple(collect(self.item.check, value))

    def _read(self, words: tuple[str, ...]) -> object:
        return words

    def resolve(self, value: tuple[str, ...], base: Path) -> tuple[str, ...]:
        """Resolve each."""
        return tuple(self.item.resolve(each, base) for each in value)


class ListenAddress(Kind[Address]):
    """Where to listen."""

    allowed = ALLOWED_ADDRESSES
    metavar = "ADDRESS"

    def check(self, value: object) -> Address:
        """Accept Address and the text of one."""
        if isinstance(value, Address):
            return value
        if not isinstance(value, str):
            raise self.refuse(value)
        try:
            return Address.parse(value)
        except ValueError as error:
            raise Invalid(Problem(str(error))) from None


def collect(check: Callable[[object], T], values: Sequence[object]) -> list[T]:
    """Check each of *values*; raises one Invalid with the problems of all."""
    checked, problems = [], []
    for index, value in enumerate(values):
        try:
            checked.append(check(value))
        except Invalid as invalid:
            problems += [Problem(text, (index, *steps)) for text, steps in invalid.problems]
    if problems:
        raise Invalid(*problems)
    return checked


def toml(value: object) -> str:
    """Write *value* as TOML."""
    if isinstance(value, str | Address):
        # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {toml(item)}' for key, item in value.items())}}}"
    return str(value)


def found(value: object) -> str:
    """Describe a refused value, shortened, with the name of its type where that may surprise."""
    text = toml(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    for types, name in _TYPE_NAMES:
        if isinstance(value, types):
            return f"{text} ({name})"
    return text


_TYPE_NAMES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    ((list, tuple), "a list"),
    (Mapping, "a table"),
    ((date, time), "a date or time"),
)


def described(value: object) -> str:
    """What a refused value is, without its text, which may be a secret."""
    names: Iterable[tuple[Any, str]] = (*_TYPE_NAMES, (str, "a string"), ((int, float), "a number"))
    return next((name for types, name in names if isinstance(value, types)), "another value")


def unshown(value: object, allowed: str) -> Invalid:
    """Say that *value* is not *allowed*, without its text."""
    return Invalid(Problem(f"found {described(value)}, expected {allowed}"))


def enumeration(names: Sequence[str], last: str = "") -> str:
    """Join quoted *names*, and the phrase *last*, as ``"a", "b" or "c"``."""
    phrases = [toml(name) for name in names] + ([last] if last else [])
    return " or ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))


def _bounds(minimum: float, maximum: float | None, unit: str) -> str:
    bounds = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    return f"{bounds} {unit}".rstrip()
