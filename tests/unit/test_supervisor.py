"""The supervisor's calls, in a program that embeds it: each one returns, whatever it meets."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from pounce.application.interpreter import has_global_lock
from pounce.application.types import Receive, Scope, Send
from pounce.config.service import ServerConfig
from pounce.errors import PounceError
from pounce.events.lifecycle import (
    Collectors,
    GenerationReady,
    HealthChecked,
    LifecycleEvent,
    ReloadStarted,
    WorkerHung,
)
from pounce.supervisor import Supervisor
from pounce.supervisor.states import ServiceInput, WorkerState
from tests.service import wait_until
from tests.supervised import PATIENCE, supervised


class Story:
    """A collector whose events can be waited for."""

    def __init__(self) -> None:
        self._events: list[LifecycleEvent] = []
        self._changed = threading.Condition()

    def collect(self, event: LifecycleEvent) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def wait_for(self, wanted: Callable[[LifecycleEvent], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: any(map(wanted, self._events)), PATIENCE)


def ready(number: int) -> Callable[[LifecycleEvent], bool]:
    return lambda event: isinstance(event, GenerationReady) and event.generation == number


class Application:
    """Its lifespan starts, and its requests let the loop go on, when the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.broken = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.gate.wait(PATIENCE)
            return
        await receive()
        while not self.gate.is_set():
            await asyncio.sleep(0.01)
        if self.broken:
            await send({"type": "lifespan.startup.failed", "message": self.broken})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


class WithoutLifespan(Application):
    """One whose requests are answered in the loops of their workers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await super().__call__(scope, receive, send)


@contextmanager
def running(
    application: Application, listener: socket.socket | None = None
) -> Iterator[tuple[Supervisor, Story]]:
    """A supervisor of one thread, in a thread of its own."""
    story = Story()
    config = ServerConfig(workers=1, startup_timeout=PATIENCE, worker_timeout=1.0)
    supervisor = Supervisor(config, application, mode="thread", lifecycle_collector=story)
    with (
        listener or socket.create_server(("127.0.0.1", 0)) as listener,
        supervised(supervisor, listener),
    ):
        try:
            yield supervisor, story
        finally:
            application.gate.set()


class Call:
    """A blocking call in a thread, and what became of it."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._function()
        except PounceError as error:
            self._error = error

    def result(self) -> str:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the caller still waits"
        return str(self._error or "done")


def test_a_reload_returns_when_the_next_generation_serves() -> None:
    with running(Application()) as (supervisor, story):
        story.wait_for(ready(1))
        assert Call(supervisor.graceful_reload).result() == "done"
        story.wait_for(ready(2))


def test_a_restart_returns_when_fresh_workers_serve() -> None:
    with running(Application()) as (supervisor, story):
        story.wait_for(ready(1))
        assert Call(supervisor.restart_workers).result() == "done"
        story.wait_for(ready(2))


def test_a_restart_during_the_start() -> None:
    application = Application()
    application.gate.clear()
    with running(application) as (supervisor, story):
        call = Call(supervisor.restart_workers)
        application.gate.set()
        assert call.result() == "done"
        story.wait_for(ready(2))


def test_a_restart_during_a_reload_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pounce")
    application = Application()
    with running(application) as (supervisor, story):
        story.wait_for(ready(1))
        application.gate.clear()
        reload = Call(supervisor.graceful_reload)
        story.wait_for(lambda event: isinstance(event, ReloadStarted))
        assert Call(supervisor.restart_workers).result() == "done"
        assert "restart_workers() is skipped: a reload" in caplog.text
        application.gate.set()
        assert reload.result() == "done"
        assert supervisor._service is not None
        assert supervisor._service.generation == 2


def test_a_restart_during_a_restart_comes_after_it() -> None:
    application = Application()
    with running(application) as (supervisor, story):
        story.wait_for(ready(1))
        application.gate.clear()
        first = Call(supervisor.restart_workers)
        story.wait_for(lambda event: isinstance(event, ReloadStarted))
        second = Call(supervisor.restart_workers)
        application.gate.set()
        assert (first.result(), second.result()) == ("done", "done")
        story.wait_for(ready(3))


def test_a_restart_that_fails_keeps_the_old_workers() -> None:
    application = Application()
    with running(application) as (supervisor, story):
        story.wait_for(ready(1))
        application.broken = "no database"
        assert "no database" in Call(supervisor.restart_workers).result()
        assert supervisor.worker_count == 1
        application.broken = ""
        assert Call(supervisor.restart_workers).result() == "done"
        story.wait_for(ready(3))


def test_a_stop_during_a_reload_answers_it() -> None:
    application = Application()
    with running(application) as (supervisor, story):
        story.wait_for(ready(1))
        application.gate.clear()
        reload = Call(supervisor.graceful_reload)
        story.wait_for(lambda event: isinstance(event, ReloadStarted))
        supervisor.shutdown()
        assert reload.result() == "the service is stopping"


