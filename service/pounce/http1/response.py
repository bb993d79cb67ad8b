"""Responses as bytes: the head, its framing, and the content kept to what the head promised."""

from collections.abc import Iterable

from pounce.application.types import MessageError
from pounce.http.defaults import DefaultHeaders
from pounce.http.headers import not_bytes
from pounce.http.response_head import NO_CONTENT, PHRASES, Fields
from pounce.http1.plain_head import PlainHead, status_line

MUCH = 16_384
"""So many bytes are rather written by themselves than copied to be written with others."""


class ResponseWriter:
    """Turns one response into bytes; does no I/O.

    *keep_alive* starts as what the request allows. It may be cleared until the head is made,
    and is true afterwards only if the client was told that the connection persists. *chunks* is
    whether content is sent in chunks, once the head is made.
    """

    __slots__ = (
        "_connection",
        "_defaults",
        "_given",
        "_has_no_content",
        "_http11",
        "_is_head",
        "_length",
        "_lines",
        "_remaining",
        "_status",
        "chunks",
        "complete",
        "head_sent",
        "keep_alive",
    )

    _remaining: int | None

    def __init__(
        self, defaults: DefaultHeaders, method: str, http_version: str, keep_alive: bool
    ) -> None:
        self._defaults = defaults
        self._is_head = method == "HEAD"
        self._http11 = http_version == "1.1"
        self.keep_alive = keep_alive
        self._given: tuple[bytes, ...] = ()
        self.chunks = False
        self.head_sent = False
        self.complete = False

    def start(self, status: int, headers: Iterable[Iterable[bytes]], reason: bytes = b"") -> None:
        """Take a response's head; raises MessageError if it could not be sent as it is."""
        if not 200 <= status <= 999:
            raise MessageError(f"{status} is not the status of a final response (200 to 999)")
        self._status = status
        # RFC 9112 section 6.3; what the application sends nevertheless is dropped.
        self._has_no_content = self._is_head or status in NO_CONTENT
        self._length: int | None = None
        self._connection: tuple[bytes, ...] = ()
        self._given = ()
        self._lines = [status_line(status, reason)]
        try:
            for name, value in headers:
                # Whatever pairs these are, tuples can be looked up.
                self._learn(*self._defaults.lines[name, value], value)
        except (TypeError, ValueError, AttributeError) as error:
            raise not_bytes(error) from error

    @property
    def event_stream(self) -> bool:
        """Whether the content is server-sent events; see pounce.http.defaults.FieldLines."""
        return b"content-type" in self._given

    @property
    def whole(self) -> bool:
        """Whether nothing follows what was sent, whatever the application still sends."""
        return self._has_no_content or self._remaining == 0

    def start_plain(self, head: PlainHead) -> None:
        """Take a response's head that has been found to be plain."""
        self._status, self._lines, self._length, _ = head
        self._has_no_content = self._is_head
        self._connection = self._given = ()

    def body(self, data: bytes, more: bool) -> list[bytes]:
        """What to send for *data*, the head before it where it is still due.

        Raises MessageError, and changes nothing, when *data* breaks the Content-Length.
        """
        if self.head_sent:
            content = self._content(data, more)
            self.complete = not more
            return [content] if content else []
        framing = self._frame(len(data), more)
        content, tail = self._content(data, more), self._tail()
        self.head_sent = True
        self.complete = not more
        lines = self._lines
        # One piece is one system call on any loop; but copying much costs more than that.
        if len(content) < MUCH:
            lines += (framing, tail, content)
            return [b"".join(lines)]
        lines += (framing, tail)
        return [b"".join(lines), content]

    def _learn(self, concern: int | bytes | None, line: bytes, value: bytes) -> None:
        """Take a field; those that concern the writer it makes itself, some of them."""
        if concern is None:
            self._lines.append(line)
        elif isinstance(concern, int):
            if self._length is not None:
                raise MessageError("there is more than one content-length")
            self._length = concern
        elif concern == b"connection":
            self._take_options(value)
        elif concern != b"transfer-encoding":
            self._given += (concern,)
            self._lines.append(line)
        # The transfer coding is the server's own: the ASGI specification has applications' dropped.

    def _take_options(self, value: bytes) -> None:
        options = [option.strip(b" \t").lower() for option in value.split(b",")]
        if b"close" in options:
            self.keep_alive = False
        self._connection += tuple(
            option for option in options if option not in (b"", b"close", b"keep-alive")
        )

    def _frame(self, size: int, more: bool) -> bytes:
        """Decide how the content ends (RFC 9112 section 6.3); returns the field that says so."""
        self._remaining = None
        self.chunks = False
        if self._status == 204:
            return b""  # RFC 9110 section 8.6 forbids a length here
        if self._status == 205:
            return b"content-length: 0\r\n"  # RFC 9110 section 15.3.6
        if self._has_no_content:
            # What a GET would have had, if that is known (RFC 9110 section 8.6).
            known = self._length if self._length is not None or more or not size else size
            return b"" if known is None else b"content-length: %d\r\n" % known
        if self._length is not None or not more:
            self._remaining = size if self._length is None else self._length
            return b"content-length: %d\r\n" % self._remaining
        if self._http11:
            self.chunks = True
            return b"transfer-encoding: chunked\r\n"
        # RFC 9112 section 6.1: an HTTP/1.0 client knows no chunks; the end of the connection
        # is the end of the content.
        self.keep_alive = False
        return b""

    def _content(self, data: bytes, more: bool) -> bytes:
        if self._has_no_content:
            return b""
        if self._remaining is not None:
            self._spend(len(data), more)
            return data
        if self.chunks:
            coded = chunk(data) if data else b""
            return coded if more else coded + b"0\r\n\r\n"
        return data

    def _spend(self, size: int, more: bool) -> None:
        assert self._remaining is not None  # noqa: S101 - for the type checker
        left = self._remaining - size
        if left < 0:
            raise MessageError(f"the body is {-left} bytes longer than its content-length")
        if left and not more:
            raise MessageError(f"the body is {left} bytes shorter than its content-length")
        self._remaining = left

    def _tail(self) -> bytes:
        """The head's last lines: those that are neither the application's nor framing."""
        defaults = self._defaults
        own = b"" if b"server" in self._given else defaults.server
        own += b"" if b"date" in self._given else defaults.date
        own += b"" if b"alt-svc" in self._given else defaults.alternative
        return self._connection_line() + own + b"\r\n"

    def _connection_line(self) -> bytes:
        """RFC 9112 section 9.3: say what differs from the client's version's default."""
        options = self._connection
        if not self.keep_alive:
            options = (*options, b"close")
        elif not self._http11:
            options = (*options, b"keep-alive")
        return b"connection: %b\r\n" % b", ".join(options) if options else b""


def chunk(data: bytes) -> bytes:
    """Not the last one, which is the only one without *data* (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def error_response(
    defaults: DefaultHeaders, status: int, reason: str = "", extra: Fields = ()
) -> bytes:
    """A whole response by pounce itself, after which the connection closes."""
    writer = ResponseWriter(defaults, "GET", "1.1", False)
    text = f"{status} {PHRASES[status]}" + (f": {reason}" if reason else "")
    writer.start(status, [(b"content-type", b"text/plain; charset=utf-8"), *extra])
    return b"".join(writer.body(text.encode("ascii") + b"\n", False))
