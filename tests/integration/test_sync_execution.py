"""Applications that block: reloads, hangs and stops of workers whose threads answer."""

import math
import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.load import Echo, Slow, Stream, Upload
from tests.modes import both_modes
from tests.reloads import assert_unnoticed, reload_under
from tests.service import Service, Wire, serving, wait_until

RELOADS = 2

blocking = partial(serving, app="load_wsgi:app")


# Reloads and stops


@both_modes
def test_no_client_notices_a_reload(tmp_path: Path, mode: str) -> None:
    plans = {
        "as fast as can be": {"work": Echo(), "connections": 32},
        "slow requests": {"work": Slow(50), "connections": 4},
        "uploads": {"work": Upload(pieces=10, ms=20), "connections": 8},
        "chunked uploads": {"work": Upload(pieces=10, ms=20, chunked=True), "connections": 8},
        "streams": {"work": Stream(chunks=5, ms=10), "connections": 4},
    }
    flags = ("--worker-mode", mode, "--workers", "2", "--threads", "6")
    with blocking(tmp_path, *flags) as service, ExitStack() as stack:
        sitting = stack.enter_context(service.load(connections=200, think=math.inf))
        sitting.wait_until(lambda result: result.answered == 200)
        loads = [stack.enter_context(service.load(**plan)) for plan in plans.values()]
        for load in loads:
            load.wait_for_more(5)
        reload_under(service, *loads, reloads=RELOADS, pace=0.5)
    for load in loads:
        assert_unnoticed(load.result(), RELOADS)
    result = sitting.result()
    result.assert_nothing_lost()
    assert result.answered == 400


@both_modes
def test_the_old_generation_finishes_what_blocks(tmp_path: Path, mode: str) -> None:
    with (
        blocking(tmp_path, "--worker-mode", mode) as service,
        service.connect() as slow,
        service.connect() as idle,
    ):
        assert idle.get("/").headers[b"x-served-by"].startswith(b"1 ")
        slow.send("/slow?ms=500")
        service.reload(2)
        assert idle.get("/").headers[b"x-served-by"].startswith(b"2 ")
        assert "generation 1 is retired" not in service.log
        answer = slow.receive()
        assert answer is not None
        assert answer.headers[b"x-served-by"].startswith(b"1 ")
        assert (answer.status, answer.closes) == (200, False)
        service.expect("generation 1 is retired")
        assert slow.get("/").headers[b"x-served-by"].startswith(b"2 ")


@both_modes
@pytest.mark.parametrize(
    ("target", "grace"),
    [
        pytest.param("/events", "30", id="a-stream"),  # between pieces it can be ended at once
        pytest.param("/hang?how=deadlock", "0.5", id="a-hang"),
    ],
)
def test_what_does_not_end_is_cut_off(tmp_path: Path, mode: str, target: str, grace: str) -> None:
    times = ("--reload-timeout", "0.5", "--shutdown-timeout", grace)
    with (
        blocking(tmp_path, "--worker-mode", mode, *times) as service,
        service.connect() as endless,
    ):
        endless.send(target)
        # A loop that has answered this has read what was sent to it before.
        service.connect_to("0").sock.close()
        service.reload(2)
        assert endless.receive() is None
        service.expect("generation 1 is retired")
        with service.connect() as wire:
            assert wire.get("/").status == 200


def test_a_stop_waits_for_what_blocks(tmp_path: Path) -> None:
    with blocking(tmp_path) as service, service.connect() as wire:
        wire.send("/slow?ms=500")
        service.connect_to("0").sock.close()
        service.send_signal(signal.SIGTERM)
        answer = wire.receive()
        assert answer is not None
        assert answer.closes
        wire.sock.close()
        assert service.wait() == 0


# Hangs


@both_modes
def test_a_stuck_thread_is_replaced_and_all_of_them_are_a_stuck_worker(
    tmp_path: Path, mode: str
) -> None:
    flags = ("--worker-mode", mode, "--workers", "2", "--threads", "2", "--worker-timeout", "1")
    with blocking(tmp_path, *flags) as service, ExitStack() as stack:
        hanging = stack.enter_context(service.connect_to("0"))
        hanging.send("/hang?how=deadlock")
        told = service.expect(
            r"a thread is stuck, and another takes its place: GET /hang from 127\.0\.0\.1:\d+, "
            r"for .* <- in thread pounce-1-0-\d+\n(.*\n)*?.*load_wsgi.py.*, in hang"
        )
        assert told
        # It lost one thread, and goes on with two.
        first_one = service.workers["0"]
        for _ in range(2):
            with service.connect_to("0") as wire:
                assert wire.slot() == "0"
        again: Wire = stack.enter_context(service.connect_to("0"))
        idle = stack.enter_context(service.connect_to("0"))
        again.send("/hang?how=deadlock")
        service.expect("as many threads are stuck as this worker has")
        assert idle.get("/").status == 200
        service.expect_worker("0", other_than=first_one)
        assert service.log.count("a thread is stuck") == 2
        service.connect_to("0").sock.close()


def test_threads_end_with_their_worker(tmp_path: Path) -> None:
    with blocking(tmp_path, "--worker-mode", "thread", "--threads", "16") as service:
        count = threads(service)
        for generation in (2, 3):
            service.reload(generation)
            service.expect(rf"generation {generation - 1} is retired")
        wait_until(lambda: threads(service) <= count, f"no more than {count} threads")


def threads(service: Service) -> int:
    return len(list((Path("/proc") / str(service.process.pid) / "task").iterdir()))


ENDING = """
import asyncio
import sys

async def app(scope, receive, send):
    await receive()
    asyncio.get_running_loop().call_soon(sys.exit)
    await send({"type": "lifespan.startup.complete"})
    await receive()
"""


def test_a_worker_whose_application_ends_its_own_loop_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "ending.py").write_text(ENDING)
    flags = ("--worker-mode", "process", "--execution", "sync", "--worker-timeout", "1")
    with serving(tmp_path, *flags, app="ending:app", apps=tmp_path) as service:
        first = service.workers["0"]
        service.expect("the loop of the ASGI application has ended; it has to be replaced")
        service.expect_worker("0", first)
        assert "RuntimeError" not in service.log
