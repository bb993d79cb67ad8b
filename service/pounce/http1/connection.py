"""One HTTP/1.1 client connection: from its transport to request cycles, and back.

At any moment a connection is in one of these situations, told apart by what it holds:

==============  ===========================  =====================================
situation       held                         `deadline`
==============  ===========================  =====================================
fresh, idle     no cycle, reader empty       closes silently
reading a head  no cycle, reader not empty   answers 408
responding      a cycle                      answers 408, set only while the
                                             application waits for content
held up         `write_paused`, no cycle     none: `write_timeout` counts
dropping        no cycle, reader in a body   closes
leaving         `_leaving`, no cycle         none: a successor will have its own
closing         `gone` is true               aborts
==============  ===========================  =====================================

Only `sweep` looks at the deadline, so no request needs a timer.
"""

import asyncio
from math import inf

from pounce.application.types import Scope
from pounce.asgi.cycle import RequestCycle
from pounce.asgi.extensions import tls_extension
from pounce.asgi.scope import build_scope, renew_scope
from pounce.http.connections import ServerContext, Upgrade
from pounce.http.defaults import DefaultHeaders
from pounce.http.room import ASKED, BEGUN, SILENT
from pounce.http1.events import END_OF_REQUEST, BadRequest, Body, Event, NeedData, RequestHead
from pounce.http1.long_head import LONG_HEAD, is_long
from pounce.http1.rules import scheme_of, to_origin_form
from pounce.http1.stream import RECEIVE_BUFFER, UNREAD_BODY, RequestStream
from pounce.ipc.handover import Passage
from pounce.net.forwarded import Origin

FIRST_REQUEST = 1.0
"""How long, in seconds, a stop waits for a request of a client that is new or was just busy."""

LIKELY = 5.0
"""How long, in seconds, a client is likely to send another request after the last."""


