"""Calling a WSGI application, and holding it to PEP 3333 where that matters to the client."""

import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from wsgiref.types import WSGIApplication

from pounce.application.types import ClientDisconnected, MessageError
from pounce.asgi.departure import Overrun
from pounce.http.response_head import NO_CONTENT
from pounce.threads.exchange import Exchange
from pounce.threads.handler import Handler
from pounce.wsgi.environ import EnvironMaker
from pounce.wsgi.file_wrapper import FileWrapper
from pounce.wsgi.heads import KnownHeads, WSGIHead, as_length, make_head, with_length
from pounce.wsgi.no_content import NoContent

# Of a file that is smaller than this, the application's thread sends a copy sooner.
_WORTH = 65_536

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
        except ClientDisconnected:
            exchange.listens = True  # it hears by its close()
            raise
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()


class _Response:
    """One response, as the application makes it.

    `_length` is what `_head` lacks. `_left` is how much of the promised content is still to come
    once some was sent; None is as much as there is.
    """

    __slots__ = ("_exchange", "_head", "_known", "_left", "_length", "_overrun")

    _left: int | None
    _length: str | None
    _overrun: Overrun | None  # once the client has left and write() is still called

    def __init__(self, exchange: Exchange, known: KnownHeads) -> None:
        self._exchange = exchange
        self._known = known
        self._head: WSGIHead | None = None
        self._overrun = None

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
        if head.event_stream and not self._exchange.steps:
            # The first event may come late, and a stop would take the connection for busy.
            self._exchange.announce(head)
        return self.write

    def write(self, data: bytes) -> None:
        """The specification's ``write``: to go beyond the promised length is an error."""
        room = self._room(data)
        if room is not None and len(data) > room:
            if self._has_content():
                excess = len(data) - room
                raise MessageError(f"write() was given {excess} bytes more than content-length")
            data = data[:room]
        try:
            self._send(data)
        except ClientDisconnected:
            # It would be reported as an error of the application, which did nothing wrong. Yet
            # one that writes for ever has to end.
            if self._overrun is None:
                self._overrun = Overrun()
            if self._overrun.over:
                self._exchange.listens = True
                raise

    def send(self, result: Iterable[bytes]) -> None:
        """Send all of *result* that was promised."""
        if type(result) is FileWrapper and self._send_file(result):
            return
        if isinstance(result, (list, tuple)):
            self.end(result)
            return
        exchange = self._exchange
        for data in result:
            if exchange.steps and exchange.dismissed:
                raise ClientDisconnected("the event stream has to end")
            room = self._room(data)
            # The piece after the last promised one is asked for as well: most iterators end there,
            # and some have work to do at their end.
            if room is not None and len(data) > room:
                self._send(data[:room])
                break
            self._send(data)
        self.end(())

    def end(self, pieces: Sequence[bytes]) -> None:
        """Send *pieces*, the last ones, by one write: all are here, so their length is known.

        The excess over the promised length is left out (PEP 3333, "Handling the Content-Length
        Header").
        """
        head = self._head
        if head is None:
            raise MessageError("the application returned without calling start_response")
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not isinstance(data, bytes):
            raise MessageError(f"content is {type(data).__name__}, not bytes")
        exchange, length = self._exchange, self._length
        if exchange.steps:
            if self._overrun is not None:
                raise ClientDisconnected("the client is gone")  # this is not the whole any more
            if not exchange.finished:
                exchange.finish(data[: self._left])
            return
        if length is not None and (not data or length != str(len(data))):
            head = with_length(head, length)
        exchange.reply(head, data[: head.promised])

    def _room(self, data: bytes) -> int | None:
        """How much content the head's length has room for; *data* is what shall be sent."""
        head = self._head
        if head is None:
            raise MessageError("content was sent before start_response was called")
        if not isinstance(data, bytes):
            raise MessageError(f"content is {type(data).__name__}, not bytes")
        if self._exchange.steps:
            return self._left
        length, size = self._length, len(data)
        if length is None:
            return head.promised
        # What is one piece has nearly always the length that was promised.
        return size if length == str(size) else as_length(length)

    def _has_content(self) -> bool:
        assert self._head is not None  # noqa: S101 - asked before
        return self._exchange.scope["method"] != "HEAD" and self._head.status not in NO_CONTENT

    def _send(self, data: bytes) -> None:
        """Send *data*, for which there is room; the first has the head before it."""
        if not data:
            return  # the head goes with the first content that is not empty
        if not self._exchange.steps:
            self._begin(data)
            return
        self._exchange.write(data)
        if self._left is not None:
            self._left -= len(data)

    def _begin(self, data: bytes) -> None:
        exchange, head, length = self._exchange, self._head, self._length
        assert head is not None  # noqa: S101 - asked before
        if length is not None and length != str(len(data)):
            head, length = with_length(head, length), None
        # Frameworks wrap what is one piece into iterators: where it is all that was promised, it
        # need not wait for the iterator's end.
        if length is not None or head.promised == len(data):
            self._left = 0
            exchange.reply(head, data)
            return
        if not self._has_content():
            self._left = 0
        else:
            self._left = None if head.promised is None else head.promised - len(data)
        exchange.begin(head, data)

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Have the kernel send the file, if it can, and if that is what was promised."""
        exchange, head = self._exchange, self._head
        if head is None or exchange.steps:
            return False
        head = with_length(head, self._length)
        part = wrapper.part() if exchange.sends_files else None
        size = 0 if part is None else part.size
        if exchange.scope["method"] == "HEAD":
            exchange.reply(_with_size(head, size), b"")
            return True
        promised = size if head.promised is None else head.promised
        # Other statuses have no content, or not this.
        if part is None or not _WORTH <= promised <= size or head.status not in (200, 206):
            return False
        file = os.dup(part.descriptor)
        try:
            exchange.reply_with_file(_with_size(head, promised), file, part.offset, promised)
        except BaseException:
            os.close(file)
            raise
        return True


def _with_size(head: WSGIHead, size: int) -> WSGIHead:
    return with_length(head, str(size)) if size >= _WORTH else head
