"""Heads as WSGI applications give them, and what is remembered of those that came before."""

from collections.abc import Iterable

from pounce.application.types import MessageError
from pounce.http.headers import LENGTH_DIGITS, is_event_stream, is_value
from pounce.http.response_head import PHRASES, Fields, ResponseHead

_Headers = tuple[tuple[str, str], ...]
_Key = tuple[str, _Headers]  # the first is the status


_LENGTH = frozenset(("Content-Length", "content-length"))

# Where cookies or tags are in it, each head is another: every thread keeps no more than these.
_REMEMBERED = 64


class WSGIHead(ResponseHead):
    """A head, the length of the content that it promises, if it does, and if that is events."""

    __slots__ = ("event_stream", "promised")

    def __init__(self, status: int, fields: Fields, reason: bytes) -> None:
        super().__init__(status, fields, reason)
        self.event_stream = any(
            name.lower() == b"content-type" and is_event_stream(value) for name, value in fields
        )
        self.promised = as_length(content_length(fields).decode("latin-1"))


class _Memory(dict[_Key, WSGIHead]):
    """Heads by status and headers; some are remembered."""

    __slots__ = ()

    def remember(self, key: _Key, head: WSGIHead) -> None:
        """Keep *head*, if need be in place of all others."""
        if len(self) >= _REMEMBERED:
            self.clear()
        self[key] = head


class _Heads(_Memory):
    """Heads but for their length."""

    __slots__ = ()

    def __missing__(self, key: _Key) -> WSGIHead:
        """Make the head, and remember it."""
        head = make_head(*key)
        if content_length(head.fields):
            raise ValueError("there is more than one length, or it is not written as lengths are")
        self.remember(key, head)
        return head


class KnownHeads(_Memory):
    """Heads that came twice in a row; a thread has its own."""

    __slots__ = ("_heads", "_last")

    def __init__(self) -> None:
        super().__init__()
        self._heads = _Heads()
        self._last: _Key | None = None

    def take(self, status: str, headers: _Headers) -> tuple[WSGIHead, str | None]:
        """A head that is not known, but for its length, and that: often only it is another.

        Raises MessageError, and others, where it is not as heads nearly always are.
        """
        length = None
        others = []
        for header in headers:
            name, value = header
            if name in _LENGTH and length is None:
                length = value
            else:
                others.append(header)
        head = self._heads[status, tuple(others)]
        key = status, headers
        if key == self._last:
            self.remember(key, with_length(head, length))
        self._last = key
        return head, length


def make_head(status: str, headers: Iterable[Iterable[str]]) -> WSGIHead:
    """The head of *status* and *headers*. Raises MessageError."""
    code = _code(status)
    return WSGIHead(code, _encoded(headers), _reason(code, status[4:]))


def with_length(head: WSGIHead, length: str | None) -> WSGIHead:
    """*head* with *length*, if it has none yet. Raises MessageError."""
    if length is None or content_length(head.fields):
        return head
    fields = [*head.fields, *_encoded([("content-length", length)])]
    return WSGIHead(head.status, fields, head.reason)


def as_length(text: str) -> int | None:
    """The length that *text* is; None where it is none, which is for the connection to judge."""
    digits = text.strip(" \t") if isinstance(text, str) else ""
    is_one = digits.isascii() and digits.isdigit() and len(digits) <= LENGTH_DIGITS
    return int(digits) if is_one else None


def content_length(fields: Fields) -> bytes:
    """The first length in *fields*, without blanks around it, or nothing."""
    for name, value in fields:
        if len(name) == 14 and name.lower() == b"content-length":
            return value.strip(b" \t")
    return b""


def _reason(code: int, phrase: str) -> bytes:
    """The reason phrase of a status that has another than usual; else nothing."""
    if phrase == PHRASES.get(code):
        return b""
    reason = phrase.encode("latin-1", "replace")
    if not is_value(reason):
        raise MessageError(f"the reason phrase {phrase!r} has a character that none may have")
    return reason


def _encoded(headers: Iterable[Iterable[str]]) -> list[tuple[bytes, bytes]]:
    try:
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    except (AttributeError, TypeError, ValueError) as error:
        raise MessageError(f"headers are not pairs of Latin-1 strings: {error}") from error


def _code(status: str) -> int:
    code = status[:3] if isinstance(status, str) else ""
    if not (len(code) == 3 and code.isascii() and code.isdigit() and status[3:4] in ("", " ")):
        raise MessageError(f"the status is {status!r}, not such as '200 OK'")
    return int(code)
