"""The application of tests.apps.load for execution in threads: WSGI, and every wait blocks.

/                                   the signature alone
/slow?ms=200                        sleeps
/upload                             length and SHA-256 of the request's body
/stream?chunks=10&size=100&ms=20    chunks made of the nonce, a pause after each
/events                             an event every 100 ms for ever
/raise                              an exception before the response
/hang?how=busy|sleep|deadlock|native
                                    does not return (for `ms`, where it can be told to)
/crash                              abort(3)
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

from tests.apps.load import FOREVER_MS, block, chunk, signature

Environ = dict[str, Any]
Fields = list[tuple[str, str]]


class Request:
    """One request, and how to answer it."""

    def __init__(self, environ: Environ, version: str) -> None:
        generation = environ.get("pounce.generation", "-")
        worker = environ.get("pounce.worker", "-")
        self.input = environ["wsgi.input"]
        self.query = dict(parse_qsl(environ["QUERY_STRING"]))
        self.nonce = environ.get("HTTP_X_NONCE", "-").encode("latin-1")
        self.served_by = f"{generation} {worker} {os.getpid()} {version}".encode()
        self.fields = [
            ("x-nonce", self.nonce.decode("latin-1")),
            ("x-served-by", self.served_by.decode()),
        ]

    def number(self, name: str, default: int) -> int:
        return int(self.query.get(name, default))

    def answer(self, content: bytes = b"") -> Iterable[bytes]:
        body = content + signature(self.nonce, self.served_by)
        self.fields.append(("content-length", str(len(body))))
        return [body]

    def slow(self) -> Iterable[bytes]:
        time.sleep(self.number("ms", 200) / 1000)
        return self.answer()

    def upload(self) -> Iterable[bytes]:
        digest, length = hashlib.sha256(), 0
        while data := self.input.read(10_000):
            digest.update(data)
            length += len(data)
        return self.answer(b"%d %b\n" % (length, digest.hexdigest().encode()))

    def stream(self) -> Iterator[bytes]:
        for number in range(self.number("chunks", 10)):
            yield chunk(self.nonce, number, self.number("size", 100))
            time.sleep(self.number("ms", 20) / 1000)
        yield signature(self.nonce, self.served_by)

    def events(self) -> Iterator[bytes]:
        number = 0
        while True:
            number += 1
            yield b"data: %d\n\n" % number
            time.sleep(0.1)

    def fail(self) -> Iterable[bytes]:
        raise RuntimeError("this request was asked to raise")

    def hang(self) -> Iterable[bytes]:
        block(self.query.get("how", "busy"), self.number("ms", FOREVER_MS) / 1000)
        return self.answer()

    def crash(self) -> Iterable[bytes]:
        os.abort()


ROUTES: dict[str, Callable[[Request], Iterable[bytes]]] = {
    "/slow": Request.slow,
    "/upload": Request.upload,
    "/stream": Request.stream,
    "/events": Request.events,
    "/raise": Request.fail,
    "/hang": Request.hang,
    "/crash": Request.crash,
}


class Load:
    """The application; *version* tells apart the code of two generations."""

    def __init__(self, version: str = "1") -> None:
        self.version = version

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        request = Request(environ, self.version)
        content = ROUTES.get(environ["PATH_INFO"], Request.answer)(request)
        start_response("200 OK", request.fields)
        return content


app = Load()
