"""Calling a WSGI application, and holding it to PEP 3333 where that matters to the client."""

import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from wsgiref.types import WSGIApplication

from pounce.asgi.response_head import Fields, ResponseHead
from pounce.asgi.types import MessageError
from pounce.sync.exchange import Exchange, Handler
from pounce.wsgi.environ import EnvironMaker
from pounce.wsgi.file_wrapper import FileWrapper
from pounce.wsgi.no_content import NoContent

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

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


class _Heads(dict[tuple[str, tuple[tuple[str, str], ...]], ResponseHead]):
    """Heads by status and headers; some are remembered, as are the fields that they are made of."""

    __slots__ = ("_fields",)

    def __init__(self) -> None:
        super().__init__()
        self._fields = _Fields()

    def __missing__(self, key: tuple[str, tuple[tuple[str, str], ...]]) -> ResponseHead:
        """Make the head, and remember it. Raises MessageError."""
        status, headers = key
        fields = self._fields
        head = ResponseHead(_code(status), [fields[header] for header in headers])
        if len(self) >= _REMEMBERED:
            self.clear()
        self[key] = head
        return head


class WSGIHandler(Handler):
    """Answers with *app*, whose environs *environs* makes."""

    def __init__(self, app: WSGIApplication, environs: EnvironMaker) -> None:
        self._app = app
        self._environs = environs
        self._heads = _Heads()
        self._no_content = NoContent()

    def of_thread(self) -> "WSGIHandler":
        """One that remembers by itself: threads that share a memory would wait for each other."""
        return WSGIHandler(self._app, self._environs)

    def answer(self, exchange: Exchange) -> None:
        """Call the application and send what it returns."""
        response = _Response(exchange, self._heads)
        environ = self._environs.make(exchange.scope)
        content = exchange.content
        if content is None:
            environ["wsgi.input"] = self._no_content
        else:
            environ["wsgi.input"] = content
            environ["CONTENT_LENGTH"] = str(exchange.content_size)
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

    __slots__ = ("_exchange", "_head", "_heads")

    def __init__(self, exchange: Exchange, heads: _Heads) -> None:
        self._exchange = exchange
        self._heads = heads
        self._head: ResponseHead | None = None

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
        elif self._head is not None:
            raise MessageError("start_response was called a second time, without exc_info")
        try:
            if type(headers) is not list:
                headers = list(headers)
            self._head = self._heads[status, tuple(headers)]
        except (AttributeError, TypeError, ValueError):
            self._head = ResponseHead(_code(status), _encoded(headers))
        return self.write

    def write(self, data: bytes) -> None:
        """Send content now; the first has the head before it."""
        head = self._head
        if head is None:
            raise MessageError("content was sent before start_response was called")
        if not isinstance(data, bytes):
            raise MessageError(f"content is {type(data).__name__}, not bytes")
        if not data:
            return  # the head goes with the first content that is not empty
        if self._exchange.steps:
            self._exchange.write(data)
        # Frameworks wrap what is one piece into iterators: where it is all that was promised, it
        # need not wait for the iterator's end.
        elif _content_length(head.fields) == b"%d" % len(data):
            self._exchange.reply(head, data)
        else:
            self._exchange.begin(head, data)

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
        head = self._head
        if head is None:
            raise MessageError("the application returned without calling start_response")
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not isinstance(data, bytes):
            raise MessageError(f"content is {type(data).__name__}, not bytes")
        exchange = self._exchange
        if not exchange.steps:
            exchange.reply(head, data)
        elif not exchange.finished:
            exchange.finish(data)

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Have the kernel send the file, if it can, and if that is what was promised."""
        exchange, head = self._exchange, self._head
        # Others have no content, or not this.
        if head is None or head.status not in (200, 206):
            return False
        if exchange.steps or exchange.scope["method"] == "HEAD":
            return False
        part = wrapper.part() if exchange.sends_files else None
        length = _content_length(head.fields)
        if part is None or length not in (b"", b"%d" % part.size):
            return False
        if not length:
            added = (b"content-length", b"%d" % part.size)
            head = ResponseHead(head.status, [*head.fields, added])
        file = os.dup(part.descriptor)
        try:
            exchange.reply_with_file(head, file, part.offset, part.size)
        except BaseException:
            os.close(file)
            raise
        return True


def _encoded(headers: Iterable[Iterable[str]]) -> list[tuple[bytes, bytes]]:
    try:
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    except (AttributeError, TypeError, ValueError) as error:
        raise MessageError(f"headers are not pairs of Latin-1 strings: {error}") from error


def _content_length(fields: Fields) -> bytes:
    for name, value in fields:
        if len(name) == 14 and name.lower() == b"content-length":
            return value
    return b""


def _code(status: str) -> int:
    code = status[:3] if isinstance(status, str) else ""
    if not (len(code) == 3 and code.isascii() and code.isdigit() and status[3:4] in ("", " ")):
        raise MessageError(f"the status is {status!r}, not such as '200 OK'")
    return int(code)
