"""The commands that call a running service: what they print, and what they refuse."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pounce.cli.commands import pounce as command
from pounce.errors import PounceError
from tests.control import controlled
from tests.service import wait_until

UNITS = {
    "pounce@api.service": "active",
    "pounce@old.service": "inactive",  # its file is gone
    "pounce@wiki.service": "failed",
} | {f"pounce@{name}.socket": "active" for name in ("old", "shop", "wiki")}


def test_the_table_has_a_line_for_each_worker(tmp_path: Path) -> None:
    with controlled(tmp_path, "process", "--workers", "2") as it:
        with it.service.connect() as wire:
            wire.get("/")
            wait_until(lambda: it.status()["requests"] == 1, "the request to be counted")
            head, *lines = it.pounce("status").splitlines()
        assert head.split()[:5] == ["generation", "kind", "slot", "id", "state"]
        found = [line.split() for line in lines]
        assert [(*row[:3], row[4]) for row in found] == [
            ("1", "http", "0", "ready"),
            ("1", "http", "1", "ready"),
        ]
        assert {row[2]: int(row[3]) for row in found} == it.service.workers
        assert sorted(row[8] for row in found) == ["0", "1"]
        assert len({len(line) for line in (head, *lines)}) == 1


def test_without_a_name_every_service_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pounce.cli.control.RUNTIME_DIRECTORY", tmp_path)
    monkeypatch.setattr("pounce.cli.instances.configured", lambda: ["blog", "shop", "wiki"])
    monkeypatch.setattr("pounce.cli.instances.active_states", lambda _units: UNITS)
    monkeypatch.setattr("pounce.cli.instances.loaded", lambda _pattern: list(UNITS))
    monkeypatch.setattr("pounce.cli.instances._PATIENCE", 0.2)
    for name in ("api", "shop"):
        (tmp_path / name).mkdir()
    with (
        socket.socket(socket.AF_UNIX) as stuck,
        controlled(tmp_path / "shop", "process", "--workers", "2"),
    ):
        stuck.bind(str(tmp_path / "api/control"))
        stuck.listen()
        lines = [line.split() for line in run("status").stdout.splitlines()]
        services = json.loads(run("status", "--json").stdout)["services"]
    assert lines == [
        ["service", "state", "socket", "generation", "workers", "connections", "requests"],
        ["api", "active", "-", "-", "-", "-", "-"],
        ["blog", "no", "answer", "-", "-", "-", "-", "-"],
        ["old", "inactive", "active", "-", "-", "-", "-"],
        ["shop", "serving", "active", "1", "2/2", "0", "0"],
        ["wiki", "failed", "active", "-", "-", "-", "-"],
    ]
    assert [each["name"] for each in services] == ["api", "blog", "old", "shop", "wiki"]
    assert [each["status"] and each["status"]["phase"] for each in services] == [
        *(None, None, None, "serving", None)
    ]


def test_no_service_is_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pounce.cli.control.RUNTIME_DIRECTORY", tmp_path)
    monkeypatch.setattr("pounce.cli.instances.configured", list)
    monkeypatch.setattr("pounce.cli.instances.loaded", lambda _pattern: [])
    finished = run("status")
    assert (finished.exit_code, finished.stdout) == (0, "")
    assert "no service runs" in finished.stderr


def test_a_reload_that_fails_says_why_and_exits_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (tmp_path / "shop.py").write_text("from tests.apps.load import app\n")
    with controlled(tmp_path, "process", app="shop:app", apps=tmp_path) as it:
        (tmp_path / "shop.py").write_text("import no_such_module\n")
        finished = subprocess.run(
            [sys.executable, "-m", "pounce", "reload", "--control", str(it.path)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert finished.returncode == 1
        assert "no_such_module" in finished.stderr
        assert "generation 2 did not start" in finished.stderr
        assert finished.stdout == ""
        with it.service.connect() as wire:
            assert wire.get("/").status == 200


SHOP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
"""


def run(*words: str) -> Result:
    return CliRunner().invoke(command, words)


