"""What asgiref runs in one thread is run in one of each worker, where workers are threads."""

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pounce.threads import thread_sensitive
from tests.service import Service, Wire, serving, wait_until

asgiref = pytest.importorskip("asgiref.sync")

WAYS = ["/thread", "/in/thread", "/in/anyio", "/in/executor"]

executions = pytest.mark.parametrize("execution", ["async", "sync"])


@contextmanager
def workers(
    directory: Path,
    *flags: str,
    mode: str = "thread",
    app: str = "sensitive:early()",
    lifespan: str = "off",
) -> Iterator[Service]:
    how = ("--worker-mode", mode, "--workers", "2", "--lifespan", lifespan, *flags)
    with serving(directory, *how, app=app) as service:
        yield service


def ask(wire: Wire, target: str) -> str:
    return wire.get(target).body.decode()


def hang(wire: Wire, other: Wire, target: str = "/hang") -> None:
    wire.send(target)
    wait_until(lambda: ask(other, "/begun") == "True", "the call")


@executions
def test_a_call_that_hangs_stops_no_other_worker(tmp_path: Path, execution: str) -> None:
    flags = ("--execution", execution, "--reload-timeout", "1", "--shutdown-timeout", "1")
    with (
        workers(tmp_path, *flags) as service,
        service.connect_to("0") as wire,
        service.connect_to("1") as other,
    ):
        hang(wire, other)
        assert ask(other, "/thread") == "pounce-1-1-sensitive_0"
        service.reload(2)
        service.expect("generation 1 is retired")
        with service.connect_to("0") as new:
            assert ask(new, "/thread") == "pounce-2-0-sensitive_0"
            wait_until(lambda: "pounce-1-1-sensitive_0" not in ask(new, "/threads"), "its end")
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        service.expect("threads that did not end .*: pounce-1-0-sensitive_0$")


@executions
def test_a_worker_has_one_thread_for_all_of_its_own(tmp_path: Path, execution: str) -> None:
    with workers(tmp_path, "--execution", execution) as service, ExitStack() as stack:
        wires = [stack.enter_context(service.connect_to("1")) for _ in range(4)]
        for wire in wires:
            wire.send("/thread")
        answers = [wire.receive() for wire in wires]
        assert {each and each.body for each in answers} == {b"pounce-1-1-sensitive_0"}
        assert ask(wires[0], "/deeper") == "pounce-1-1-sensitive_0, pounce-1-1-sensitive_0"
        assert ask(wires[0], "/context").startswith("ThreadPoolExecutor-")


@executions
@pytest.mark.parametrize("loop", ["auto", "asyncio"])
def test_threads_that_a_worker_has_started_are_its_own(
    tmp_path: Path, execution: str, loop: str
) -> None:
    flags = ("--execution", execution, "--loop", loop, "--shutdown-timeout", "1")
    with (
        workers(tmp_path, *flags) as service,
        service.connect_to("0") as wire,
        service.connect_to("1") as other,
    ):
        hang(wire, other, "/in/thread/hang")
        assert {ask(other, each) for each in WAYS} == {"pounce-1-1-sensitive_0"}
        assert ask(other, "/in/strangers").startswith("ThreadPoolExecutor-")


def test_such_threads_keep_no_worker_that_is_gone(tmp_path: Path) -> None:
    with workers(tmp_path) as service:
        with service.connect_to("1") as wire:
            for each in WAYS:
                ask(wire, each)
        service.reload(2)
        service.expect("generation 1 is retired")
        with service.connect_to("0") as new:
            assert ask(new, "/in/thread") == "pounce-2-0-sensitive_0"
            wait_until(lambda: "pounce-1-" not in ask(new, "/threads"), "their end")


def test_one_loop_has_one_thread_for_all_workers(tmp_path: Path) -> None:
    """What the lifespan makes in that thread, as a connection to SQLite, works in requests."""
    with (
        workers(tmp_path, app="sensitive:one_loops", lifespan="on") as service,
        service.connect_to("0") as wire,
        service.connect_to("1") as other,
    ):
        service.expect("one that hangs stops all")
        wait_until(lambda: ask(wire, "/thread") == "pounce-1-lifespan-sensitive_0", "its thread")
        answers = {ask(each, way) for each in (wire, other) for way in WAYS}
        assert answers == {"pounce-1-lifespan-sensitive_0"}


def test_asgiref_may_be_imported_late(tmp_path: Path) -> None:
    with workers(tmp_path, app="sensitive:late") as service, service.connect_to("1") as wire:
        wait_until(lambda: ask(wire, "/thread") == "pounce-1-1-sensitive_0", "its own thread")


def test_a_process_has_what_asgiref_gives_it(tmp_path: Path) -> None:
    with workers(tmp_path, mode="process") as service, service.connect() as wire:
        assert ask(wire, "/thread").startswith("ThreadPoolExecutor-")


def test_django_has_a_thread_for_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("django")
    monkeypatch.setenv("DATABASE", str(tmp_path / "database"))
    with workers(tmp_path, app="django_app:asgi") as service, service.connect() as wire:
        threads = [ask(wire, "/thread") for _ in range(2)]
        assert all(each.startswith("ThreadPoolExecutor-") for each in threads)
        assert threads[0] != threads[1]


# In a program


def test_threads_of_no_worker_go_on_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(1, "common") as common:
        monkeypatch.setattr(asgiref.SyncToAsync, "single_thread_executor", common)
        thread_sensitive.divert()
        diverted = asgiref.SyncToAsync.single_thread_executor
        assert diverted is not common
        thread_sensitive.divert()
        assert asgiref.SyncToAsync.single_thread_executor is diverted
        call = asgiref.sync_to_async(lambda: threading.current_thread().name)
        assert asyncio.run(call()) == "common_0"


class Own(ThreadPoolExecutor):
    """An application's executor."""


@pytest.mark.parametrize("executor", [ThreadPoolExecutor(4), Own(1)], ids=["four", "its own"])
def test_what_an_application_has_put_there_stays(
    monkeypatch: pytest.MonkeyPatch, executor: ThreadPoolExecutor
) -> None:
    monkeypatch.setattr(asgiref.SyncToAsync, "single_thread_executor", executor)
    thread_sensitive.divert()
    assert asgiref.SyncToAsync.single_thread_executor is executor


def test_an_application_without_asgiref(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "asgiref.sync")
    thread_sensitive.divert()
