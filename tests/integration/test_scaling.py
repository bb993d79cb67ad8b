"""More, fewer and fresh workers while clients are served, and an end to what drains too long."""

import math
import re
import signal
from collections import Counter
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from pounce.errors import PounceError
from tests.control import Controlled, controlled
from tests.load import Echo, Slow, Stream
from tests.modes import both_modes
from tests.service import Service, Wire, serving, wait_until

# Recycling


@both_modes
def test_workers_are_replaced_after_their_requests_and_nobody_notices(
    tmp_path: Path, mode: str
) -> None:
    flags = ("--worker-mode", mode, "--workers", "2", "--max-requests", "400")
    with serving(tmp_path, *flags, "--log-level", "debug") as service, ExitStack() as stack:
        busy = stack.enter_context(service.load(connections=16, think=0.005))
        mixed = stack.enter_context(service.load(connections=8, work=Stream(chunks=5, ms=20)))
        sitting = stack.enter_context(service.load(connections=50, think=math.inf))
        sitting.wait_until(lambda result: result.answered == 50)
        wait_until(lambda: len(ready(service)) >= 6, "four replacements", 20)
    for load in (busy, mixed, sitting):
        load.result().assert_nothing_lost()
    assert busy.result().workers == {"0", "1"}
    assert busy.result().generations == {"1"}
    assert one_at_a_time(service.log)


def ready(service: Service) -> list[str]:
    return [line for line in service.log.splitlines() if "is ready" in line]


