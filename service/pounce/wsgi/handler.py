"""Calling a WSGI application, and holding it to PEP 3333 where that matters to the client."""

import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from wsgiref.types import WSGIApplication

from pounce.asgi.response_head import ResponseHead
from pounce.asgi.types import MessageError
from pounce.sync.exchange import Exchange, Handler
from pounce.wsgi.environ import EnvironMaker
from pounce.wsgi.file_wrapper import FileWrapper
from pounce.wsgi.heads import KnownHeads, content_length, make_head, with_length
from pounce.wsgi.no_content import NoContent

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType]


class WSGIHandler(Handler):
    """Answers with *app*, whose environs *environs* makes."""

    def __init__(self, app: WSGIApplication, environs: EnvironMaker) -> None:
        self._app = app
        self._environs = environs
        self._known = KnownHeads()
        self._no_content = NoContent()

    def of_thread(self) -> "WSGIHandler":
        """One that remembers by itself: threads that share a memory would wait for each other."""
        return WSGIHandler(self._app, self._environs)

    def answer(self, exchange: Exchange) -> None:
        """Call the application and send what it returns."""
        response = _Response(exchange, self._known)
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
    """One response, as the application makes it; `_length` is what `_head` lacks."""

    __slots__ = ("_exchange", "_head", "_known", "_length")

    _length: str | None

    def __init__(self, exchange: Exchange, known: KnownHeads) -> None:
        self._exchange = exchange
        self._known = known
        self._head: ResponseHead | None = None

    def start(
        self,
        status: str,
        headers: Iterable[tuple[str, str]],
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
        length = None
        try:
            headers = tuple(headers)
            head = self._known.get((status, headers))
            if head is None:
                head, length = self._known.take(status, headers)
        except (AttributeError, LookupError, TypeError, ValueError):
            head = make_head(status, headers)
        self._head = head
        self._length = length
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
        elif self._length == str(len(data)) or content_length(head.fields) == b"%d" % len(data):
            self._exchange.reply(head, data)
        else:
            self._exchange.begin(with_length(head, self._length), data)

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
            if self._length is not None and (not data or self._length != str(len(data))):
                head = with_length(head, self._length)
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
        head = with_length(head, self._length)
        length = content_length(head.fields)
        if part is None or length not in (b"", b"%d" % part.size):
            return False
        if not length:
            head = with_length(head, str(part.size))
        file = os.dup(part.descriptor)
        try:
            exchange.reply_with_file(head, file, part.offset, part.size)
        except BaseException:
            os.close(file)
            raise
        return True
