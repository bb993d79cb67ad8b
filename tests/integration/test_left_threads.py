"""Threads that an application leaves behind keep no worker, and no service, for long."""

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pounce.application.interpreter import has_global_lock
from pounce.net.address import Address
from tests.modes import both_modes
from tests.service import APPS, Service, free_port, running, serving, wait_until

# A worker waits for 3 seconds. Those that are given here for the requests are longer.
PATIENCE = 25.0
FLAGS = ("--workers", "1", "--reload-timeout", "60", "--shutdown-timeout", "30")
KINDS = {
    "asyncio": ("app", "--loop", "asyncio"),
    "uvloop": ("app", "--loop", "uvloop"),
    "threads": ("app", "--execution", "sync"),
    "wsgi": ("wsgi",),
}


@contextmanager
def leaving(directory: Path, kind: str, mode: str, *flags: str) -> Iterator[Service]:
    app, *how = KINDS[kind]
    every = (*FLAGS, "--worker-mode", mode, *how, *flags)
    with serving(directory, *every, app=f"left_threads:{app}") as service:
        yield service


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def warnings_in(log: str) -> list[str]:
    return re.findall(r"WARNING.* has left threads that did not end.*: (.*)", log)


def check_calm(service: Service) -> None:
    assert " ERROR " not in service.log
    assert "by force" not in service.log


@pytest.mark.parametrize("way", ["/thread", "/default"])
def test_a_worker_ends_at_a_reload_and_at_a_stop(tmp_path: Path, way: str) -> None:
    with leaving(tmp_path, "uvloop", "process") as service:
        with service.connect() as wire:
            first = int(wire.get(way).body)
        service.reload(2)
        wait_until(lambda: is_gone(first), "the first worker's end", PATIENCE)
        with service.connect() as wire:
            second = int(wire.get(way).body)
        service.send_signal(signal.SIGTERM)
        assert service.wait(PATIENCE) == 0
        assert is_gone(second)
        [name, again] = warnings_in(service.log)
        assert name == again
        assert name.startswith("left-behind")
        check_calm(service)
        if sys.version_info >= (3, 13):  # multiprocessing runs none before
            assert {f"callback of {pid}" for pid in (first, second)} <= {*service.log.splitlines()}


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("process", "asyncio"), ("process", "wsgi"), ("thread", "uvloop"), ("thread", "threads")],
)
def test_a_stop_waits_for_no_thread_and_no_call(tmp_path: Path, mode: str, kind: str) -> None:
    with (
        leaving(tmp_path, kind, mode, "--shutdown-timeout", "1") as service,
        service.connect() as wire,
        service.connect() as other,
    ):
        other.get("/pool")
        wire.send("/hang")
        other.get("/")
        service.send_signal(signal.SIGTERM)
        assert service.wait(PATIENCE) == 0
        service.expect("unfinished work is dropped.*/hang")
        [names] = warnings_in(service.log)
        assert "left-behind_0" in names
        check_calm(service)


@both_modes
def test_what_ends_by_itself_is_waited_for(tmp_path: Path, mode: str) -> None:
    (tmp_path / "shop.py").write_text(
        """
import os, threading, time

def work():
    time.sleep(0.5)
    os.write(2, b"the work is done\\n")

def app(environ, start_response):
    threading.Thread(target=work, daemon=False).start()
    start_response("200 OK", [])
    return []
"""
    )
    flags = ("--workers", "1", "--worker-mode", mode)
    with serving(tmp_path, *flags, app="shop:app", apps=tmp_path) as service:
        with service.connect() as wire:
            wire.get("/")
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        assert "the work is done" in service.log
        assert not warnings_in(service.log)
        check_calm(service)


# A program around pounce, and an application: each with something to do at the very end.
PROGRAM = """
import atexit, sys

atexit.register(print, "the program's callback", end="")  # no line: it stays in a buffer
from pounce.cli import main
main()
"""
APPLICATION = f"""
import atexit, gc, sys

sys.path.append({str(APPS)!r})
from load import app

assert gc.isenabled(), "it is off only while pounce itself is imported"

atexit.register(print, "the application's callback")
left_open = open("left-open", "w")
left_open.write("what Python writes at its end")
"""


@both_modes
def test_the_end_of_the_process_loses_nothing(tmp_path: Path, mode: str) -> None:
    (tmp_path / "ends.py").write_text(APPLICATION)
    log, address = tmp_path / "log", f"127.0.0.1:{free_port()}"
    where = ["--directory", str(tmp_path), "--bind", address]
    command = [sys.executable, "-c", PROGRAM, "serve", "ends:app", *where, "--worker-mode", mode]
    with running(command, log) as process:
        service = Service(process, Address.parse(address), log)
        service.expect("generation 1 serves")
        service.send_signal(signal.SIGTERM)
        assert service.wait(PATIENCE) == 0
    assert "the program's callback" in service.log
    assert "stopped" in service.log
    if mode == "thread" or sys.version_info >= (3, 13):  # see above
        assert "the application's callback\n" in service.log
    # A forked worker ends without that (multiprocessing), and so does free-threaded Python.
    if mode == "thread" and has_global_lock():
        assert (tmp_path / "left-open").read_text() == "what Python writes at its end"
