"""Calling a WSGI application, and holding it to PEP 3333 where that matters to the client."""

import os
from collections.abc import Callable, Iterable
from types import TracebackType
from wsgiref.types import WSGIApplication

from pounce.asgi.types import MessageError
from pounce.sync.exchange import Exchange, Handler
from pounce.wsgi.environ import EnvironMaker
from pounce.wsgi.file_wrapper import FileWrapper

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType]


class WSGIHandler(Handler):
    """Answers with *app*, whose environs *environs* makes."""

    def __init__(self, app: WSGIApplication, environs: EnvironMaker) -> None:
        self._app = app
        self._environs = environs

    def answer(self, exchange: Exchange) -> None:
        """Call the application and send what it returns."""
        response = _Response(exchange)
        environ = self._environs.make(exchange.scope, exchange.content.file, exchange.content.size)
        result = self._app(environ, response.start)
        try:
            response.send(result)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()


class _Response:
    """One response, as the application makes it."""

    __slots__ = ("_begun", "_exchange", "_fields", "_length", "_status")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._status = 0
        self._fields: list[tuple[bytes, bytes]] = []
        self._length = b""
        self._begun = False

    def start(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: _ExcInfo | tuple[None, None, None] | None = None,
        /,
    ) -> Callable[[bytes], object]:
        """The specification's ``start_response``."""
        if exc_info is not None:
            try:
                if self._begun and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a frame and its own traceback refer to each other
        elif self._status:
            raise MessageError("start_response was called a second time, without exc_info")
        self._status = _code(status)
        try:
            self._fields = [
                (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers
            ]
        except (AttributeError, TypeError, ValueError) as error:
            raise MessageError(f"headers are not pairs of Latin-1 strings: {error}") from error
        self._length = _content_length(self._fields)
        return self.write

    def write(self, data: bytes) -> None:
        """Send content now; the first has the head before it."""
        if not self._status:
            raise MessageError("content was sent before start_response was called")
        if not isinstance(data, bytes):
            raise MessageError(f"content is {type(data).__name__}, not bytes")
        if not data:
            return  # the head goes with the first content that is not empty
        if self._begun:
            self._exchange.write(data)
        else:
            self._begun = True
            # Frameworks wrap what is one piece into iterators: where it is all that was
            # promised, it need not wait for the iterator's end.
            more = self._length != b"%d" % len(data)
            self._exchange.reply(self._status, self._fields, data, more)

    def send(self, result: Iterable[bytes]) -> None:
        """Send all of *result*."""
        if type(result) is FileWrapper and self._send_file(result):
            return
        if isinstance(result, (list, tuple)):
            # All is here: its length is known, and one write sends it.
            self._end(result[0] if len(result) == 1 else b"".join(result))
            return
        for data in result:
            self.write(data)
        self._end(b"")

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Have the kernel send the file, if it can, and if that is what was promised."""
        exchange = self._exchange
        # Others have no content, or not this.
        if self._status not in (200, 206) or self._begun or exchange.scope["method"] == "HEAD":
            return False
        part = wrapper.part() if exchange.sends_files else None
        if part is None or self._length not in (b"", b"%d" % part.size):
            return False
        if not self._length:
            self._fields.append((b"content-length", b"%d" % part.size))
        file = os.dup(part.descriptor)
        try:
            exchange.reply_with_file(self._status, self._fields, file, part.offset, part.size)
        except BaseException:
            os.close(file)
            raise
        return True

    def _end(self, data: bytes) -> None:
        if not self._status:
            raise MessageError("the application returned without calling start_response")
        if not isinstance(data, bytes):
            raise MessageError(f"content is {type(data).__name__}, not bytes")
        if not self._begun:
            self._exchange.reply(self._status, self._fields, data)
        elif not self._exchange.finished:
            self._exchange.finish(data)


def _content_length(fields: list[tuple[bytes, bytes]]) -> bytes:
    for name, value in fields:
        if len(name) == 14 and name.lower() == b"content-length":
            return value
    return b""


def _code(status: str) -> int:
    code = status[:3] if isinstance(status, str) else ""
    if not (len(code) == 3 and code.isascii() and code.isdigit() and status[3:4] in ("", " ")):
        raise MessageError(f"the status is {status!r}, not such as '200 OK'")
    return int(code)
