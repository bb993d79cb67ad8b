"""A server's QUIC connection: aioquic's, with the decisions that it leaves no public way to make.

All contact with aioquic's private names is in this module. It was checked with 1.2, 1.3 and 1.7.
"""

# ruff: noqa: SLF001 - this is what the module is for

from collections.abc import Callable
from typing import Any, Protocol

from aioquic.buffer import Buffer, size_uint_var  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionId, QuicConnectionState
from aioquic.quic.packet import QuicFrameType, pull_quic_transport_parameters
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketPacer
from aioquic.quic.stream import QuicStream
from aioquic.tls import Group, pull_client_hello

from pounce.http3.outlet import Path

MAX_REQUESTS = 100
"""How many request streams a client may have open (RFC 9000 section 4.6)."""

MAX_DATAGRAM = 1500
"""The largest datagram in bytes that is taken from a client, and what clients are told (RFC 9000
section 18.2): as many as fit into Ethernet. One of 64 KiB could have so many frames that it alone
would take 50 ms.
"""

TIMER_STEP = 0.001
"""Seconds: no timer is set to be due earlier than this."""

# A client needs three streams of its own (RFC 9114 section 6.2) and may try out some more.
_MAX_UNIDIRECTIONAL = 8
# Ranges of packet numbers that are acknowledged, and addresses that are remembered: enough for
# a very lossy path, and a client cannot make either grow.
_MAX_ACK_RANGES = 32
_MAX_PATHS = 8
_MAX_CHALLENGES = 4

_MAX_FRAME = 17  # a frame's type and two integers

_MAX_UDP_PAYLOAD_SIZE = 0x03  # RFC 9000 section 18.2; aioquic does not send it


class Identities(Protocol):
    """Who makes connection ids and what proves that the server has forgotten one."""

    def new_id(self) -> bytes:
        """A connection id by which datagrams reach this worker."""

    def reset_token(self, connection_id: bytes) -> bytes:
        """The stateless reset token for *connection_id* (RFC 9000 section 10.3)."""


Choose = Callable[[str | None], tuple[Any, list[Any], Any]]
"""From a server name, the certificate, its chain and its key."""


class _Finished(set[int]):
    """Which streams of the client have ended, in little memory: most end in about their order.

    As a mere set it would grow for as long as the connection lives. *on_end* is called with each
    stream's id.
    """

    def __init__(self, on_end: Callable[[int], None]) -> None:
        super().__init__()
        self._on_end = on_end
        self._all_below = [0, 1, 2, 3]  # by type, which is the id's low two bits

    def add(self, stream_id: int) -> None:
        """It has ended."""
        super().add(stream_id)
        kind = stream_id & 3
        while super().__contains__(self._all_below[kind]):
            self.discard(self._all_below[kind])
            self._all_below[kind] += 4
        self._on_end(stream_id)

    def __contains__(self, stream_id: object) -> bool:
        assert isinstance(stream_id, int)  # noqa: S101 - for the type checker
        return stream_id < self._all_below[stream_id & 3] or super().__contains__(stream_id)


class _Streams(dict[int, QuicStream]):
    """A connection's streams; *on_end* is called with the id of each that has ended both ways.

    Since 1.7 aioquic keeps no set of those that have.
    """

    def __init__(self, on_end: Callable[[int], None]) -> None:
        super().__init__()
        self._on_end = on_end

    def pop(self, stream_id: int) -> QuicStream:  # type: ignore[override] # no default is given
        """Forget a stream that has ended."""
        self._on_end(stream_id)
        return super().pop(stream_id)


class _Pacer(QuicPacketPacer):
    """Spreads what is sent over time (RFC 9002 section 7.7).

    A loop's timers are no finer than a millisecond. What a path carries in that time may
    therefore go out at once, in few system calls; else a fast path would be held up, and the loop
    be kept busy by timers that come too early.
    """

    def update_rate(self, *arguments: Any, **options: Any) -> None:
        """The window or the round-trip time has changed."""
        super().update_rate(*arguments, **options)
        self.bucket_max = max(self.bucket_max, 2 * TIMER_STEP)