class HTTP1Connection(RequestStream):
    """Serves the requests of one client, one after the other.

    *server* is the scope's: a listener's host and port, or a path and None. Without it the
    socket is asked. *passage* describes a connection that another worker has served before.
    *defaults* are the context's where none are given.
    """

    __slots__ = (
        "_droppable",
        "_extensions",
        "_head_begun",
        "_passage",
        "_pristine",
        "_requests",
        "_trusted",
    )

    def __init__(
        self,
        context: ServerContext,
        *,
        scheme: str = "http",
        server: tuple[str, int | None] | None = None,
        passage: Passage | None = None,
        defaults: DefaultHeaders | None = None,
    ) -> None:
        super().__init__(context, scheme, server, defaults or context.defaults)
        self._passage = passage
        self._requests = passage.requests if passage else 0
        self._droppable = UNREAD_BODY
        # The request whose head has begun, by the number of those before it.
        self._head_begun = -1
        self._pristine: Scope | None = None

    # What the worker asks for.

    def sweep(self, now: float) -> None:
        """Enforce the timeouts, and keep nothing for a client that is idle."""
        waits = self._cycle is None and self._reader.idle and not self.write_paused
        if waits and self.deadline >= 0:  # since the last sweep at least
            self._head = self._pristine = None
            self._reader.forget()
        super().sweep(now)

    def drain(self) -> None:
        """Serve what is here, accept no further request; then leave to a successor, or close."""
        self._restrained = True
        if self._cycle is not None or self.gone:
            return  # the response in flight will say that it is the last, unless it need not be
        if self._context.hand_over is not None:
            self._next_request()
        elif self._reader.buffer:
            return  # the same goes for the response that is due
        elif self.spare_since <= self._context.loop.time():
            self._close()
        else:
            # Its first request may be on its way, or another one soon after the last.
            self.deadline = -FIRST_REQUEST

    def passage(self) -> Passage:
        """What a successor must know to go on with this connection."""
        return Passage(
            self._scheme, self._server, self._client, self._requests, self._reader.unread()
        )

    @property
    def progress(self) -> int:
        """How far its first request has come; see pounce.http.room.Newcomer."""
        if self._requests:
            return ASKED
        return BEGUN if self._reader.buffer else SILENT

    @property
    def spare_since(self) -> float:
        """Since when it may be closed for another's sake; see pounce.http.connections."""
        reader, config = self._reader, self._context.config
        waits = self._cycle is None and not reader.in_body and not self.write_paused
        if not (self._requests and waits) or self.deadline < 0:  # a sweep has yet to meet it
            return inf
        # A head that does not come to its end is no request, either.
        patience = config.header_timeout if reader.buffer else config.keep_alive_timeout
        return self.deadline - patience + LIKELY

    # What the transport tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client is connected."""
        super().connection_made(transport)
        context, passage = self._context, self._passage
        self._passage = None
        if passage is not None:
            self._client = passage.client
        elif self._client is None and self.is_remote:
            # It was reset already, and getpeername(2) fails. Without a name it would be taken
            # for the peer of a unix socket, and what it has sent be believed like a proxy's.
            self.abort()
            return
        self._restrained = context.draining
        connection = transport.get_extra_info("ssl_object")
        self._extensions = context.extensions
        if connection is not None:
            self._extensions = {**context.extensions, "tls": tls_extension(connection)}
        self._trusted = context.proxies.trusts_peer(self._client)
        config = context.config
        if not context.room.admit(self, self._client):
            self._refuse()
        else:
            self.deadline = -(
                config.keep_alive_timeout if self._requests else config.header_timeout
            )
            if passage and passage.received:
                self.data_received(passage.received)
            if context.draining:
                self.drain()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._cycle is not None:
            self._reader.feed(data)
            self._input.wake()
            self._throttle()
        elif self._restrained:
            self._hold(data)
        elif data == self._reader.again:
            self._serve(self._same_scope())
        else:
            self._read(data)

    def eof_received(self) -> bool:
        """The client will send no more; true keeps the transport, for it may still read."""
        self._eof = self._restrained = True
        self._reader.eof()
        if self._cycle is None and len(self._reader.buffer) > LONG_HEAD:
            self._context.turns.later(self._next_request)
        elif self._cycle is None:
            self._next_request()
        else:
            self._input.wake()
        return True

    def resume_writing(self) -> None:
        """What was written has gone out."""
        super().resume_writing()
        if self._cycle is not None or self.gone or self._leaving:
            return
        self.deadline = self._context.idle_deadline
        # Not from here: the transport is still busy with what it has.
        self._context.turns.later(self._next_request)

    # Requests.

    def _next_request(self) -> None:
        """Begin the next request if one may begin and its head is here."""
        if self._cycle is None:
            self.data_received(b"")

    def _hold(self, data: bytes) -> None:
        """Read no request from *data* now, unless the connection has to stay here."""
        if self.gone or self._leaving:
            self._reader.feed(data)
        elif self.write_paused:
            # Who sends requests and reads no responses must not fill the memory with them.
            self._reader.feed(data)
            self._throttle()
        elif self._may_leave() and not self._reader.in_body:
            self._reader.feed(data)
            self._leave_to_successor()
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Begin the next request if *data* completes its head."""
        reader = self._reader
        if data and len(reader.buffer) + len(data) > LONG_HEAD and is_long(reader.buffer, data):
            reader.feed(data)
            self._await_turn()
            return
        try:
            event = reader.receive(data)
            head = event if type(event) is RequestHead else self._drop_content(event)
        except BadRequest as error:
            self._refuse_input(error)
            return
        if head is None:
            self._await_request()
            return
        try:
            self._begin(head)
        except BadRequest as error:
            self._answer(error.status, error.reason, line=head.line)

    def _await_turn(self) -> None:
        """Read the received bytes in a later turn; until then no others."""
        if not self._reader.in_body:
            self._time_head()
        self._pause_reading(True)
        self._context.turns.later(self._next_request)

    def _time_head(self) -> None:
        if self._head_begun != self._requests:
            self._head_begun = self._requests
            self.deadline = -self._context.config.header_timeout

    def _drop_content(self, event: Event | NeedData) -> RequestHead | None:
        """Pass over what the last request's application has left unread."""
        reader = self._reader
        if isinstance(event, Body):
            self._droppable -= len(event.data)
            if reader.in_body:
                # Others have their turn before the next piece.
                if self._droppable >= 0:
                    self._context.turns.later(self._next_request)
                return None
            event = reader.next_event()
        if event is END_OF_REQUEST:  # from here on the connection is idle
            self.deadline = self._context.idle_deadline
            event = reader.next_event()
        return event if isinstance(event, RequestHead) else None

    def _begin(self, head: RequestHead) -> None:
        # Before the application starts, for it may wait for more at once.
        if self._reader.buffer or self._reading_paused:
            self._pause_reading(len(self._reader.buffer) > RECEIVE_BUFFER)
        if head is self._head:
            self._serve(self._same_scope())
        elif head.websocket and self._context.websocket is not None:
            self._upgrade(head, self._context.websocket)
        else:
            self._pristine = None
            self._take(head)
            self._serve(self._make_scope(head))

    def _serve(self, scope: Scope) -> None:
        """Begin the request that *scope* describes."""
        context = self._context
        self._requests += 1
        if self._requests == context.most_requests:
            self._persists = self._plainly = False
        self.deadline = inf
        if self._task is not None:
            self._share_task()
            self._task = None
        self._cycle = cycle = (context.make_cycle or RequestCycle)(self, scope, context)
        task = cycle.start()
        if task is not None and not task.done():
            self._keep(task, cycle)

    def _upgrade(self, head: RequestHead, upgrade: Upgrade) -> None:
        scope, received = self._make_scope(head), self._reader.unread()
        upgrade(self._context, self._transport, scope, received, ended=self._eof)
        # In this order, so that a draining worker does not think that nobody is left.
        self._leave()

    def _same_scope(self) -> Scope:
        """The scope of a request that is the same as the last."""
        # Only where the same does come again is it worth the memory to keep its scope.
        if self._pristine is None:
            assert self._head is not None  # noqa: S101 - there was a last one
            self._pristine = self._make_scope(self._head)
        if self._context.make_cycle is None:
            return renew_scope(self._pristine, self._context.state)
        return self._pristine  # who needs a copy makes it

    def _make_scope(self, head: RequestHead) -> Scope:
        context = self._context
        method, target, headers, version, _, _, _, forwarded, _ = head
        client, scheme, server = self._client, self._scheme, self._server
        root_path = context.config.root_path
        if not target.startswith(b"/"):
            scheme = scheme_of(target, scheme, trusted=self._trusted)
            target, headers = to_origin_form(target, headers)
        if forwarded and self._trusted:
            client, scheme, headers, server, root_path = context.proxies.resolve(
                Origin(client, scheme, headers, server, root_path)
            )
        state, extensions = context.state, self._extensions
        return build_scope(
            method, target, headers, version, scheme, client, server, root_path, state, extensions
        )

    def _closes_after(self) -> bool:
        """Whether the response now due has to be the connection's last."""
        # A client that was not told to go on may or may not send its content: what follows on
        # the connection could be read as either (RFC 9110 section 10.1.1).
        if self._expects_continue:
            return True
        # Nor does it stay for a rest that is too long to be dropped: the client learns at once that
        # it need not send that.
        if self._long and self._reader.to_be_read > UNREAD_BODY:
            return True
        return self._context.draining and not self._reader.buffer and not self._may_leave()

    def _finish(self, keep_alive: bool) -> None:
        context, reader = self._context, self._reader
        context.requests += 1
        self._cycle = None
        self._response = None
        if self._input.waiters:
            self._input.wake()
        if not keep_alive:
            self._linger(more=self._reader.in_body)
        # The first implies the second, which takes a call.
        elif not self._restrained and (reader.again is not None or reader.idle):
            self.deadline = context.idle_deadline
            if self._reading_paused:
                self._throttle()
        else:
            self._droppable = UNREAD_BODY
            config = context.config
            self.deadline = -(config.body_timeout if reader.in_body else config.keep_alive_timeout)
            # Not from here: the application is still in its send().
            context.turns.later(self._next_request)

    def _await_request(self) -> None:
        context = self._context
        # What was here is used up, so that there is room again.
        self._throttle()
        if self._droppable < 0:
            self._linger(more=True)
        elif self._reader.in_body:
            return
        elif self._reader.buffer:
            self._time_head()
        elif self._may_leave():
            self._leave_to_successor()
        elif self._eof:
            self._close()
        elif context.stopping or (context.draining and context.hand_over is None):
            # Its next request may be on its way. With a successor about there is more time: a
            # connection that cannot go there is closed politely, by its next response.
            self.deadline = -FIRST_REQUEST

    # Ends.

    def _refuse_input(self, error: BadRequest) -> None:
        if self._reader.in_body:
            # The request was answered; a second answer would be taken for the next one's.
            self._linger(more=True)
        else:
            self._answer(error.status, error.reason, line=self._reader.line)

    def expire(self) -> None:
        """The deadline has passed."""
        if self.gone:
            self._transport.abort()
        elif self._cycle is not None:
            self._expire_body()
        elif self.write_paused:
            self.deadline = inf
        elif self._reader.in_body:
            self._linger(more=True)
        elif self._reader.buffer:
            self._answer(408, "the request's head came too slowly", line=self._reader.line)
        else:
            self._close()
