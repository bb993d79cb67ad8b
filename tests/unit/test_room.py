"""Who is closed for a new connection, and what the log says of it."""

from math import inf

import pytest

from pounce.http.room import ASKED, BEGUN, SILENT, Room

NOW = 1000.0


class Client:
    """A connection that notes how it was closed."""

    def __init__(self, progress: int = SILENT, spare_since: float = inf) -> None:
        self.progress = progress
        self.spare_since = spare_since
        self.end = ""

    def expire(self) -> None:
        self.end = "politely"

    def abort(self) -> None:
        self.end = "at once"


class Worker:
    """A worker that is full with the clients that have come; *now* is its time."""

    def __init__(self, most: int = 1) -> None:
        self.now = NOW
        self.clients: list[Client] = []
        self.room = Room(self.clients, most, lambda: self.now)

    def come(self, client: Client, host: str = "192.0.2.1") -> Client:
        self.clients.append(client)
        self.room.enter(client, (host, 4711) if host else None)
        return client

    def idle(self, since: float) -> Client:
        self.clients.append(Client(ASKED, since))
        return self.clients[-1]


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_the_oldest_goes_first(worker: Worker) -> None:
    old, young = worker.come(Client()), worker.come(Client())
    worker.now += 2
    assert worker.room.make()
    assert (old.end, young.end) == ("politely", "")


def test_newcomers_go_before_idle_ones_once_they_had_their_first_moments(worker: Worker) -> None:
    newcomer, idle = worker.come(Client()), worker.idle(NOW - 60)
    worker.now += 2
    assert worker.room.make()
    assert (newcomer.end, idle.end) == ("politely", "")


def test_who_has_just_come_stays_while_others_are_idle(worker: Worker) -> None:
    newcomer, idle = worker.come(Client()), worker.idle(NOW - 60)
    assert worker.room.make()
    assert (newcomer.end, idle.end) == ("", "politely")
    idle.spare_since = inf
    assert not worker.room.free(1)
    assert worker.room.make()
    assert newcomer.end == "politely"


def test_a_flood_has_no_first_moments(worker: Worker) -> None:
    honest, idle = worker.come(Client(), "192.0.2.9"), worker.idle(NOW - 60)
    flood = [worker.come(Client()) for _ in range(40)]
    assert worker.room.free(20)
    assert [each.end != "" for each in flood] == [True] * 20 + [False] * 20
    assert honest.end == idle.end == ""


@pytest.mark.parametrize(
    ("hosts", "is_one"),
    [
        (("2001:db8::1", "2001:db8::ffff:2"), True),
        (("2001:db8:0:1::1", "2001:db8:0:2::1"), False),
        (("fe80::1%eth0", "fe80::2%eth0"), True),
        (("192.0.2.1", "192.0.2.2"), False),
        (("", ""), True),
    ],
)
def test_the_network_that_has_the_most_loses_one(
    worker: Worker, hosts: tuple[str, str], *, is_one: bool
) -> None:
    first = worker.come(Client(), "198.51.100.1")
    others = [worker.come(Client(), host) for host in hosts]
    worker.now += 2
    assert worker.room.make()
    assert (others[0].end if is_one else first.end) == "politely"


def test_who_has_sent_something_goes_after_who_has_not(worker: Worker) -> None:
    begun = worker.come(Client(BEGUN), "192.0.2.1")
    silent = worker.come(Client(), "192.0.2.2")
    worker.now += 2
    assert worker.room.make()
    assert (begun.end, silent.end) == ("", "politely")
    assert worker.room.make()
    assert begun.end == "at once"


def test_who_has_asked_is_no_newcomer(worker: Worker) -> None:
    clients = [worker.come(Client()) for _ in range(100)]
    for each in clients:
        each.progress = ASKED
    worker.now += 2
    assert not worker.room.make()
    assert all(each.end == "" for each in clients)


def test_who_has_left_is_forgotten(worker: Worker) -> None:
    client = worker.come(Client())
    worker.room.leave(client)
    assert not worker.room.make()
    assert client.end == ""


def test_only_some_of_the_idle_ones_are_closed() -> None:
    worker = Worker(80)
    idle = [worker.idle(NOW - each) for each in range(80)]
    assert worker.room.make()
    assert [each.end != "" for each in reversed(idle)] == [True] * 11 + [False] * 69


def test_one_that_is_refused_is_no_newcomer() -> None:
    worker = Worker(1)
    worker.come(Client(ASKED))
    late = Client()
    worker.clients.append(late)
    assert not worker.room.admit(late, None)
    worker.clients.pop()
    assert not worker.room.make()
    assert late.end == ""


def test_the_log_says_what_happened_once_a_minute(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    room = worker.room
    for _ in range(3):
        room.note("refused with 503")
    room.note("refused without an answer")
    room.sweep()
    assert caplog.messages[-1].endswith(": 3 refused with 503, 1 refused without an answer")
    room.note("refused with 503")
    worker.now = NOW + 59
    room.sweep()
    assert len(caplog.messages) == 1
    worker.now = NOW + 60
    room.sweep()
    assert caplog.messages[-1].endswith(": 1 refused with 503")
    worker.now = NOW + 200
    room.sweep()
    assert len(caplog.messages) == 2