def one_at_a_time(log: str) -> bool:
    """Whether no replacement was started while another one was on its way."""
    _, _, replacements = log.partition("generation 1 serves")
    story = re.findall(r"worker \d \(\d+\) (started|is ready)", replacements)
    return story == ["started", "is ready"] * (len(story) // 2) + ["started"] * (len(story) % 2)


HOARDER = """
from tests.apps.load import app as load

hoard = []

async def app(scope, receive, send):
    if scope["type"] == "http":
        hoard.append(bytearray(b"x" * 200_000))
    await load(scope, receive, send)
"""


def test_a_process_that_grows_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (tmp_path / "hoarder.py").write_text(HOARDER)
    flags = ("--worker-mode", "process", "--max-memory", str(120 * 2**20))
    with serving(tmp_path, *flags, app="hoarder:app", apps=tmp_path) as service:
        with service.load(connections=8, think=0.01) as load:
            load.wait_until(lambda result: len(result.pids) >= 2)
        load.result().assert_nothing_lost()


# The number of workers


@both_modes
def test_signals_change_the_number_of_workers(tmp_path: Path, mode: str) -> None:
    with controlled(tmp_path, mode) as it, it.service.load(connections=16) as load:
        load.wait_for_more(100)
        for number, size in [
            *((signal.SIGTTIN, size) for size in (2, 3)),
            *((signal.SIGTTOU, size) for size in (2, 1, 1)),
        ]:
            it.service.send_signal(number)
            wait_until(partial(serves, it, size), f"{size} workers")
        load.wait_for_more(100)
    load.result().assert_nothing_lost()


@both_modes
def test_scaling_up_and_down_under_load(tmp_path: Path, mode: str) -> None:
    with controlled(tmp_path, mode, "--workers", "2") as it, ExitStack() as stack:
        service = it.service
        loads = [
            stack.enter_context(service.load(**plan))
            for plan in (
                {"work": Echo(), "connections": 16},
                {"work": Slow(100), "connections": 16},
                {"work": Echo(), "connections": 100, "think": math.inf},
            )
        ]
        loads[2].wait_until(lambda result: result.answered == 100)
        for size in (4, 1, 2):
            assert it.pounce("scale", str(size)) == f"workers: {size}\n"
            wait_until(partial(serves, it, size), f"{size} workers")
            for load in loads[:2]:
                load.wait_for_more(50)
        with service.connect() as late:
            assert late.slot() in {"0", "1"}
    for load in loads:
        load.result().assert_nothing_lost()


def serves(it: Controlled, size: int) -> bool:
    return [(each["slot"], each["state"]) for each in it.workers()] == [
        (slot, "ready") for slot in range(size)
    ]


def test_a_reload_returns_to_the_configured_number(tmp_path: Path) -> None:
    with controlled(tmp_path, "thread") as it:
        it.pounce("scale", "3")
        with pytest.raises(PounceError, match="1025 workers are too many; 1024 are the most"):
            it.pounce("scale", "1025")
        wait_until(lambda: serves(it, 3), "3 workers")
        it.reload(2)
        wait_until(lambda: serves(it, 1), "1 worker")


# Accepting


@both_modes
def test_workers_hold_about_as_many_connections_each(tmp_path: Path, mode: str) -> None:
    with (
        serving(tmp_path, "--worker-mode", mode, "--workers", "4") as service,
        ExitStack() as stack,
    ):
        held: Counter[str] = Counter()

        def all_hold_as_many() -> bool:
            """Whether they do when 64 more clients have come, all at once."""
            wires = [stack.enter_context(service.connect()) for _ in range(64)]
            held.update(wire.slot() for wire in wires)
            return len(held) == 4 and max(held.values()) <= 1.5 * min(held.values())

        # A worker that the kernel lets wait takes none, and has to catch up.
        wait_until(all_hold_as_many, "as many connections each")


# What drains


def busy_with(service: Service, stack: ExitStack, target: str) -> Wire:
    """A connection whose request for *target* is in flight."""
    wire = stack.enter_context(service.connect())
    wire.send(target)
    received = b""
    while b"\r\n\r\n" not in received:
        received += wire.sock.recv(65536)
    return wire


def is_over(wire: Wire) -> bool:
    """Read what there is; whether the server has ended the response, or the connection."""
    wire.sock.settimeout(0.01)
    try:
        while data := wire.sock.recv(65536):
            if b"0\r\n\r\n" in data:
                return True
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True


@both_modes
def test_too_many_draining_generations_are_cut_the_oldest_first(tmp_path: Path, mode: str) -> None:
    flags = ("--max-draining", "2", "--reload-timeout", "60")
    with controlled(tmp_path, mode, *flags) as it, ExitStack() as stack:
        streams = []
        for generation in (2, 3, 4, 5):
            streams.append(busy_with(it.service, stack, "/stream?chunks=100000&ms=50"))
            it.reload(generation)
        # Their handlers do not listen, so they are cut off when they had their time to end.
        for wire in streams[:2]:
            wait_until(partial(is_over, wire), "the oldest to be cut")
        it.service.expect("generation 1 is retired")
        it.service.expect("generation 2 is retired")
        numbers = [each["number"] for each in it.status()["generations"]]
        assert numbers == [3, 4, 5]
        assert not any(is_over(wire) for wire in streams[2:])
        assert "SIGKILL" not in it.service.log
        assert "abandoned" not in it.service.log


def test_later_reloads_give_a_draining_generation_no_more_time(tmp_path: Path) -> None:
    """If each of them did, it would never end: the next comes before that time is over."""
    flags = ("--reload-timeout", "5", "--max-draining", "100")
    with controlled(tmp_path, "thread", *flags) as it, ExitStack() as stack:
        wire = busy_with(it.service, stack, "/events")
        generations = count(2)

        def is_over_after_a_reload() -> bool:
            it.reload(next(generations))
            return is_over(wire)

        wait_until(is_over_after_a_reload, "http.disconnect")


@both_modes
def test_stop_draining_ends_what_drains_and_nothing_else(tmp_path: Path, mode: str) -> None:
    with controlled(tmp_path, mode, "--workers", "2") as it, ExitStack() as stack:
        old = busy_with(it.service, stack, "/events")
        it.reload(2)
        current = busy_with(it.service, stack, "/events")
        assert it.pounce("stop-draining") == "workers stopped: 1\n"
        # It had a minute left (reload_timeout).
        wait_until(lambda: is_over(old), "the old one to end")
        it.service.expect("generation 1 is retired")
        assert not is_over(current)
        assert it.pounce("stop-draining") == "workers stopped: 0\n"


@both_modes
def test_a_stop_after_a_reload_closes_politely(tmp_path: Path, mode: str) -> None:
    """Nobody takes over connections any more, whatever the reload had promised."""
    with controlled(tmp_path, mode) as it, ExitStack() as stack:
        slow = stack.enter_context(it.service.connect())
        slow.get("/")
        slow.send("/slow?ms=1500")
        other = stack.enter_context(it.service.connect())
        assert other.slot() == "0"
        it.reload(2)
        it.service.send_signal(signal.SIGTERM)
        answer = slow.receive()
        assert answer is not None
        assert answer.status == 200
        assert answer.closes
        assert it.service.wait() == 0
