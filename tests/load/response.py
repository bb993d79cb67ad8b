"""Reads responses, strictly and without I/O: whatever is not exact is a BadResponse."""

import re
from collections.abc import Callable
from dataclasses import dataclass

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) (\d{3}) [^\r\n]*")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]+")
_LONGEST_HEAD = 65_536


class BadResponse(Exception):
    """The bytes are no response to what was asked."""


@dataclass(slots=True)
class Response:
    """A response, complete."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    closes: bool
    """Whether it announces the end of the connection (RFC 9112 section 9.6)."""


class ResponseReader:
    """One response at a time: feed it bytes until it returns the response.

    A body must have exactly one framing, Content-Length or chunked. One that ends with the
    connection is refused: nobody can tell its end from a crash.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._begin()

    @property
    def started(self) -> bool:
        """Whether part of a response has arrived."""
        return bool(self._buffer) or self._step != self._read_head

    def feed(self, data: bytes) -> Response | None:
        """Take *data*; the response, if this was its end. Raises BadResponse."""
        self._buffer += data
        while self._step():
            if self._complete:
                return self._take()
        return None

    def _begin(self) -> None:
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._closes = False
        self._missing = 0
        self._body: list[bytes] = []
        self._complete = False
        self._step: Callable[[], bool] = self._read_head

    def _take(self) -> Response:
        if self._buffer:
            raise BadResponse(f"bytes after the end of the response: {self._buffer[:40]!r}")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        response = Response(self._status, self._headers, body, self._closes)
        self._begin()
        return response

    def _read_head(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            if len(self._buffer) > _LONGEST_HEAD:
                raise BadResponse("the head does not end")
            return False
        self._buffer = rest
        self._parse_head(head)
        if self._status >= 200:  # an interim response (RFC 9110 section 15.2) precedes the real one
            self._choose_framing()
        return True

    def _parse_head(self, head: bytes) -> None:
        status_line, *lines = head.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(status_line)
        if match is None:
            raise BadResponse(f"no status line: {status_line[:40]!r}")
        headers = self._headers = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise BadResponse(f"no header field: {line[:40]!r}")
            headers[name.lower()] = value.strip(b" \t")
        self._status = int(match[2])
        connection = headers.get(b"connection", b"").lower()
        self._closes = connection == b"close" if match[1] == b"1" else connection != b"keep-alive"

    def _choose_framing(self) -> None:
        length = self._headers.get(b"content-length")
        coding = self._headers.get(b"transfer-encoding")
        if length is not None and coding is None and length.isdigit():
            self._missing = int(length)
            self._step = self._read_sized
        elif coding == b"chunked" and length is None:
            self._step = self._read_chunk_size
        else:
            raise BadResponse(f"framing: content-length {length!r}, transfer-encoding {coding!r}")

    def _read_sized(self) -> bool:
        if len(self._buffer) < self._missing:
            return False
        self._take_body()
        self._complete = True
        return True

    def _read_chunk_size(self) -> bool:
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return False
        if _CHUNK_SIZE.fullmatch(line) is None:
            raise BadResponse(f"no chunk size: {line[:40]!r}")
        self._missing = int(line, 16)
        self._buffer = rest
        self._step = self._read_chunk if self._missing else self._read_last_line
        return True

    def _read_chunk(self) -> bool:
        if len(self._buffer) < self._missing + 2:
            return False
        self._take_body()
        self._read_line_end()
        self._step = self._read_chunk_size
        return True

    def _read_last_line(self) -> bool:
        if len(self._buffer) < 2:
            return False
        self._read_line_end()
        self._complete = True
        return True

    def _take_body(self) -> None:
        self._body.append(self._buffer[: self._missing])
        self._buffer = self._buffer[self._missing :]

    def _read_line_end(self) -> None:
        if not self._buffer.startswith(b"\r\n"):
            raise BadResponse(f"no line end after a chunk: {self._buffer[:40]!r}")
        self._buffer = self._buffer[2:]
