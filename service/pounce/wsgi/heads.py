"""Heads as WSGI applications give them, and what is remembered of those that came before."""

from collections.abc import Iterable

from pounce.asgi.response_head import Fields, ResponseHead
from pounce.asgi.types import MessageError

_Headers = tuple[tuple[str, str], ...]
_Key = tuple[str, _Headers]  # the first is the status

_LENGTH = frozenset(("Content-Length", "content-length"))

# Where cookies or tags are in it, each head is another: every thread keeps no more than these.
_REMEMBERED = 64


class _Memory(dict[_Key, ResponseHead]):
    """Heads by status and headers; some are remembered."""

    __slots__ = ()

    def remember(self, key: _Key, head: ResponseHead) -> None:
        """Keep *head*, if need be in place of all others."""
        if len(self) >= _REMEMBERED:
            self.clear()
        self[key] = head


class _Heads(_Memory):
    """Heads but for their length."""

    __slots__ = ()

    def __missing__(self, key: _Key) -> ResponseHead:
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

    def take(self, status: str, headers: _Headers) -> tuple[ResponseHead, str | None]:
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


def make_head(status: str, headers: Iterable[Iterable[str]]) -> ResponseHead:
    """The head of *status* and *headers*. Raises MessageError."""
    return ResponseHead(_code(status), _encoded(headers))


def with_length(head: ResponseHead, length: str | None) -> ResponseHead:
    """*head* with *length*, if it has none yet. Raises MessageError."""
    if length is None or content_length(head.fields):
        return head
    return ResponseHead(head.status, [*head.fields, *_encoded([("content-length", length)])])


def content_length(fields: Fields) -> bytes:
    """The first length in *fields*, or nothing."""
    for name, value in fields:
        if len(name) == 14 and name.lower() == b"content-length":
            return value
    return b""


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
