"""What threads share, under as many interleavings as a second or two can hold.

On a free-threaded interpreter the threads run at the same time. On others they change places as
often as the interpreter can be made to.
"""

import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import httpx
import pytest

import pounce
from pounce.events.lifecycle import LifecycleEvent
from pounce.ipc.channel import Channel, Failed, Message
from pounce.ipc.flight import FlightRecord
from pounce.ipc.handover import Handover, Passage
from pounce.ipc.scoreboard import Scoreboard
from pounce.supervisor import Supervisor
from tests.live import hello
from tests.service import wait_until
from tests.supervised import supervised

SECONDS = 1.0
PATIENCE = 30.0
# Both halves of such a number are the same, so one put together of two is seen.
TWICE = (1 << 32) + 1
# Times TWICE it is less than the largest count that is believed.
MOST = 2**20


@pytest.fixture(autouse=True)
def restless() -> Iterator[None]:
    """Have threads take turns after 10 microseconds instead of 5 milliseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Crowd:
    """Threads that begin together; what goes wrong in one goes wrong in the test."""

    def __init__(self) -> None:
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self.over = threading.Event()

    def add(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._errors.append(error)
                self.over.set()

        self._threads.append(threading.Thread(target=run, daemon=True))

    def run(self, enough: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Have them work for *seconds*, and on until it was *enough*."""
        for thread in self._threads:
            thread.start()
        if not self.over.wait(seconds):
            wait_until(lambda: self.over.is_set() or enough(), "enough work", PATIENCE)
        self.over.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        if self._errors:
            raise self._errors[0]


def test_rows_are_read_whole_and_in_order() -> None:
    board = Scoreboard(4)
    crowd = Crowd()
    rows = [board.acquire() for _ in range(4)]
    written = [0] * len(rows)

    def write(index: int) -> None:
        number = 0
        while not crowd.over.is_set():
            number = min(number + 1, MOST)
            rows[index].beat(connections=number, busy=number, requests=number * TWICE)
        written[index] = number

    def read() -> None:
        seen = [0] * len(rows)
        while not crowd.over.is_set():
            for index, row in enumerate(rows):
                number, rest = divmod(row.requests, TWICE)
                assert (rest, number >= seen[index]) == (0, True)
                seen[index] = number

    for index in range(len(rows)):
        crowd.add(partial(write, index))
    crowd.add(read)
    crowd.add(read)
    crowd.run(lambda: min(row.requests for row in rows) > 100 * TWICE)
    assert [row.requests for row in rows] == [number * TWICE for number in written]
    board.close()


class Exchange:
    """A handover, and the test's own books of what went into it and came out."""

    def __init__(self, connection: socket.socket) -> None:
        self.handover = Handover()
        self.given: Counter[bytes] = Counter()
        self.taken: Counter[bytes] = Counter()
        self._connection = connection
        self._books = threading.Lock()

    def give(self, what: bytes) -> bool:
        passage = Passage("http", None, None, len(what), what)
        if not self.handover.give(self._connection.fileno(), passage):
            return False
        with self._books:
            self.given[what] += 1
        return True

    def take(self) -> bool:
        one = self.handover.take()
        if one is None:
            return False
        connection, passage = one
        connection.close()
        assert passage.requests == len(passage.received)
        with self._books:
            self.taken[passage.received] += 1
        return True


def test_what_is_given_is_taken_once() -> None:
    crowd = Crowd()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        exchange = Exchange(ours)

        def give(name: bytes) -> None:
            number = 0
            while not crowd.over.is_set():
                number += exchange.give(b"%b %d " % (name, number) * 50)

        def take() -> None:
            while not crowd.over.is_set():
                exchange.take()

        for name in (b"a", b"b", b"c"):
            crowd.add(partial(give, name))
            crowd.add(take)
        crowd.run(lambda: len(exchange.given) > 100)
        while exchange.take():
            pass
    exchange.handover.close()
    assert exchange.taken == exchange.given
    assert set(exchange.given.values()) == {1}


def test_a_channel_keeps_messages_whole_and_in_order() -> None:
    ours, theirs = Channel.pair()
    crowd = Crowd()
    sent: list[Message] = []
    received: list[Message] = []

    def send() -> None:
        while not crowd.over.is_set():
            # No more on their way than fit into the kernel's queue, as it is between
            # supervisor and worker: there a message that does not fit is a worker that is lost.
            if len(sent) - len(received) < 20:
                message = Failed(f"{len(sent)} " * 100, len(sent))
                sent.append(message)
                theirs.send(message)

    def receive() -> None:
        while not crowd.over.is_set():
            received.extend(ours.receive())

    crowd.add(send)
    crowd.add(receive)
    crowd.run(lambda: len(sent) > 100)
    received.extend(ours.receive())
    assert received == sent
    ours.close()
    theirs.close()


def test_a_flight_record_is_read_while_it_is_written() -> None:
    record = FlightRecord()
    crowd = Crowd()
    seen: set[str] = set()

    def write() -> None:
        while not crowd.over.is_set():
            for target in (b"/" + b"a" * 300, b"/b"):
                record.begin(target)
                record.sweep([f"GET {target.decode()}"] * 10)

    def read() -> None:
        while not crowd.over.is_set():
            told = record.read()
            assert set(told) <= set("Request begun last: flight shortly before:/abGET\n")
            seen.update(target for target in ("/a", "/b") if target in told)

    crowd.add(write)
    crowd.add(read)
    crowd.run(lambda: seen == {"/a", "/b"})


class Witness:
    """A collector that knows who tells it."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def collect(self, _event: LifecycleEvent) -> None:
        self.threads.add(threading.get_ident())


def test_collectors_hear_from_the_supervisors_thread_alone() -> None:
    witness = Witness()
    config = pounce.ServerConfig(workers=3, worker_mode="thread", lifespan="off")
    supervisor = Supervisor(config, hello, lifecycle_collector=witness)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        supervised(supervisor, listener) as thread,
    ):
        for _ in range(3):
            supervisor.graceful_reload()
    assert witness.threads == {thread.ident}


def test_requests_and_reloads_and_callers_at_once() -> None:
    crowd = Crowd()
    answered = [0] * 4
    with pounce.serving(hello, workers=3, lifespan="off") as site:

        def ask(index: int) -> None:
            with httpx.Client() as client:
                while not crowd.over.is_set():
                    assert client.get(site.url).text == "hello"
                    answered[index] += 1

        def reload() -> None:
            while not crowd.over.is_set():
                site.reload()
                time.sleep(0)

        for index in range(len(answered)):
            crowd.add(partial(ask, index))
        crowd.add(reload)
        crowd.add(reload)
        crowd.run(lambda: min(answered) > 10, 2 * SECONDS)
