"""From received bytes to events: what all request readers have in common."""

from abc import ABC, abstractmethod

from pounce.config.service import ServerConfig
from pounce.http1.body import ChunkedBody, SizedBody, WholeBody
from pounce.http1.events import (
    END_OF_REQUEST,
    NEED_DATA,
    BadRequest,
    Body,
    Event,
    NeedData,
    RequestHead,
)
from pounce.http1.rules import check_block, check_partial, request_line


class RequestReader(ABC):
    """Reads the requests of one connection, one after the other, and does no I/O.

    A request is a :class:`RequestHead` and, if that says so, any number of :class:`Body` and an
    :class:`EndOfRequest`. After a :class:`BadRequest` the connection cannot be read further.
    A subclass says how one complete head is parsed.
    """

    __slots__ = ("_config", "_eof", "_line_end", "_scanned", "_skipped", "again", "body", "buffer")

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.buffer = bytearray()
        """What was received and not yet turned into events; nobody else changes it."""
        self.again: bytes | None = None
        """What came last, if it was just one request without content: who receives the same has
        that request again, and need not ask."""
        self.body: SizedBody | WholeBody | ChunkedBody | None = None
        self._eof = False
        self._start_head()

    @abstractmethod
    def _parse_head(self, block: bytes) -> RequestHead:
        """Parse a complete head, whose every line ends in CRLF, or raise BadRequest."""

    @property
    def in_body(self) -> bool:
        """Whether a request has begun whose content was not yet read to its end."""
        return self.body is not None and not self.body.complete

    @property
    def to_be_read(self) -> float:
        """How many bytes of content are still to be read, as far as the client has said; or inf."""
        return 0 if self.body is None else self.body.unread(self.buffer)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to read of what was received, or of a request that began."""
        return not self.buffer and (self.body is None or self.body.complete)

    @property
    def line(self) -> bytes:
        """The request line of the head that has begun or was refused, if that is one."""
        return request_line(self.buffer, self._config)

    def unread(self) -> bytes:
        """The received bytes that were not yet turned into events, for another reader to feed."""
        return bytes(self.buffer)

    def feed(self, data: bytes) -> None:
        """Take bytes as they were received."""
        self.again = None
        self.buffer += data

    def receive(self, data: bytes) -> Event | NeedData:
        """`feed` and `next_event` in one, for which some readers have a shorter way."""
        self.feed(data)
        return self.next_event()

    def eof(self) -> None:
        """The client will send no more: an incomplete request is now a bad one."""
        self._eof = True

    def next_event(self) -> Event | NeedData:
        """The next event, or NEED_DATA; raises BadRequest."""
        event = self._next_head() if self.body is None else self._next_body(self.body)
        if event is NEED_DATA and self._eof and (self.buffer or self.body):
            raise BadRequest(400, "incomplete request")
        return event

    def whole_body(self) -> bytes | None:
        """What the next events would say, if the content came with its head; else nothing."""
        body = self.body
        if type(body) is not WholeBody or body.complete:
            return None
        self.body = None
        return body.data

    def _next_body(self, body: SizedBody | WholeBody | ChunkedBody) -> Event | NeedData:
        data = b"" if body.complete else body.read(self.buffer)
        if data:
            return Body(data)
        if not body.complete:
            return NEED_DATA
        self.body = None
        return END_OF_REQUEST

    def _next_head(self) -> Event | NeedData:
        buffer = self.buffer
        if not self._skipped and buffer.startswith(b"\r\n"):
            # RFC 9112 section 2.2: some clients end a request with one CRLF too many.
            del buffer[:2]
            self._start_head(skipped=True)
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0:
            self._scan()
            return NEED_DATA
        block = bytes(buffer[: end + 2])
        check_block(block, self._config)
        head = self._parse_head(block)
        del buffer[: end + 4]
        self._start_head()
        if head.has_body:
            self.body = self._body_of(head)
        return head

    def _start_head(self, *, skipped: bool = False) -> None:
        self._skipped = skipped
        self._scanned = 0
        self._line_end = -1

    def _scan(self) -> None:
        """Judge an incomplete head, looking at each byte once however slowly they come."""
        start = max(0, self._scanned - 1)
        if self._line_end < 0:
            self._line_end = self.buffer.find(b"\r\n", start)
        check_partial(self.buffer, start, self._line_end, self._config)
        self._scanned = len(self.buffer)

    def _body_of(self, head: RequestHead) -> SizedBody | ChunkedBody:
        for name, value in head.headers:
            if name == b"content-length":
                return SizedBody(int(value))
        return ChunkedBody(self._config)
