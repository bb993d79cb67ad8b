"""The supervisor as a library: a program opens the sockets, and calls it by its public names."""

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import pounce
from pounce.events.lifecycle import (
    GenerationReady,
    HealthChecked,
    Kind,
    LifecycleEvent,
    Slot,
    Stopped,
    WorkerCrashed,
    WorkerReady,
    WorkerStopped,
)
from pounce.net.address import Address
from pounce.supervisor import _WorkerHandle
from tests.apps.load import app
from tests.certificates import Authority
from tests.modes import both_modes
from tests.service import Wire, wait_until
from tests.supervised import PATIENCE, supervised


class Events:
    """A collector that keeps what it is told."""

    def __init__(self) -> None:
        self.all: list[LifecycleEvent] = []

    def collect(self, event: LifecycleEvent) -> None:
        self.all.append(event)

    def of(self, kind: type[LifecycleEvent]) -> list[Any]:
        return [event for event in self.all if type(event) is kind]

    def wait_for(self, kind: type[LifecycleEvent], count: int = 1) -> Any:
        """The event of its kind that is the *count*-th."""
        wait_until(lambda: len(self.of(kind)) >= count, f"{kind.__name__} {count}", PATIENCE)
        return self.of(kind)[count - 1]


@contextmanager
def running(
    config: pounce.ServerConfig, *sockets: socket.socket, application: Any = app, **options: Any
) -> Iterator[tuple[pounce.Supervisor, Events]]:
    """A supervisor that serves *sockets*, which this closes."""
    events = Events()
    supervisor = pounce.Supervisor(config, application, lifecycle_collector=events, **options)
    with ExitStack() as stack:
        for sock in sockets:
            stack.enter_context(sock)
        stack.enter_context(supervised(supervisor, *sockets))
        events.wait_for(GenerationReady)
        yield supervisor, events


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def wire_to(listener: socket.socket) -> Wire:
    return Wire(Address.parse("{}:{}".format(*listener.getsockname())))


# Sockets


@both_modes
def test_a_socket_is_served_as_its_entry_says(tmp_path: Path, mode: Any) -> None:
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1").write(tmp_path, "site")
    entry = pounce.Listen(
        pounce.Address.parse("127.0.0.1:0"), certificate=(str(certificate),), key=(str(key),)
    )
    config = pounce.ServerConfig(listen=(entry,))
    [listener] = pounce.create_listeners(config)
    trust = ssl.create_default_context(cafile=authority.write(tmp_path))
    host, port = listener.getsockname()
    with running(config, listener, mode=mode) as (supervisor, _):
        assert httpx.get(f"https://{host}:{port}", verify=trust).status_code == 200
        assert httpx.get(f"http://{host}:{port}").status_code == 400
        # A reload reads the files anew.
        other = Authority()
        other.issue("127.0.0.1").write(tmp_path, "site")
        supervisor.graceful_reload()
        trust = ssl.create_default_context(cafile=other.write(tmp_path))
        assert httpx.get(f"https://{host}:{port}", verify=trust).status_code == 200


def test_a_certificate_that_cannot_be_used_ends_the_run() -> None:
    entry = pounce.Listen(pounce.Address.parse("127.0.0.1:0"), certificate=("/no/such.pem",))
    config = pounce.ServerConfig(listen=(entry,))
    supervisor = pounce.Supervisor(config, app)
    with listening() as listener, pytest.raises(pounce.PounceError, match=r"/no/such\.pem"):
        supervisor.run([listener])
    with pytest.raises(pounce.PounceError, match="has stopped"):
        supervisor.graceful_reload()


def test_an_entry_without_a_certificate_leaves_the_programs_own_context(tmp_path: Path) -> None:
    authority = Authority()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("127.0.0.1").write(tmp_path, "site"))
    trust = ssl.create_default_context(cafile=authority.write(tmp_path))
    listener = listening()
    host, port = listener.getsockname()
    config = pounce.ServerConfig(listen=(pounce.Listen(pounce.Address.parse(f"{host}:{port}")),))
    with running(config, listener, mode="thread", ssl_context=context) as (supervisor, _):
        for _ in range(2):
            assert httpx.get(f"https://{host}:{port}", verify=trust).status_code == 200
            supervisor.graceful_reload()


@both_modes
def test_a_stop_after_the_program_has_closed_its_listener(mode: Any) -> None:
    config = pounce.ServerConfig(workers=1)
    events = Events()
    supervisor = pounce.Supervisor(config, app, mode=mode, lifecycle_collector=events)
    with listening() as listener, supervised(supervisor, listener, own=[listener]):
        events.wait_for(GenerationReady)
        with wire_to(listener) as wire:
            wire.get("/")
            wire.send("/slow?ms=500")
            listener.close()
            supervisor.shutdown()
            assert wire.receive() is not None
    assert events.of(Stopped)
    assert not events.of(WorkerCrashed)


# Workers


