"""Datagrams to connections, and connections' datagrams out: the side of HTTP/3 that has sockets."""

import marshal
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from aioquic.quic.configuration import QuicConfiguration

from pounce.http.connections import ServerContext
from pounce.http.room import Room
from pounce.http3 import packets
from pounce.http3.connection import HTTP3Connection
from pounce.http3.outlet import Path
from pounce.http3.quic import MAX_DATAGRAM, Choose, ServerConnection
from pounce.http3.tokens import ConnectionIds, Identity, RetryTokens
from pounce.net.host import unmapped
from pounce.net.udp import Datagram, UDPPort
from pounce.workers.base import Mail
from pounce.workers.gate import Arrival, Gate
from pounce.workers.inbox import Inbox, Letter

# System calls for a batch of datagrams; each may bring up to 64.
_BATCH = 256

# For so many seconds the kernel may have something that is not read; connections that send more
# than others are cut short then, before others lose what the kernel has no room for.
_OVERRUN = 0.005

# From so many handshakes under way on, a new client has to show first that it is at its address
# (RFC 9000 section 8.1). Beyond the other number, each new handshake ends an older one. A handshake
# takes about 100 KiB.
_RETRY_FROM = 64
_MAX_HANDSHAKES = 512

# Answers in half a second to those who have no connection: version negotiation and stateless reset.
# A flood of forged datagrams must not make more work than it is. Retry has no such limit: it is a
# fraction of what it answers, and a flood must not take it from honest clients.
_MAX_ANSWERS = 1000


class QuicListener(NamedTuple):
    """A UDP socket, and how its connections begin; *closes* is whether a stop closes it."""

    sock: socket.socket
    configuration: QuicConfiguration
    choose: Choose
    closes: bool = False


