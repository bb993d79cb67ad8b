"""Calling a WSGI application, and holding it to PEP 3333 where that matters to the client."""

import os
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from types import TracebackType
from wsgiref.types import WSGIApplication

from pounce.asgi.types import MessageError
from pounce.sync.exchange import Exchange, Handler
from pounce.wsgi.environ import EnvironMaker
from pounce.wsgi.file_wrapper import FileWrapper

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

# As the standard library's are written, and as Werkzeug's are.
_CODES = {
    f"{code.value} {phrase}": code.value
    for code in HTTPStatus
    for phrase in (code.phrase, code.phrase.upper())
}

_REMEMBERED = 256


class _Fields(dict[tuple[str, str], tuple[bytes, bytes]]):
    """Headers as bytes. Applications send the same few again and again: some are remembered."""

    __slots__ = ()

    def __missing__(self, header: tuple[str, str]) -> tuple[bytes, bytes]:
        """Encode *header*, and remember it."""
        name, value = header
        field = name.encode("latin-1"), value.encode("latin-1")
        if len(self) >= _REMEMBERED:
            self.clear()
        self[header] = field
        return field


class WSGIHandler(Handler):
    """Answers with *app*, whose environs *environs* makes."""

    def __init__(self, app: WSGIApplication, environs: EnvironMaker) -> None:
        self._app = app
        self._environs = environs
        self._fields = _Fields()

    def of_thread(self) -> "WSGIHandler":
        """One that remembers by itself: threads that share a memory would wait for each other."""
        return WSGIHandler(self._app, self._environs)

    def answer(self, exchange: Exchange) -> None:
        """Call the application and send what it returns."""
        response = _Response(exchange, self._fields)
        environ = self._environs.make(exchange.scope, exchange.content, exchange.content_size)
        result = self._app(environ, response.start)
        if type(result) is list:  # which has no close()
            response.end(result)
            return
        try:
            response.send(result)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()


class _Response:
    """One response, as the application makes it."""

    __slots__ = ("_exchange", "_fields", "_known", "_status")

    _fields: list[tuple[bytes, bytes]]

    def __init__(self, exchange: Exchange, known: _Fields) -> None:
        self._exchange = exchange
        self._known = known
        self._status = 0

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
                if self._exchange.steps and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a frame and its own traceback refer to each other
        elif self._status:
            raise MessageError("start_response was called a second time, without exc_info")
        try:
            code = _CODES[status]
        except (KeyError, TypeError):
            code = _code(status)
        known = self._known
        try:
            if type(headers) is not list:
                headers = list(headers)
            self._fields = [known[header] for header in headers]
        except (AttributeError, TypeError, ValueError):
            self._fields = _encoded(headers)
        self._status = code
        return self.write

    def write(self, data: bytes) -> None:
        """Send content now; the first has the head before it."""
        if not self._status:
            raise MessageError("content was sent before start_response was called")
        if not isinstance(data, bytes):
            raise MessageError(f"content is {type(data).__name__}, not bytes")
        if not data:
            return  # the head goes with the first content that is not empty
        if self._exchange.steps:
            self._exchange.write(data)
        else:
            # Frameworks wrap what is one piece into iterators: where it is all that was
            # promised, it need not wait for the iterator's end.
            more = _content_length(self._fields) != b"%d" % len(data)
            self._exchange.reply(self._status, self._fields, data, more)

    def send(self, result: Iterable[bytes]) -> None:
        """Send all of *result*."""
        if type(result) is FileWrapper and self._send_file(result):
            return
        if isinstance(result, (list, tuple)):
            self.end(result)
            return
        for data in result:
            self.write(data)
        self.end(())

    def end(self, pieces: Sequence[bytes]) -> None:
        """Send *pieces*, the last ones, by one write: all are here, so their length is known."""
        if not self._status:
            raise MessageError("the application returned without calling start_response")
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not isinstance(data, bytes):
            raise MessageError(f"content is {type(data).__name__}, not bytes")
        exchange = self._exchange
        if not exchange.steps:
            exchange.reply(self._status, self._fields, data)
        elif not exchange.finished:
            exchange.finish(data)

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Have the kernel send the file, if it can, and if that is what was promised."""
        exchange = self._exchange
        # Others have no content, or not this.
        if self._status not in (200, 206) or exchange.steps or exchange.scope["method"] == "HEAD":
            return False
        part = wrapper.part() if exchange.sends_files else None
        length = _content_length(self._fields)
        if part is None or length not in (b"", b"%d" % part.size):
            return False
        if not length:
            self._fields.append((b"content-length", b"%d" % part.size))
        file = os.dup(part.descriptor)
        try:
            exchange.reply_with_file(self._status, self._fields, file, part.offset, part.size)
        except BaseException:
            os.close(file)
            raise
        return True


def _encoded(headers: Iterable[Iterable[str]]) -> list[tuple[bytes, bytes]]:
    try:
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    except (AttributeError, TypeError, ValueError) as error:
        raise MessageError(f"headers are not pairs of Latin-1 strings: {error}") from error


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