@both_modes
def test_the_worker_count_is_what_runs(mode: Any) -> None:
    config = pounce.ServerConfig(workers=1)
    three = pounce.ServerConfig(workers=3)
    with running(config, listening(), mode=mode, reload_config=lambda: three) as (supervisor, _):
        assert supervisor.worker_count == 1
        supervisor.graceful_reload()
        assert supervisor.worker_count == 3
    assert supervisor.worker_count == 0


def test_the_worker_count_after_a_crash() -> None:
    with running(pounce.ServerConfig(workers=2), listening(), mode="process") as (
        supervisor,
        events,
    ):
        victim = events.wait_for(WorkerReady)
        os.kill(victim.target_id, signal.SIGKILL)
        events.wait_for(WorkerReady, 3)
        assert supervisor.worker_count == 2
        assert len(events.of(WorkerCrashed)) == 1


SCALED = """
import os, signal, socket, pounce
from pounce.events.lifecycle import GenerationReady, WorkerReady

async def app(scope, receive, send):
    raise RuntimeError

class Collector:
    def collect(self, event):
        if isinstance(event, GenerationReady):
            os.kill(os.getpid(), signal.SIGTTIN)
        if isinstance(event, WorkerReady) and event.slot.name != "lifespan":
            print(supervisor.worker_count, flush=True)
            if supervisor.worker_count == 2:
                supervisor.shutdown()

supervisor = pounce.Supervisor(
    pounce.ServerConfig(workers=1), app, mode=MODE, lifecycle_collector=Collector()
)
supervisor.run([socket.create_server(("127.0.0.1", 0))])
"""


@both_modes
def test_the_worker_count_after_a_signal(mode: str) -> None:
    """Signals are the supervisor's where it runs on the main thread."""
    source = SCALED.replace("MODE", repr(mode))
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == "1\n2\n"


# restart_workers()

SHOP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"edition %d"})
"""


@both_modes
def test_a_restart_keeps_the_old_code_when_the_new_cannot_be_imported(
    tmp_path: Path, mode: Any
) -> None:
    source = tmp_path / "restarted_shop.py"
    source.write_text(SHOP % 1)
    listener = listening()
    config = pounce.ServerConfig(directory=str(tmp_path), lifespan="off")
    with (
        running(config, listener, application=None, app_path="restarted_shop:app", mode=mode) as (
            supervisor,
            _,
        ),
        wire_to(listener) as wire,
    ):
        assert wire.get("/").body == b"edition 1"
        source.write_text("def\n")
        with pytest.raises(pounce.PounceError, match="SyntaxError"):
            supervisor.restart_workers()
        assert wire.get("/").body == b"edition 1"
        source.write_text(SHOP % 2)
        supervisor.restart_workers()
        # The connection is handed over: it stays open.
        wait_until(lambda: wire.get("/").body == b"edition 2", "the new code")


# Workers that are told to drain by hand


@both_modes
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_drained_by_hand_is_no_crash(mode: Any, workers: int) -> None:
    listener = listening()
    with (
        running(pounce.ServerConfig(workers=workers), listener, mode=mode) as (supervisor, events),
        wire_to(listener) as wire,
    ):
        slot = Slot(Kind.HTTP, int(wire.slot()))
        assert supervisor._service is not None
        [generation] = supervisor._service._generations.all
        handle = generation.workers[slot]
        assert isinstance(handle, _WorkerHandle)
        assert (handle.worker_id, handle.generation) == (slot.number, generation)
        if handle.worker is None:
            os.kill(handle.target.id, signal.SIGTERM)
        else:
            handle.worker.start_draining()
        stopped = events.wait_for(WorkerStopped)
        assert (stopped.slot, stopped.forced) == (slot, False)
        # The connection is handed over: it stays open.
        assert wire.get("/").status == 200
        wait_until(lambda: supervisor.worker_count == workers, "the next one")
        assert not events.of(WorkerCrashed)


@pytest.mark.parametrize("execution", ["async", "sync"])
def test_a_thread_has_its_worker(execution: Any) -> None:
    config = pounce.ServerConfig(execution=execution)
    with running(config, listening(), mode="thread") as (supervisor, _):
        assert supervisor._service is not None
        [generation] = supervisor._service._generations.all
        [handle] = generation.all_workers
        assert isinstance(handle.worker, pounce.TCPWorker)
        assert handle.worker.is_idle()


# Health


def test_the_health_check_says_for_how_long_no_worker_has_beaten() -> None:
    config = pounce.ServerConfig(workers=2)
    with running(config, listening(), mode="process") as (_, events):
        victims = [event.target_id for event in events.of(WorkerReady)]
        os.kill(victims[0], signal.SIGSTOP)
        later = len(events.of(HealthChecked)) + 5
        assert events.wait_for(HealthChecked, later).silent_for < 1.5
        os.kill(victims[1], signal.SIGSTOP)
        wait_until(lambda: events.of(HealthChecked)[-1].silent_for > 1.5, "both to be silent")
        for victim in victims:
            os.kill(victim, signal.SIGCONT)
        wait_until(lambda: events.of(HealthChecked)[-1].silent_for < 1.5, "them to beat again")
