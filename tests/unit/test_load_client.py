"""The load client itself: whatever a bad server does is counted, and in the right column."""

import contextlib
import json
import math
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from pounce.net.address import Address
from tests.apps.load import chunk, signature
from tests.load import Background, Echo, Plan, Result, Stream, Upload, run
from tests.load.response import BadResponse, Response, ResponseReader
from tests.load.result import Drop, ServedBy, Tally

SERVED_BY = b"1 0 42 a"


class Peer:
    """A server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def nonce(self) -> bytes:
        """Read the head of a request; what it wants echoed."""
        while b"\r\n\r\n" not in self._buffer:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("the client has left")
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        match = re.search(rb"X-Nonce: (\S+)", head)
        assert match is not None
        return match[1]

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reset(self) -> None:
        """Close with RST instead of FIN: SO_LINGER with a time of 0 (socket(7))."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the client to leave, or for *timeout* seconds."""
        self.sock.settimeout(timeout)
        with contextlib.suppress(TimeoutError):
            while self.sock.recv(65536):
                pass


Serve = Callable[[Peer], None]


class Server:
    """Lets *serve* talk to each connection of *sock*, in a thread each; closes it afterwards."""

    def __init__(self, serve: Serve, sock: socket.socket) -> None:
        self._serve = serve
        self._listener = sock
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        # Unlike close(2), shutdown(2) ends an accept(2) or recv(2) that waits in another thread.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for sock in self._connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._converse, args=[sock])
            self._connections.append(sock)
            self._threads.append(thread)
            thread.start()

    def _converse(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionError):
            self._serve(Peer(sock))