class Switchboard:
    """What a worker's UDP sockets bring, brought to its connections.

    Mail is read from the start, the sockets from `open` to `close`. After `stay` the sockets are
    read for the connections that are here already, and for other workers' connections.
    """

    def __init__(
        self, context: ServerContext, listeners: Sequence[QuicListener], mail: Mail
    ) -> None:
        self._context = context
        self._loop = context.loop
        self._turns = context.turns
        self._ports = _Ports(listeners)
        self._mailboxes = mail.mailboxes
        self._mailbox = mail.number
        self._ids = ConnectionIds(mail.secret)
        self._inbox: Inbox[HTTP3Connection] = Inbox()
        keys = self._ids.check_keys
        self._gate = Gate(context, self._ports.all, keys, self._let_in, self._inbox)
        self._identity = Identity(self._ids, mail.number)
        self._retry_tokens = RetryTokens(mail.secret, time.time)
        self._connections: dict[bytes, HTTP3Connection] = {}
        # By ids that clients have chosen, which anybody can forge: these are strangers still.
        self._beginnings: dict[bytes, HTTP3Connection] = {}
        self._handshakes: set[HTTP3Connection] = set()
        excess = "HTTP/3 handshakes than %d at once"
        self._entrance = Room(self._handshakes, _MAX_HANDSHAKES, self._loop.time, excess)
        self._scheduled: dict[HTTP3Connection, None] = {}
        # What is left of a batch at the end of a turn.
        self._unread: dict[UDPPort, Iterator[Datagram]] = {}
        self._answers = _MAX_ANSWERS
        self._accepting = self._reading = self._refusing = False
        self._loop.add_reader(self._mailboxes.fileno(self._mailbox), self._read_mail)

    def open(self) -> None:
        """Read the sockets, and take new connections."""
        self._accepting = True
        self._read_sockets(True)

    def close(self) -> None:
        """Leave the sockets to others."""
        self._accepting = False
        self._read_sockets(False)

    def stay(self, *, stopping: bool) -> None:
        """Read the sockets, which nobody else does any more, but take no new connections.

        Where nobody will later, because the service is *stopping*, clients are told so.
        """
        self._accepting, self._refusing = False, stopping
        self._read_sockets(True)

    def is_needed(self) -> bool:
        """Whether another worker may have connections whose datagrams come to these sockets.

        The kernel chooses the socket by the client's address, so a client that has moved may be
        heard by any of them. Call it when no connection is left here.
        """
        self._mailboxes.rest(self._mailbox)
        return self._reading and self._mailboxes.awaited

    def end(self) -> None:
        """Read no mail, either."""
        self.close()
        self._loop.remove_reader(self._mailboxes.fileno(self._mailbox))

    def sweep(self) -> None:
        """Begin a new half second."""
        self._answers = _MAX_ANSWERS
        self._gate.open()
        self._entrance.sweep()

    # What a connection asks for; see pounce.http3.connection.Outlet.

    def send(self, datagrams: Iterable[tuple[bytes, Path]]) -> None:
        """Send *datagrams*, each to its path's peer."""
        for path, group in groupby(datagrams, itemgetter(1)):
            batch: list[bytes] = []
            for datagram, _ in group:
                # One system call takes datagrams of one size, and a shorter one at the end.
                if batch and (len(datagram) > len(batch[0]) or len(batch[-1]) < len(batch[0])):
                    self._post(batch, path)
                    batch = []
                batch.append(datagram)
            self._post(batch, path)

    def route(self, connection_id: bytes, connection: HTTP3Connection) -> None:
        """Bring datagrams for *connection_id* to *connection*."""
        is_ours = self._ids.mailbox(connection_id) is not None
        (self._connections if is_ours else self._beginnings)[connection_id] = connection

    def unroute(self, connection_id: bytes) -> None:
        """Forget *connection_id*."""
        self._connections.pop(connection_id, None)
        self._beginnings.pop(connection_id, None)

    def settled(self, connection: HTTP3Connection) -> None:
        """The handshake of *connection* is over, one way or another."""
        self._handshakes.discard(connection)
        self._entrance.leave(connection)

    def schedule(self, connection: HTTP3Connection) -> None:
        """Flush *connection* in this turn of the loop, or the next one."""
        if not self._scheduled:
            self._loop.call_soon(self._flush)
        self._scheduled[connection] = None

    # Coming in.

    def _read_sockets(self, wanted: bool) -> None:
        if wanted != self._reading:
            self._reading = wanted
            self._gate.reset()
            for port in self._ports.all:
                port.reading = wanted
                if wanted:
                    self._loop.add_reader(port.fileno(), self._read, port)
                else:
                    self._loop.remove_reader(port.fileno())

    def _read(self, port: UDPPort) -> None:
        # What is unread has its next turn already.
        if port not in self._unread:
            self._unread[port] = port.receive(_BATCH)
            self._take_turn(port)

    def _take_turn(self, port: UDPPort) -> None:
        """Sort datagrams for as long as a turn may take, and handle some."""
        number = self._ports.number(port)
        end = self._turns.end()
        self._inbox.overrun = port.backlog > _OVERRUN
        for data, peer, local in self._unread[port]:
            self._receive(data, self._ports.path(number, peer, local))
            if time.monotonic() >= end:
                self._turns.later(partial(self._take_turn, port))
                break
        else:
            del self._unread[port]
        self._deliver()

    def _read_mail(self) -> None:
        end = self._turns.end()
        while time.monotonic() < end:
            message = self._mailboxes.take(self._mailbox)
            if message is None:
                break
            number, peer, local, data = marshal.loads(message)  # noqa: S302 - written below
            self._receive(data, self._ports.path(number, peer, local))
        self._deliver()

    def _receive(self, data: bytes, path: Path) -> None:
        """Have a datagram wait for the turn of its connection, or of strangers."""
        if len(data) > MAX_DATAGRAM:
            self._gate.turn_away(data, path)
            return
        destination = packets.destination(data)
        connection = self._connections.get(destination)
        if connection is None:
            self._meet(data, path)
        else:
            letter = Letter(connection, data, path, destination)
            self._inbox.put(letter, from_elsewhere=path.peer != connection.path.peer)

    def _deliver(self) -> None:
        """Have connections take what waits for them, for as long as a turn may take."""
        now, end = self._loop.time(), self._turns.end()
        while self._inbox:
            connection, data, path, _ = self._inbox.take()
            connection.receive(data, path, now)
            self._scheduled[connection] = None
            if time.monotonic() >= end:
                self._turns.later(self._deliver)
                break
        self._gate.open()
        self._flush()

    def _flush(self) -> None:
        """Flush as many connections as a turn has time for; the others have another one."""
        scheduled, self._scheduled = self._scheduled, {}
        now, end = self._loop.time(), self._turns.end()
        for connection in list(scheduled):
            del scheduled[connection]
            connection.flush(now)
            if scheduled and time.monotonic() >= end:
                self._scheduled = {**scheduled, **self._scheduled}
                self._turns.later(self._flush)
                break

    # Datagrams for no connection of this worker.

    def _meet(self, data: bytes, path: Path) -> None:
        """Pass *data* on to the worker that it is for, or have it wait with other strangers."""
        destination = packets.destination(data)
        owner = self._ids.mailbox(destination)
        if owner is not None and owner != self._mailbox and self._mailboxes.is_owned(owner):
            message = marshal.dumps((path.listener, path.peer, path.local, data))
            self._mailboxes.put(owner, message)
        else:
            self._gate.enter(Arrival(data, path, destination), known=owner is not None)

    def _let_in(self, arrival: Arrival) -> None:
        data, path, destination = arrival
        connection = self._beginnings.get(destination) or self._find(arrival)
        if connection is not None:
            connection.receive(data, path, self._loop.time())
            self.schedule(connection)

    def _find(self, arrival: Arrival) -> HTTP3Connection | None:
        """The new connection that *arrival* begins, if it does; else it is answered."""
        data, path, destination = arrival
        if data and packets.is_short(data):
            if self._ids.mailbox(destination) is not None:
                token = self._ids.reset_token(destination)
                self._answer(packets.stateless_reset(len(data), token), path)
        elif (first := packets.initial(data)) is not None:
            return self._welcome(first, path)
        else:
            self._answer(packets.unsupported_version(data), path)
        return None

    def _welcome(self, first: packets.Initial, path: Path) -> HTTP3Connection | None:
        if self._refusing and self._ports.listener(path.listener).closes:
            self._answer(packets.refusal(first, self._identity.new_id()), path)
        if not self._accepting or not self._has_room():
            return None
        address = repr(path.peer).encode()
        original: bytes | None = first.destination
        if first.token:
            original = self._retry_tokens.original(first.token, address, first.destination)
        crowded = self._gate.flooded or len(self._handshakes) >= _RETRY_FROM
        if original is not None and (first.token or not crowded):
            return self._accept(first, original, path)
        chosen = self._identity.new_id()
        token = self._retry_tokens.make(address, first.destination, chosen)
        self._post([packets.retry(first, chosen, token)], path)
        return None

    def _has_room(self) -> bool:
        if self._entrance.has_place() and self._context.room.has_place():
            return True
        self._context.room.note("refused without an answer")
        return False

    def _accept(self, first: packets.Initial, original: bytes, path: Path) -> HTTP3Connection:
        listener = self._ports.listener(path.listener)
        quic = ServerConnection(
            listener.configuration,
            self._identity,
            listener.choose,
            original_destination_connection_id=original,
            retry_source_connection_id=first.destination if first.token else None,
        )
        connection = HTTP3Connection(self._context, quic, self)
        connection.add_id(first.destination)
        connection.add_id(quic.host_cid)
        self._handshakes.add(connection)
        # All who have not shown that they are at their address count as one network, so forged
        # addresses are to nobody's disadvantage.
        peer = path.client if first.token else None
        self._entrance.enter(connection, peer)
        self._context.room.enter(connection, peer)
        return connection

    # Going out.

    def _answer(self, datagram: bytes | None, path: Path) -> None:
        if datagram is not None and self._answers > 0:
            self._answers -= 1
            self._post([datagram], path)

    def _post(self, batch: list[bytes], path: Path) -> None:
        self._ports.first(path.listener).send(batch, path.peer, path.local)


class _Ports:
    """A worker's sockets: of each address one at least.

    Every worker numbers the addresses alike, so that a worker can answer by a socket of its own
    what another one has read.
    """

    def __init__(self, listeners: Sequence[QuicListener]) -> None:
        self.all = [UDPPort(listener.sock) for listener in listeners]
        names = [listener.sock.getsockname() for listener in listeners]
        self._names = list(dict.fromkeys(names))
        firsts = [names.index(name) for name in self._names]
        self._listeners = [listeners[index] for index in firsts]
        self._firsts = [self.all[index] for index in firsts]
        self._numbers = dict(zip(self.all, map(self._names.index, names), strict=True))

    def number(self, port: UDPPort) -> int:
        """The number of the address that *port* is bound to."""
        return self._numbers[port]

    def first(self, number: int) -> UDPPort:
        """A socket that is bound to the address of this number."""
        return self._firsts[number]

    def listener(self, number: int) -> QuicListener:
        """How connections at that address begin."""
        return self._listeners[number]

    def path(self, number: int, peer: tuple[str, int], local: str | None) -> Path:
        """Who speaks with whom."""
        host, port = self._names[number][:2]
        return Path(number, peer, local, (unmapped(peer[0]), peer[1]), (local or host, port))