class Lingering(Application):
    """One whose request, and then its lifespan's shutdown, wait for the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.asked.set()
            await self._passage()
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._passage()
        await send({"type": "lifespan.shutdown.complete"})

    async def _passage(self) -> None:
        while not self.gate.is_set():
            await asyncio.sleep(0.01)
        self.gate.clear()


def test_a_stop_has_one_shutdown_timeout_for_workers_and_lifespan() -> None:
    application = Lingering()
    listener = socket.create_server(("127.0.0.1", 0))
    with (
        running(application, listener) as (supervisor, story),
        socket.create_connection(listener.getsockname()) as client,
    ):
        story.wait_for(ready(1))
        assert supervisor._service is not None
        [generation] = supervisor._service._generations.all
        worker, host = generation.handles
        application.gate.clear()
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert application.asked.wait(PATIENCE)
        supervisor.shutdown()
        deadline = wait_until(lambda: worker.deadline, "the worker's deadline").when
        later = time.monotonic() + 0.3
        wait_until(lambda: time.monotonic() > later, "some of the time to pass")
        application.gate.set()
        left = wait_until(lambda: host.deadline, "the lifespan's deadline").when
        assert left == pytest.approx(deadline, abs=0.1)


def test_a_second_shutdown_changes_nothing() -> None:
    application = Lingering()
    listener = socket.create_server(("127.0.0.1", 0))
    with (
        running(application, listener) as (supervisor, story),
        socket.create_connection(listener.getsockname()) as client,
    ):
        story.wait_for(ready(1))
        assert supervisor._service is not None
        [generation] = supervisor._service._generations.all
        [worker] = generation.all_workers
        application.gate.clear()
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert application.asked.wait(PATIENCE)
        for _ in range(2):
            supervisor.shutdown()
            wait_until(lambda: not supervisor._loop._posted, "the call to be heard")
        assert worker.state is WorkerState.DRAINING
        application.gate.set()
        wait_until(lambda: worker.state is WorkerState.GONE, "its end")


def test_only_a_second_signal_ends_the_wait() -> None:
    application = Lingering()
    with running(application) as (supervisor, story):
        story.wait_for(ready(1))
        service = supervisor._service
        assert service is not None
        application.gate.clear()
        supervisor.shutdown()
        for expected in ("TERMINATING", "FORCED"):
            supervisor._loop.post(lambda: service.request(ServiceInput.TERMINATE))
            wait_until(lambda: service._state.name == expected, expected)  # noqa: B023 - called now


def test_a_lifespan_state_has_to_come_before_the_run() -> None:
    with running(Application()) as (supervisor, story):
        story.wait_for(ready(1))
        with pytest.raises(RuntimeError, match=r"before run\(\)"):
            supervisor.set_lifespan_state({})


def test_an_unknown_mode_is_told() -> None:
    mode: Any = "banana"
    with pytest.raises(PounceError, match="mode: found 'banana', expected 'thread' or 'process'"):
        Supervisor(ServerConfig(), Application(), mode=mode)


@pytest.mark.skipif(not has_global_lock(), reason="threads run side by side here")
@pytest.mark.parametrize(("workers", "warned"), [(1, False), (2, True)])
def test_threads_that_take_turns_are_warned_of(
    caplog: pytest.LogCaptureFixture, workers: int, warned: bool
) -> None:
    supervisor = Supervisor(ServerConfig(workers=workers), Application(), mode="thread")
    supervisor._loop.close()
    assert ("runs one thread at a time" in caplog.text) == warned


class Faulty(Story):
    """A collector that raises whatever it was made with, always."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def collect(self, event: LifecycleEvent) -> None:
        super().collect(event)
        raise self._error


@pytest.mark.parametrize("error", [ValueError("oh"), SystemExit(1), asyncio.CancelledError()])
def test_a_collector_that_raises_ends_nothing(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    story, other = Faulty(error), Story()
    supervisor = Supervisor(
        ServerConfig(), Application(), mode="thread", lifecycle_collector=Collectors(story, other)
    )
    with socket.create_server(("127.0.0.1", 0)) as listener, supervised(supervisor, listener):
        for each in (story, other):
            each.wait_for(ready(1))
            each.wait_for(lambda event: isinstance(event, HealthChecked))
        assert Call(supervisor.graceful_reload).result() == "done"
        story.wait_for(ready(2))
    [record] = [each for each in caplog.records if "the lifecycle collector Faulty" in each.message]
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_calls_after_the_end() -> None:
    with running(Application()) as (supervisor, story):
        story.wait_for(ready(1))
    supervisor.shutdown()
    assert Call(supervisor.graceful_reload).result() == "the service has stopped"
    assert Call(supervisor.restart_workers).result() == "the service has stopped"


def test_many_callers_around_the_end_all_return() -> None:
    with running(Application()) as (supervisor, story):
        story.wait_for(ready(1))
        calls = [Call(supervisor.graceful_reload) for _ in range(4)]
        supervisor.shutdown()
        calls += [Call(supervisor.graceful_reload) for _ in range(4)]
    for call in calls:
        assert call.result() in ("done", "the service is stopping", "the service has stopped")


def test_it_runs_only_once() -> None:
    with running(Application()) as (supervisor, story):
        story.wait_for(ready(1))
        with pytest.raises(RuntimeError, match="only once"):
            supervisor.run([])


def test_a_thread_that_hung_gives_back_what_it_had_when_it_ends_after_all() -> None:
    application = WithoutLifespan()
    listener = socket.create_server(("127.0.0.1", 0))
    with running(application, listener) as (supervisor, story), ExitStack() as stack:
        story.wait_for(ready(1))
        assert supervisor._service is not None
        board = supervisor._service.crew.scoreboard
        rows = len(board._rows)

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(listener.getsockname()))

        application.gate.clear()
        connect().sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        story.wait_for(lambda event: isinstance(event, WorkerHung))
        for _ in range(3):
            connect()
        # Others compare themselves with those that accept, and it does not.
        wait_until(lambda: board.least_connections(1) == 3, "the next worker to have accepted")
        assert len(board._rows) == rows + 1
        application.gate.set()
        wait_until(lambda: len(board._rows) == rows, "its row")
