"""The shared corpus of requests: reads the files of ``tests/requests``.

The format is described in ``tests/requests/README.md``.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).parents[1] / "requests"

MAX_BODY_SIZE = 100_000
"""What the configuration must say while cases run; all other limits are the default ones."""

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

_ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}
_TOKEN = re.compile(
    r"(?P<open>\\\()"
    r"|\)\*(?P<times>[0-9]+)"
    r"|\\(?P<escape>[rnt\\])"
    r"|\\x(?P<hex>[0-9a-f]{2})"
    r"|(?P<plain>[ -\[\]-~])"
    r"|\n"
)
_OUTCOMES = re.compile(r"keep|close|(?:[45]\d\d|incomplete)(?: or (?:[45]\d\d|incomplete))*")


@dataclass(frozen=True, slots=True)
class ExpectedRequest:
    """A request the application is given; where *complete* is false, without its end."""

    method: str
    target: bytes
    complete: bool = True
    version: str = "1.1"
    headers: Headers = ()
    body: bytes = b""
    path: bytes | None = None
    query: bytes | None = None
    host: bytes | None = None
    times: int = 1


@dataclass(frozen=True, slots=True)
class Case:
    """One file: bytes a client sends, and what must come of them."""

    name: str
    raw: bytes
    title: str = ""
    because: str = ""
    h11: str = ""
    outcome: frozenset[str] = frozenset()
    requests: tuple[ExpectedRequest, ...] = ()

    @property
    def statuses(self) -> set[int]:
        """The statuses that may refuse it; empty for a valid case."""
        return {int(word) for word in self.outcome if word.isdigit()}

    @property
    def complete(self) -> tuple[ExpectedRequest, ...]:
        """The requests that are answered."""
        return tuple(request for request in self.requests if request.complete)

    @property
    def h11_accepts(self) -> bool:
        """What h11 alone makes of it."""
        valid = bool(self.outcome & {"keep", "close"})
        return self.h11 == "accepts" if self.h11 else valid


@dataclass(slots=True)
class _Header:
    """The part of a file before its first blank line, as it is read."""

    case: Case
    requests: list[ExpectedRequest] = field(default_factory=list)

    def read(self, key: str, value: str) -> None:
        if key in {"request", "begins"}:
            method, target = value.split(" ")
            complete = key == "request"
            self.requests.append(ExpectedRequest(method, unescape(target), complete))
        elif key in _OF_CASE:
            change = {key: _OF_CASE[key](value)}
            self.case = replace(self.case, **change)
        elif key not in _OF_REQUEST:
            raise ValueError(f"unknown key {key!r}")
        elif not self.requests:
            raise ValueError(f"{key!r} stands before any request")
        else:
            self._describe(self.requests[-1], key, _OF_REQUEST[key](value))

    def _describe(self, request: ExpectedRequest, key: str, value: Any) -> None:
        if key == "header":
            key, value = "headers", (*request.headers, value)
        self.requests[-1] = replace(request, **{key: value})

    def finish(self) -> Case:
        case = self.case
        if not (case.title and case.because and case.outcome):
            raise ValueError("title, because and outcome are required")
        requests = (request for request in self.requests for _ in range(request.times))
        return replace(case, requests=tuple(requests))


def unescape(text: str) -> bytes:
    r"""Bytes from printable ASCII, ``\r \n \t \\ \xHH``, and ``\(text)*count``, which may nest.

    Line breaks in *text* mean nothing.
    """
    levels = [bytearray()]
    position = 0
    while match := _TOKEN.match(text, position):
        position = match.end()
        if match["open"]:
            levels.append(bytearray())
        elif match["times"]:
            repeated = levels.pop() * int(match["times"])
            if not levels:
                break
            levels[-1] += repeated
        else:
            levels[-1] += _octets(match)
    if position < len(text) or len(levels) != 1:
        raise ValueError(f"cannot read {text[:position]!r} followed by {text[position:]!r}")
    return bytes(levels[0])


def _octets(match: re.Match[str]) -> bytes:
    if match["escape"]:
        return _ESCAPES[match["escape"]]
    return bytes.fromhex(match["hex"]) if match["hex"] else (match["plain"] or "").encode("ascii")


def _header(text: str) -> tuple[bytes, bytes]:
    name, _, content = text.partition(":")
    return unescape(name), unescape(content.strip(" "))


def _outcome(text: str) -> frozenset[str]:
    if not _OUTCOMES.fullmatch(text):
        raise ValueError(f"unknown outcome {text!r}")
    return frozenset(text.split(" or "))


# How the value of each key is read.
_OF_CASE: dict[str, Callable[[str], Any]] = {
    "title": str,
    "because": str,
    "h11": str,
    "outcome": _outcome,
}
_OF_REQUEST: dict[str, Callable[[str], Any]] = {
    "version": str,
    "header": _header,
    "body": unescape,
    "path": unescape,
    "query": unescape,
    "host": unescape,
    "times": int,
}


def parse(name: str, text: str) -> Case:
    """Read one file's text; ValueError says what is wrong with it."""
    head, _, raw = text.partition("\n\n")
    data = unescape(raw)
    header = _Header(Case(name=name, raw=data))
    # A line that begins with a space continues the one before.
    for line in re.sub(r"\n +", " ", head).splitlines():
        key, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"no colon in {line!r}")
        header.read(key, value.lstrip(" "))
    return header.finish()


def load(kind: str) -> Iterator[Case]:
    """All cases of the folder *kind*, ``valid`` or ``invalid``, by name."""
    for path in sorted((ROOT / kind).glob("*.http")):
        try:
            yield parse(f"{kind}/{path.stem}", path.read_text("ascii"))
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error


VALID = tuple(load("valid"))
INVALID = tuple(load("invalid"))
ALL = VALID + INVALID
