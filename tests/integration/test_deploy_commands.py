"""The commands of `[deploy] before`: when they run, and what follows when they fail."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.modes import both_modes
from tests.service import APPS, PYTHON, Service, launched, wait_until

FOREVER = "sh -c 'echo begun; trap : TERM INT HUP; while :; do sleep 60 & wait; done'"
"""It says that it has begun, and ignores every polite request to end."""


@contextmanager
def running(
    directory: Path, *commands: str, flags: tuple[str, ...] = (), mode: str = "process"
) -> Iterator[Service]:
    """A service whose first generation begins with *commands*, in a file that may be edited."""
    flags = ("--worker-mode", mode, *flags)
    with launched(directory, *flags, entry=table(commands)) as service:
        yield service


def prepare(directory: Path, *commands: str) -> None:
    """Have the next generation begin with *commands* instead."""
    file = directory / "service.toml"
    file.write_text(file.read_text().partition("[deploy]")[0] + table(commands))


def table(commands: tuple[str, ...]) -> str:
    return f"[deploy]\nbefore = {json.dumps(commands)}"


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def status(control: Path) -> str:
    """What `pounce status` prints."""
    command = [str(PYTHON), "-m", "pounce", "status", "--control", str(control)]
    return subprocess.check_output(command, text=True, timeout=20)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; what nobody has waited for yet counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


@both_modes
def test_they_run_in_order_once_for_each_generation(tmp_path: Path, mode: str) -> None:
    ran = tmp_path / "ran"
    commands = (f"sh -c 'echo one >> {ran}'", f"sh -c 'echo two; echo two >> {ran}'")
    with running(tmp_path, *commands, mode=mode, flags=("--workers", "2")) as service:
        service.expect("generation 1 serves")
        assert lines(ran) == ["one", "two"]
        assert service.log.index("running \"sh -c 'echo two") < service.log.index("is ready")
        service.reload(2)
        assert lines(ran) == ["one", "two"] * 2
        if mode == "process":
            victim = service.workers["0"]
            os.kill(victim, signal.SIGKILL)
            service.expect_worker("0", other_than=victim)
        assert lines(ran) == ["one", "two"] * 2


def test_what_they_find(tmp_path: Path) -> None:
    """Directory, environment and programs are the application's; signals are as at first."""
    script = (
        "import json, os, signal, sys; print(json.dumps([os.getcwd(), os.environ['GREETING'],"
        "sys.prefix, os.environ['PATH'].split(':')[0], sys.stdin.read(),"
        "[n for n in range(1, 32) if n not in (9, 19) and signal.getsignal(n) is None],"
        "sorted(set(os.listdir('/proc/self/fd')) - {'0', '1', '2'})]))"
    )
    name = Path(sys.executable).name
    commands = (f"{name} -c {json.dumps(script)}",)
    with running(tmp_path, *commands, flags=("--env", "GREETING=good day")) as service:
        found = json.loads(service.expect(r'INFO +(\["/.*\])$').group(1))
    directory, greeting, prefix, first, stdin, strange, descriptors = found
    assert (directory, greeting, prefix) == (str(APPS), "good day", sys.prefix)
    assert (first, stdin, strange) == (f"{sys.prefix}/bin", "", [])
    assert len(descriptors) == 1  # the one by which it reads its own list


@both_modes
def test_a_start_fails_with_its_command(tmp_path: Path, mode: str) -> None:
    commands = ("sh -c 'echo no database >&2; exit 3'", f"sh -c 'echo more > {tmp_path}/more'")
    with running(tmp_path, *commands, mode=mode) as service:
        assert service.wait() == 70
    assert "[deploy] before: 'sh': it exited with status 3\n" in service.log
    assert "\n  the command is sh -c 'echo no database >&2; exit 3'\n" in service.log
    assert "\n  the last line of its output is: no database" in service.log
    assert not (tmp_path / "more").exists()


@both_modes
def test_a_reload_fails_with_its_command_and_the_old_code_goes_on(
    tmp_path: Path, mode: str
) -> None:
    control = tmp_path / "control"
    with running(tmp_path, mode=mode, flags=("--control", str(control))) as service:
        service.expect("generation 1 serves")
        prepare(tmp_path, "sh -c 'kill -9 $$'")
        command = [str(PYTHON), "-m", "pounce", "reload", "--control", str(control)]
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert outcome.returncode == 1
        assert "generation 2 did not start: [deploy] before: " in outcome.stderr
        assert "it was killed by SIGKILL" in outcome.stderr
        with service.connect() as wire:
            assert wire.get("/").headers[b"x-served-by"].startswith(b"1 ")
        prepare(tmp_path, "true")
        service.reload(3)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("no-such-program", "there is no program 'no-such-program'"),
        ("./load.py", "load.py is not executable"),
    ],
)
def test_a_program_that_cannot_be_run(tmp_path: Path, command: str, reason: str) -> None:
    with running(tmp_path, command) as service:
        assert service.wait() == 70
    assert f"it cannot be run: {reason}" in service.log.replace(f"{APPS}/", "")