def refusal(*words: str) -> str:
    """What a command says that ends with 1."""
    error = run(*words).exception
    assert isinstance(error, PounceError), error
    assert error.exit_code == 1
    return str(error)


def test_what_the_service_has_logged_is_not_put_into_the_journal_again(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with (
        controlled(tmp_path, "process", app="shop:app", apps=tmp_path) as it,
        (tmp_path / "journal").open("w+") as journal,
    ):
        (tmp_path / "shop.py").write_text("import no_such_module\n")
        status = os.fstat(journal.fileno())
        subprocess.run(
            [sys.executable, "-m", "pounce", "reload", "--control", str(it.path)],
            env=os.environ | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            stderr=journal,
            timeout=30,
            check=False,
        )
        [line] = (tmp_path / "journal").read_text().splitlines()
        assert "generation 2 did not start: importing 'shop' failed" in line
        it.service.expect("reload failed")
        assert it.service.log.count("Traceback (most recent call last)") == 1


NONSENSE: dict[str, tuple[list[str], str]] = {
    "no service": (["reload"], "Say which service"),
    "two services": (["stop-draining", "shop", "--control", "x"], "Say which service"),
    "two names": (["reload", "shop", "other"], "unexpected extra argument"),
    "one and all": (["reload", "shop", "--all"], "Say which service, or --all"),
    "no number": (["scale", "--control", "x"], "Give the service's NAME and the number"),
    "no worker": (["scale", "shop", "0"], "0 is not in the range"),
    "not a number": (["scale", "shop"], "'shop' is not a valid integer"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_a_command_that_makes_no_sense(case: str) -> None:
    words, said = NONSENSE[case]
    finished = run(*words)
    assert finished.exit_code == 2
    assert said in finished.output


COMMANDS = [["status"], ["reload"], ["stop-draining"], ["scale", "2"]]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_no_service_is_there(tmp_path: Path, words: list[str]) -> None:
    said = refusal(*words, "--control", str(tmp_path / "control"))
    assert f"no service answers at {tmp_path}/control: No such file" in said


WHERE_TO_LOOK = {True: "systemctl status pounce@no-such-service", False: "--control PATH"}


@pytest.mark.parametrize("booted", WHERE_TO_LOOK)
def test_an_instance_is_found_by_its_name(booted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pounce.systemd.units.is_booted", lambda: booted)
    said = refusal("reload", "no-such-service")
    assert "no service answers at /run/pounce/no-such-service/control" in said
    assert said.endswith(WHERE_TO_LOOK[booted])


def test_without_systemd_there_are_no_instances_to_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pounce.systemd.units.is_booted", lambda: False)
    said = refusal("reload", "--all")
    assert "systemd does not run this machine" in said
    assert said.endswith("pounce reload --control PATH")


def test_what_a_service_that_has_ended_told_systemd_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\necho StatusText=Stopped: no connection for 10 min\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for words in (["status", "shop"], ["reload", "shop"], ["scale", "shop", "2"]):
        said = refusal(*words)
        assert said.endswith("\n  what it told systemd last: Stopped: no connection for 10 min")


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    assert "too long" in refusal("status", "--control", str(tmp_path / ("x" * 200)))


def test_nobody_listens_any_more(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert "Connection refused" in refusal("status", "--control", str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect to everything")
def test_another_users_service(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with answering(path, b""):
        path.chmod(0)
        assert "root and the service's user only" in refusal("status", "--control", str(path))


ANSWERS = {
    b"": "ended the connection without an answer",
    b"HTTP/1.1 400 Bad Request": "ended the connection without an answer",
    b"HTTP/1.1 400 Bad Request\0": "is not pounce's control socket",
    b'{"error": "org.varlink.service.MethodNotFound", "parameters": {"method": "x"}}\0': (
        "MethodNotFound"
    ),
    b'{"error": "a.b.Failed", "parameters": {"reason": "no luck"}}\0': "no luck",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_something_else_answers(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "control"
    with answering(path, answer):
        assert ANSWERS[answer] in refusal("reload", "--control", str(path))


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """A server that reads a call, says *answer* and hangs up."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()