def reply(nonce: bytes, *fields: bytes, status: bytes = b"200 OK", content: bytes = b"") -> bytes:
    body = content + signature(nonce, SERVED_BY)
    head = [
        b"HTTP/1.1 " + status,
        b"X-Nonce: " + nonce,
        b"X-Served-By: " + SERVED_BY,
        b"Content-Length: %d" % len(body),
        *fields,
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


@contextmanager
def listener(family: int = socket.AF_INET, path: Path | None = None) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind(str(path) if path else ("127.0.0.1", 0))
        sock.listen(512)
        yield sock


def address_of(sock: socket.socket) -> Address:
    name = sock.getsockname()
    return Address.parse(f"unix:{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}")


def against(serve: Serve, *, sock: socket.socket | None = None, **changes: Any) -> Result:
    """What one client sees of *serve* in one request, or as the plan's *changes* want it."""
    if sock is None:
        with listener() as sock:
            return against(serve, sock=sock, **changes)
    changed: dict[str, Any] = {"connections": 1, "requests": 1, **changes}
    plan = replace(Plan(address=address_of(sock)), **changed)

    with Server(serve, sock):
        return run(plan)


def noticed(result: Result) -> dict[str, int]:
    """The columns that are not zero, of those that should be."""
    columns = (
        *("wrong", "refused", "reset", "unanswered", "half_answered", "timed_out"),
        *("closed_idle", "polite_closes", "reconnects"),
    )
    return {name: getattr(result, name) for name in columns if getattr(result, name)}


# Servers that misbehave


def good(peer: Peer) -> None:
    while True:
        peer.send(reply(peer.nonce()))


def resets_before_the_response(peer: Peer) -> None:
    peer.nonce()
    peer.reset()


def closes_before_the_response(peer: Peer) -> None:
    peer.nonce()


def resets_within_the_response(peer: Peer) -> None:
    peer.send(reply(peer.nonce())[:-5])
    peer.reset()


def closes_within_the_head(peer: Peer) -> None:
    peer.send(reply(peer.nonce())[:30])


def sends_a_short_body(peer: Peer) -> None:
    peer.send(reply(peer.nonce())[:-1])


def sends_a_long_body(peer: Peer) -> None:
    peer.send(reply(peer.nonce()) + b"!")
    peer.wait()


def sends_a_body_without_an_end(peer: Peer) -> None:
    nonce = peer.nonce()
    peer.send(b"HTTP/1.1 200 OK\r\nX-Nonce: %b\r\n\r\n" % nonce)


def speaks_another_protocol(peer: Peer) -> None:
    peer.nonce()
    peer.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    peer.wait()


def ends_a_stream_early(peer: Peer) -> None:
    nonce = peer.nonce()
    head = b"HTTP/1.1 200 OK\r\nX-Nonce: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % nonce
    peer.send(head + b"5\r\nhello\r\n")


def never_answers(peer: Peer) -> None:
    peer.wait()


def never_ends_its_answer(peer: Peer) -> None:
    peer.send(reply(peer.nonce())[:-1])
    peer.wait()


def answers_before_the_request_ends(peer: Peer) -> None:
    peer.send(reply(peer.nonce()))
    peer.wait()


def is_overloaded(peer: Peer) -> None:
    while True:
        peer.send(reply(peer.nonce(), status=b"503 Service Unavailable"))


def answers_somebody_else(peer: Peer) -> None:
    while True:
        peer.send(reply(peer.nonce() + b"9"))


def mixes_two_workers(peer: Peer) -> None:
    while True:
        whole = reply(peer.nonce())
        head, body = whole.split(b"\r\n\r\n")
        peer.send(head + b"\r\n\r\n" + body.replace(SERVED_BY, b"2 0 42 a"))


def adds_content(peer: Peer) -> None:
    while True:
        peer.send(reply(peer.nonce(), content=b"surplus"))


ONE_REQUEST: list[tuple[Serve, dict[str, int]]] = [
    (good, {}),
    (resets_before_the_response, {"reset": 1}),
    (closes_before_the_response, {"unanswered": 1}),
    (resets_within_the_response, {"half_answered": 1}),
    (closes_within_the_head, {"half_answered": 1}),
    (sends_a_short_body, {"half_answered": 1}),
    (sends_a_long_body, {"half_answered": 1}),
    (sends_a_body_without_an_end, {"half_answered": 1}),
    (speaks_another_protocol, {"half_answered": 1}),
    (ends_a_stream_early, {"half_answered": 1}),
    (is_overloaded, {"wrong": 1}),
    (answers_somebody_else, {"wrong": 1}),
    (mixes_two_workers, {"wrong": 1}),
    (adds_content, {"wrong": 1}),
]


@pytest.mark.parametrize(("serve", "expected"), ONE_REQUEST)
def test_one_request(serve: Serve, expected: dict[str, int]) -> None:
    result = against(serve)
    columns = noticed(result)
    columns.pop("reconnects", None)  # it may, before it learns that there is no more to send
    assert columns == expected, result.table()
    assert result.answered == (not expected)
    assert result.dropped == (not result.answered and not result.wrong)
    assert bool(result.problems) == bool(expected)


def test_a_response_to_another_request_is_told_apart() -> None:
    assert "the response to b'" in against(answers_somebody_else).problems[0]


@pytest.mark.parametrize("serve", [never_answers, never_ends_its_answer])
def test_a_request_times_out(serve: Serve) -> None:
    result = against(serve, timeout=0.1)
    assert (result.timed_out, result.dropped, result.answered) == (1, 1, 0)


def test_an_answer_before_the_end_of_the_upload_is_half_an_answer() -> None:
    result = against(answers_before_the_request_ends, work=Upload(pieces=50, ms=20))
    assert (result.half_answered, result.dropped, result.answered) == (1, 1, 0)


def test_a_refused_connection_is_a_drop_and_is_tried_again() -> None:
    with listener() as sock:
        address = address_of(sock)
    result = run(Plan(address=address, connections=2, duration=0.3))
    assert result.refused > 2
    assert result.dropped == result.refused
    assert (result.answered, result.connections) == (0, 0)


def test_a_unix_socket_that_does_not_exist_refuses(tmp_path: Path) -> None:
    address = Address.parse(f"unix:{tmp_path}/none.sock")
    result = run(Plan(address=address, connections=1, duration=0.1))
    assert result.refused == result.dropped > 0


def test_a_full_unix_queue_is_waited_for_until_the_timeout(tmp_path: Path) -> None:
    with listener(socket.AF_UNIX, tmp_path / "s") as sock, socket.socket(socket.AF_UNIX) as first:
        sock.listen(0)
        first.connect(str(tmp_path / "s"))
        plan = Plan(address=address_of(sock), connections=1, duration=0.1, connect_timeout=0.2)
        result = run(plan)
    assert (result.timed_out, result.refused) == (1, 0)


def test_a_dropped_connection_is_replaced() -> None:
    result = against(closes_before_the_response, requests=5)
    assert (result.unanswered, result.answered) == (5, 0)
    assert result.connections >= 5


# Idle connections


def closes_after_each(peer: Peer) -> None:
    peer.send(reply(peer.nonce()))


def resets_after_each(peer: Peer) -> None:
    peer.send(reply(peer.nonce()))
    # The reset would overtake the response in the client's queue.
    peer.wait(0.05)
    peer.reset()


def says_that_it_closes(peer: Peer) -> None:
    peer.send(reply(peer.nonce(), b"Connection: close"))


def closes_at_once(peer: Peer) -> None:
    pass


def talks_unasked(peer: Peer) -> None:
    peer.send(reply(peer.nonce()))
    peer.wait(0.05)
    peer.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
    peer.wait()


@pytest.mark.parametrize("serve", [closes_after_each, resets_after_each, talks_unasked])
def test_closing_an_idle_connection_is_counted_and_is_no_drop(serve: Serve) -> None:
    result = against(serve, requests=3, think=0.2)
    # After the third answer all is over, and it is the client that closes.
    assert noticed(result) == {"closed_idle": 2, "reconnects": 2} or noticed(result) == {
        "closed_idle": 3,
        "reconnects": 3,
    }, result.table()
    assert (result.answered, result.dropped) == (3, 0)


def test_closing_a_connection_before_its_first_request_is_counted() -> None:
    result = against(closes_at_once, requests=0, duration=0.5, think=1000.0)
    assert result.closed_idle > 1
    assert (result.dropped, result.answered) == (0, 0)


def test_an_announced_close_is_polite() -> None:
    result = against(says_that_it_closes, requests=3)
    assert result.polite_closes == result.answered == 3
    assert (result.closed_idle, result.dropped) == (0, 0)


def test_connections_that_sit_answer_at_both_ends() -> None:
    def sit(address: Address) -> Result:
        plan = Plan(address=address, connections=200, duration=60.0, think=math.inf, timeout=30.0)
        with Background(plan) as load:
            load.wait_until(lambda result: result.answered == 200, timeout=30.0)
        return load.result()

    with listener() as sock, Server(good, sock):
        result = sit(address_of(sock))
    result.assert_nothing_lost()
    assert result.answered == 400
    assert result.connections == 200


# What is asked for, and verified


def echoes(peer: Peer) -> None:
    """What tests/apps/load.py would answer to the default Stream, in small parts."""
    nonce = peer.nonce()
    chunks = [chunk(nonce, number, 100) for number in range(10)] + [signature(nonce, SERVED_BY)]
    head = b"X-Nonce: %b\r\nX-Served-By: %b\r\n" % (nonce, SERVED_BY)
    # Each part at once, not when the one before is acknowledged (tcp(7)).
    peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    data += head + b"\r\n" + b"".join(b"%X\r\n%b\r\n" % (len(each), each) for each in chunks)
    data += b"0\r\n\r\n"
    for at in range(0, len(data), 37):
        peer.send(data[at : at + 37])
    peer.wait()


def test_a_stream_is_read_to_its_end() -> None:
    result = against(echoes, work=Stream(), timeout=5.0)
    result.assert_nothing_lost()


def swaps_two_chunks(peer: Peer) -> None:
    nonce = peer.nonce()
    content = b"".join(chunk(nonce, number, 100) for number in (1, 0))
    peer.send(reply(nonce, content=content))
    peer.wait()


def test_a_stream_with_chunks_in_another_order_is_wrong() -> None:
    assert against(swaps_two_chunks, work=Stream(chunks=2)).wrong == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_sends_all_its_pieces(chunked: bool) -> None:
    request = Upload(pieces=3, size=10, chunked=chunked).request(b"n")
    sent = request.data.split(b"\r\n\r\n", 1)[1] + b"".join(request.pieces)
    content = b"n:0 n:0 n:n:1 n:1 n:n:2 n:2 n:"
    assert sent == (
        b"A\r\nn:0 n:0 n:\r\nA\r\nn:1 n:1 n:\r\nA\r\nn:2 n:2 n:\r\n0\r\n\r\n".replace(b"A", b"a")
        if chunked
        else content
    )
    assert request.content.startswith(b"30 ")


def test_the_bounds_hold_over_all_clients() -> None:
    result = against(good, connections=20, requests=500)
    assert result.answered == 500
    assert noticed(result) == {}
    assert result.seconds < 25
    began = against(good, connections=2, requests=0, duration=0.3)
    assert 0.29 <= began.seconds < 25


def test_unix_sockets_and_local_addresses(tmp_path: Path) -> None:
    with listener(socket.AF_UNIX, tmp_path / "s") as sock:
        against(good, sock=sock, requests=50).assert_nothing_lost()
    peers = set()

    def looks(peer: Peer) -> None:
        peers.add(peer.sock.getpeername()[0])
        good(peer)

    against(looks, bind="127.0.0.9", requests=50).assert_nothing_lost()
    assert peers == {"127.0.0.9"}


def test_in_the_background_it_can_be_watched_and_ended() -> None:
    def watch(address: Address) -> Result:
        with Background(Plan(address=address, duration=30)) as load:
            assert load.wait_for_more(50).answered >= 50
            with pytest.raises(TimeoutError, match="answered"):
                load.wait_until(lambda result: result.dropped > 0, timeout=0.05)
        return load.result()

    with listener() as sock, Server(good, sock):
        result = watch(address_of(sock))
    result.assert_nothing_lost()
    assert result.seconds < 25


class Broken(Echo):
    def request(self, nonce: bytes) -> object:  # type: ignore[override]
        raise ZeroDivisionError(nonce)


def test_a_mistake_of_the_client_is_not_taken_for_the_servers() -> None:
    with pytest.raises(ZeroDivisionError):
        against(good, work=Broken())
    with pytest.raises(TypeError):
        against(good, connect_timeout="soon")


# The result


def test_nothing_lost_is_an_assertion_about_every_column() -> None:
    def tally() -> Tally:
        fresh = Tally(clients=1)
        fresh.connections = 1
        fresh.answer(0.001, SERVED_BY)
        return fresh

    tally().result().assert_nothing_lost()
    for column in ("wrong", "closed_idle", "polite_closes", "connections"):
        bad = tally()
        setattr(bad, column, getattr(bad, column) + 1)
        with pytest.raises(AssertionError, match="clients noticed"):
            bad.result().assert_nothing_lost()
    for drop in Drop:
        bad = tally()
        bad.drop(drop, "a reason")
        with pytest.raises(AssertionError, match="a reason"):
            bad.result().assert_nothing_lost()
    with pytest.raises(AssertionError, match="nobody was served"):
        Tally(clients=0).result().assert_nothing_lost()


def test_the_figures() -> None:
    tally = Tally(clients=1)
    for latency in range(1, 101):
        tally.answer(latency / 1000, SERVED_BY)
    tally.drop(Drop.HALF, "cut")
    result = tally.result()
    assert result.p50_ms == pytest.approx(50, rel=0.02)
    assert result.p99_ms == pytest.approx(99, rel=0.02)
    assert result.max_ms == 100
    assert result.served_by == (ServedBy("1", "0", "42", "a", 100),)
    assert (result.generations, result.workers, result.pids) == ({"1"}, {"0"}, {42})
    assert json.loads(result.to_json())["half_answered"] == 1
    assert "  half answered          1\n" in result.table()
    assert result.table().endswith("half answered: cut")


# The reader

REFUSED = [
    b"HTTP/1.1 200\r\n\r\n",
    b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello world\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: trailer\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n",
    b"x" * 70_000,
]


@pytest.mark.parametrize("data", REFUSED)
def test_the_reader_refuses(data: bytes) -> None:
    with pytest.raises(BadResponse):
        ResponseReader().feed(data)


@pytest.mark.parametrize(
    ("version", "connection", "closes"),
    [
        (b"1.1", b"", False),
        (b"1.1", b"Connection: close\r\n", True),
        (b"1.1", b"connection:CLOSE\r\n", True),
        (b"1.0", b"", True),
        (b"1.0", b"Connection: keep-alive\r\n", False),
    ],
)
def test_the_reader_knows_an_announced_close(
    version: bytes, connection: bytes, closes: bool
) -> None:
    data = b"HTTP/%b 200 OK\r\n%bContent-Length: 2\r\n\r\nhi" % (version, connection)
    response = ResponseReader().feed(data)
    assert response is not None
    assert (response.body, response.closes) == (b"hi", closes)


def test_the_reader_does_not_care_how_bytes_arrive() -> None:
    data = b"HTTP/1.1 299 Fine\r\nTransfer-Encoding: chunked\r\n\r\n"
    data += b"2\r\nab\r\na\r\n0123456789\r\n0\r\n\r\n"
    for step in range(1, len(data)):
        reader = ResponseReader()
        for _ in range(2):
            assert not reader.started
            parts = [data[at : at + step] for at in range(0, len(data), step)]
            answers = [reader.feed(part) for part in parts]
            assert answers[:-1] == [None] * (len(parts) - 1)
            assert answers[-1] == Response(
                299, {b"transfer-encoding": b"chunked"}, b"ab0123456789", closes=False
            )
