"""A client that sends any octets it is given and reads responses to the letter."""

import json
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

TIMEOUT = 25.0
"""Seconds after which a silent server has failed the test."""


@dataclass(frozen=True, slots=True)
class Response:
    """One final response; names in *headers* are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection to *address*."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send as much as the server takes: it may refuse a request it has not read to its end."""
        with suppress(ConnectionError):
            for piece in pieces:
                self._socket.sendall(piece)

    def finish_sending(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def get(self, path: str) -> Response | None:
        """Ask for *path* with an ordinary request."""
        self.send([f"GET {path} HTTP/1.1\r\nHost: probe.example\r\n\r\n".encode()])
        return self.read("GET")

    def read(self, method: str) -> Response | None:
        """The next final response, to a request with *method*; None when there is none any more."""
        while True:
            head = self._take_head()
            if head is None:
                return None
            line, *fields = head.decode("latin-1").split("\r\n")
            version, status, _ = line.split(" ", 2)
            assert version == "HTTP/1.1"
            if int(status) >= 200:
                break
        headers = {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}
        length = 0 if method == "HEAD" else int(headers["content-length"])
        return Response(int(status), headers, self._take(length))

    def _take_head(self) -> bytes | None:
        while b"\r\n\r\n" not in self._buffer:
            if not self._receive():
                assert self._buffer == b"", "the connection closed within a response's head"
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def _take(self, length: int) -> bytes:
        while len(self._buffer) < length:
            assert self._receive(), "the connection closed within a response's body"
        taken, self._buffer = self._buffer[:length], self._buffer[length:]
        return taken

    def _receive(self) -> bool:
        data = self._socket.recv(65536)
        self._buffer += data
        return data != b""