class ServerConnection(QuicConnection):
    """One client's connection, without I/O.

    Its windows grow with what `consumed` tells, not with what has come, so a client cannot send
    more than is read. *choose* picks the certificate by the name that the client asks for.
    """

    def __init__(
        self,
        configuration: QuicConfiguration,
        identities: Identities,
        choose: Choose,
        *,
        original_destination_connection_id: bytes,
        retry_source_connection_id: bytes | None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._identities = identities
        self._choose = choose
        first = self._host_cids[0]
        first.cid = identities.new_id()
        first.stateless_reset_token = identities.reset_token(first.cid)
        self.host_cid = self._local_initial_source_connection_id = first.cid
        # What there is to acknowledge goes out with whatever is sent after a batch of datagrams
        # was read, instead of a millisecond later in a datagram of its own.
        self._ack_delay = 0.0
        self._loss._pacer = _Pacer(max_datagram_size=configuration.max_datagram_size)
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = MAX_REQUESTS
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = _MAX_UNIDIRECTIONAL
        self._streams_finished = _Finished(self._stream_ended)
        self._streams = _Streams(self._forget)
        self._consumed: dict[int, int] = {}
        self._has_buffers = True
        self._unsaid = 0  # bytes of the connection's window that the client was not told of
        self._ended_requests = 0

    @property
    def begun(self) -> bool:
        """Whether the client has sent a packet that could be decrypted."""
        return self._state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def handshake_complete(self) -> bool:
        """Whether the client has proved that it is at its address and has the keys."""
        return bool(self._handshake_complete)

    @property
    def closing(self) -> bool:
        """Whether either side has closed it."""
        return self._close_event is not None

    @property
    def probe_timeout(self) -> float:
        """Seconds within which an answer is expected (RFC 9002 section 6.2.1)."""
        return float(self._loss.get_probe_timeout())

    @property
    def peer(self) -> Path:
        """The client's address, as it was given with its datagrams: the last validated one.

        Anybody can send a datagram from a forged address, so a client that has moved is believed
        to be at the new address only when it has answered what was sent there (RFC 9000 sections
        8.2 and 9.3). The paths are in the order of their last use.
        """
        paths = self._network_paths
        found: Path = next((path for path in paths if path.is_validated), paths[0]).addr
        return found

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """Take a datagram."""
        if self.begun and not self._handshake_complete and addr != self._network_paths[0].addr:
            # A client must not move before the end of the handshake (RFC 9000 section 9). aioquic
            # would take the rest of a handshake from a forged address for proof of that address.
            return
        super().receive_datagram(data, addr, now)
        self._bound()

    def unsent(self, stream_id: int, written: int) -> int:
        """How much of *written* bytes has not been sent once yet."""
        stream = self._streams.get(stream_id)
        return written - stream.sender.highest_offset if stream else 0

    def undelivered(self, stream_id: int) -> int:
        """How many bytes of a complete response the client has not acknowledged yet.

        The end of the stream counts as one byte. Of a stream that either side has reset, nothing
        more is delivered.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender.is_finished:
            return 0
        sender = stream.sender
        if sender._buffer_fin is None or sender._reset_error_code is not None:
            return 0
        return sender._buffer_fin - sender._buffer_start + 1

    def can_send(self, stream_id: int) -> bool:
        """Whether more may be sent on *stream_id*: neither side has ended that."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return False
        return stream.sender._reset_error_code is None and stream.sender._buffer_fin is None

    def can_reset(self, stream_id: int) -> bool:
        """Whether a reset of *stream_id* would tell the client anything."""
        stream = self._streams.get(stream_id)
        return stream is not None and stream.sender._reset_error_code is None

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the client to send no more on *stream_id*."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            self.stop_stream(stream_id, code)

    def consumed(self, stream_id: int, size: int) -> bool:
        """*size* more bytes that came on *stream_id* need no memory any longer.

        Returns whether the client is to be told, with the next datagram.
        """
        told = False
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.receiver.is_finished:
            total = self._consumed[stream_id] = self._consumed.get(stream_id, 0) + size
            window = self._local_max_stream_data_bidi_remote
            if total + window - stream.max_stream_data_local >= window // 2:
                stream.max_stream_data_local = total + window
                told = True
        self._unsaid += size
        if self._unsaid >= self._configuration.max_data // 2:
            self._local_max_data.value += self._unsaid
            self._unsaid = 0
            told = True
        return told

    # What aioquic calls.

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        # As with TLS over TCP; see pounce.net.tls_groups.
        groups = self.tls._supported_groups
        self.tls._supported_groups = [each for each in groups if each is not Group.X448]
        handle = self.tls._server_handle_hello

        def handle_hello(input_buf: Buffer, *buffers: Buffer) -> None:
            start = input_buf.tell()
            name = pull_client_hello(input_buf).server_name
            input_buf.seek(start)
            tls = self.tls
            tls.certificate, tls.certificate_chain, tls.certificate_private_key = self._choose(name)
            handle(input_buf, *buffers)

        self.tls._server_handle_hello = handle_hello  # type: ignore[assignment, method-assign]

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        # RFC 9000 section 18.2: some clients take nothing larger, as OpenSSL's, which takes 1200.
        most = pull_quic_transport_parameters(Buffer(data=data)).max_udp_payload_size
        self._max_datagram_size = min(self._max_datagram_size, most or self._max_datagram_size)

    def _serialize_transport_parameters(self) -> bytes:
        limit = Buffer(capacity=_MAX_FRAME)
        limit.push_uint_var(_MAX_UDP_PAYLOAD_SIZE)
        limit.push_uint_var(size_uint_var(MAX_DATAGRAM))
        limit.push_uint_var(MAX_DATAGRAM)
        return super()._serialize_transport_parameters() + limit.data

    def _replenish_connection_ids(self) -> None:
        while len(self._host_cids) < min(4, self._remote_active_connection_id_limit):
            cid = self._identities.new_id()
            self._host_cids.append(
                QuicConnectionId(
                    cid=cid,
                    sequence_number=self._host_cid_seq,
                    stateless_reset_token=self._identities.reset_token(cid),
                )
            )
            self._host_cid_seq += 1

    def _handle_stop_sending_frame(self, context: Any, frame_type: int, buf: Buffer) -> None:
        # 1.2 takes the second one, which may be a mere retransmission, for its own mistake.
        start = buf.tell()
        stream = self._streams.get(buf.pull_uint_var())
        if stream is not None and stream.sender._reset_error_code is not None:
            buf.pull_uint_var()
            return
        buf.seek(start)
        super()._handle_stop_sending_frame(context, frame_type, buf)

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: Any) -> None:
        for limit in (
            self._local_max_data,
            self._local_max_streams_bidi,
            self._local_max_streams_uni,
        ):
            if limit.value != limit.sent:
                buf = builder.start_frame(
                    limit.frame_type,
                    capacity=_MAX_FRAME,
                    handler=self._on_connection_limit_delivery,
                    handler_args=(limit,),
                )
                buf.push_uint_var(limit.value)
                limit.sent = limit.value

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: Any, stream: QuicStream
    ) -> None:
        if stream.max_stream_data_local_sent != stream.max_stream_data_local:
            buf = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=_MAX_FRAME,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            buf.push_uint_var(stream.stream_id or 0)
            buf.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local

    # Bounds.

    def _forget(self, stream_id: int) -> None:
        self._consumed.pop(stream_id, None)

    def _stream_ended(self, stream_id: int) -> None:
        """Let the client open another; told only now and then, for each telling is a frame.

        1.7 does so itself, and does not call this.
        """
        if stream_id & 3 == 0:
            self._ended_requests += 1
            if self._ended_requests >= MAX_REQUESTS // 2:
                self._local_max_streams_bidi.value += self._ended_requests
                self._ended_requests = 0
        elif stream_id & 3 == 2:
            self._local_max_streams_uni.value += 1

    def _drop_handshake(self) -> None:
        """Give back the 48 KiB that a handshake's messages are made in; no more will come."""
        self._crypto_buffers = {epoch: Buffer(capacity=0) for epoch in self._crypto_buffers}
        self._has_buffers = False

    def _bound(self) -> None:
        if self._has_buffers and self._handshake_complete:
            self._drop_handshake()
        for space in self._spaces.values():
            while len(space.ack_queue) > _MAX_ACK_RANGES:
                space.ack_queue.shift()
        self._bound_paths()

    def _bound_paths(self) -> None:
        """Drop those first that nobody has answered on; 1.2 itself drops none."""
        paths = self._network_paths
        while len(paths) > _MAX_PATHS:
            forgeable = [path for path in paths[1:] if not path.is_validated]
            paths.remove((forgeable or paths)[-1])
        for path in paths:
            while len(path.remote_challenges) > _MAX_CHALLENGES:
                path.remote_challenges.popleft()