def test_they_all_have_startup_timeout_and_end_with_what_they_have_started(
    tmp_path: Path,
) -> None:
    child = tmp_path / "child"
    stubborn = f"sh -c 'sleep 1000 & echo $! > {child}; trap : TERM; wait; wait'"
    flags = ("--startup-timeout", "1")
    with running(tmp_path, "true", stubborn, flags=flags) as service:
        assert service.wait(30) == 70
    assert "it had not ended 1 s after the first command began (startup_timeout)" in service.log
    assert is_gone(int(child.read_text()))


def test_what_they_leave_in_the_background_ends_with_them(tmp_path: Path) -> None:
    child = tmp_path / "child"
    with running(tmp_path, f"sh -c 'sleep 1000 & echo $! > {child}'") as service:
        service.expect("generation 1 serves")
        wait_until(lambda: is_gone(int(child.read_text())), "the end of what was left")


@both_modes
def test_a_stop_ends_a_command(tmp_path: Path, mode: str) -> None:
    with running(tmp_path, "sh -c 'echo begun; exec sleep 1000'", mode=mode) as service:
        service.expect("begun$")
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0
    assert "'sh': the service is stopping; it was killed by SIGTERM\n" in service.log
    assert "Traceback" not in service.log
    assert " ERROR " not in service.log


def test_a_second_signal_kills_a_command_that_ignores_the_first(tmp_path: Path) -> None:
    with running(tmp_path, FOREVER) as service:
        service.expect("begun$")
        service.send_signal(signal.SIGTERM)
        service.expect("stopping")
        service.send_signal(signal.SIGTERM)
        assert service.wait(4.0) == 0
    assert "the service is stopping; it was killed by SIGKILL" in service.log


@both_modes
def test_pounce_status_names_the_command_that_runs(tmp_path: Path, mode: str) -> None:
    control, go = tmp_path / "control", tmp_path / "go"
    wait = f"sh -c 'echo begun; until [ -e {go} ]; do sleep 0.05; done'"
    with running(tmp_path, wait, mode=mode, flags=("--control", str(control))) as service:
        service.expect("begun$")
        said = status(control)
        assert f"generation 1 waits for the command {wait!r}" in said.splitlines()
        go.touch()
        service.expect("generation 1 serves")
        assert "waits for" not in status(control)


@both_modes
def test_the_old_code_serves_and_workers_are_replaced_meanwhile(tmp_path: Path, mode: str) -> None:
    go = tmp_path / "go"
    with running(tmp_path, mode=mode) as service:
        service.expect("generation 1 serves")
        prepare(tmp_path, f"sh -c 'echo begun; until [ -e {go} ]; do sleep 0.05; done'")
        service.send_signal(signal.SIGHUP)
        service.expect("begun$")
        with service.connect() as wire:
            assert wire.get("/").headers[b"x-served-by"].startswith(b"1 ")
        if mode == "process":
            victim = service.workers["0"]
            os.kill(victim, signal.SIGKILL)
            newcomer = service.expect_worker("0", other_than=victim)
            # What hears the command is not the new worker's.
            mine = {each.readlink() for each in Path(f"/proc/{newcomer}/fd").iterdir()}
            command = int(subprocess.check_output(["pgrep", "-f", f"until.*{go}"]).split()[0])
            assert Path(f"/proc/{command}/fd/1").readlink() not in mine
        go.touch()
        service.expect("generation 2 has taken over")


def test_their_output_is_logged_line_by_line_whatever_the_level(tmp_path: Path) -> None:
    text = r"printf 'one\ntwo\xff\n\nno end'; head -c 40000 /dev/zero | tr '\0' x"
    flags = ("--log-level", "error", "--log-format", "json")
    with running(tmp_path, f"sh -c {json.dumps(text)}", "true", flags=flags) as service:
        with service.connect() as wire:
            wire.get("/")
        records = [json.loads(each) for each in service.log.splitlines()]
    said = [each for each in records if each["logger"] == "pounce.deploy"]
    messages = [each["message"] for each in said]
    assert messages[:3] == ["one", r"two\xff", ""]
    assert "".join(messages[3:]) == "no end" + "x" * 40000
    assert len(messages) == 6
    assert {each["pounce_generation"] for each in said} == {1}


def test_a_flood_of_output_keeps_nobody_from_stopping_the_service(tmp_path: Path) -> None:
    with running(tmp_path, "yes") as service:
        service.expect("^.* y$")
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0


def test_a_signal_that_the_parent_ignores_does_not_hide_a_failure(tmp_path: Path) -> None:
    """With SIGCHLD ignored, the kernel would keep no exit status (wait(2))."""
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with running(tmp_path, "false") as service:
            service.expect("exited with status 1")
    finally:
        signal.signal(signal.SIGCHLD, old)


def test_each_restart_of_workers_runs_them(tmp_path: Path) -> None:
    """Also of a program that embeds pounce."""
    ran = tmp_path / "ran"
    script = f"""\
import socket, threading
from pounce import Deploy, ServerConfig, Supervisor

async def app(scope, receive, send): ...

config = ServerConfig(lifespan="off", deploy=Deploy(before=("sh -c 'echo x >> {ran}'",)))
supervisor = Supervisor(config, app)

def restart():
    supervisor.restart_workers()
    supervisor.shutdown()

threading.Timer(0.0, restart).start()
with socket.create_server(("127.0.0.1", 0)) as listener:
    supervisor.run([listener])
"""
    subprocess.run([str(PYTHON), "-c", script], check=True, timeout=30)
    assert lines(ran) == ["x", "x"]
