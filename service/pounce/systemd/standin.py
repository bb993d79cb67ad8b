"""A unit that stands in for a service: it has its user and sandbox, and runs one command.

It is written to /run, from what `systemctl cat` shows, so that systemd reads the directives exactly
as it would for the service: for systemd-run(1), specifiers (%i) would have to be expanded and
lists put together here, and only known directives could be passed on. A new unit file needs no
daemon-reload.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

_UNITS = Path("/run/systemd/system")
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

# What makes a service of the directives, beside its user, sandbox and resources.
_LEFT_OUT = re.compile(
    r"Exec(Condition|Start(Pre|Post)?|Reload(Post)?|Stop(Post)?)"
    r"|Restart.*|Timeout.*|Watchdog.*|FileDescriptorStore.*|Standard.*|TTY.*|Reload.*|Runtime.*Sec"
    r"|Type|ExitType|NotifyAccess|Sockets|PIDFile|BusName|RemainAfterExit|SuccessExitStatus"
    r"|RuntimeDirectory(Preserve)?|RefreshOnReload|NonBlocking|GuessMainPID"
)
_ASSIGNMENT = re.compile(r"(\w+)\s*=\s*(.*)", re.DOTALL)
_SERVE = re.compile(r"[-@:+!|]*(/\S+)\s+serve\b")

_UNIT = """\
[Unit]
Description={description}

[Service]
{directives}
Type=oneshot
# For a check that is killed, and so cannot end its unit.
TimeoutStartSec=10min
# Otherwise a slice would be made for the name of this unit, and stay.
Slice={slice}
Environment={marks}
# The service's own is removed with the unit that it is of, and the service may be running.
RuntimeDirectory={runtime}
StandardInput=null
StandardOutput=file:{output}/stdout
StandardError=file:{output}/stderr
ExecStart={command}
"""


class Outcome(NamedTuple):
    """How the command ended, and what it wrote; *failure* is why systemd could not even run it."""

    status: int
    stdout: str
    stderr: str
    failure: str = ""


class StandIn:
    """Stands in for *service*, a unit with the directives *lines* of its section [Service]."""

    def __init__(self, service: str, lines: Sequence[str]) -> None:
        self.service = service
        self._lines = lines
        # The same instance, for %i; several may run at once.
        self._unit = f"pounce-check-{os.getpid()}@{service.partition('@')[2]}"

    @property
    def user(self) -> str:
        """The service's user, as far as it is named."""
        return self._property("User") or "root"

    @property
    def program(self) -> str:
        """The pounce that the service runs; "" if it does not run one."""
        commands = [_value(line) for line in self._lines if _key(line) == "ExecStart"]
        match = _SERVE.match(commands[-1]) if commands else None
        return match[1] if match else ""

    @property
    def is_outdated(self) -> bool:
        """Whether files of the service have changed, or are new, since systemd read them."""
        return self._property("NeedDaemonReload") == "yes"

    def _property(self, name: str) -> str:
        return _systemctl("show", "--value", f"--property={name}", self.service).strip()

    @property
    def _has_runtime_directory(self) -> bool:
        return any(_key(line) == "RuntimeDirectory" for line in self._lines)

    def run(self, command: Sequence[str], marks: Sequence[str]) -> Outcome:
        """Run *command*, with *marks* (NAME=value) in its environment, and wait for its end."""
        with (
            ending_in_order(),
            tempfile.TemporaryDirectory(prefix="pounce-check-", dir="/run") as directory,
        ):
            output = Path(directory)
            text = _UNIT.format(
                description=f"Check of {self.service}",
                directives="\n".join(each for each in self._lines if _is_kept(each)),
                marks=" ".join(map(_quoted, marks)),
                slice=self._property("Slice"),
                output=output,
                runtime=self._unit if self._has_runtime_directory else "",
                command=" ".join(map(_quoted, command)),
            )
            with _started(self._unit, text):
                return self._outcome(output)

    def _outcome(self, output: Path) -> Outcome:
        stdout, stderr = (_text(output / name) for name in ("stdout", "stderr"))
        shown = _systemctl(
            "show", "--property=Result,ExecMainStatus,ExecMainCode,InvocationID", self._unit
        )
        found = dict(line.partition("=")[::2] for line in shown.splitlines())
        status = int(found.get("ExecMainStatus") or 0)
        is_exit = found.get("ExecMainCode") == "1"  # CLD_EXITED, waitid(2)
        # From 200 on, systemd's own steps before the program have failed (systemd.exec(5)).
        if found.get("Result") == "success" or (is_exit and status < 200):
            return Outcome(status, stdout, stderr)
        return Outcome(status, stdout, stderr, _said(found.get("InvocationID", "")))


def stand_in(service: str) -> StandIn | None:
    """What stands in for *service*; None where no systemd runs that knows it."""
    if (
        not Path("/run/systemd/system").is_dir() or shutil.which("systemctl") is None
    ):  # sd_booted(3)
        return None
    lines = list(_service_lines(_systemctl("cat", service)))
    return StandIn(service, lines) if lines else None


def _service_lines(text: str) -> Iterator[str]:
    """The assignments in each [Service] section of a unit's files (systemd.syntax(7))."""
    section, begun = "", ""
    for line in text.splitlines():
        if line.lstrip().startswith(("#", ";")):
            continue
        begun += line
        if begun.endswith("\\"):
            begun = begun[:-1] + " "
            continue
        whole, begun = begun.strip(), ""
        if whole.startswith("["):
            section = whole
        elif section == "[Service]" and _ASSIGNMENT.match(whole):
            yield whole


def _key(line: str) -> str:
    return line.partition("=")[0].strip()


def _value(line: str) -> str:
    return line.partition("=")[2].strip()


def _is_kept(line: str) -> bool:
    return not _LEFT_OUT.fullmatch(_key(line))


def _quoted(word: str) -> str:
    """*word* as a unit has it: in quotes, with specifiers and variables switched off."""
    for special, ordinary in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(special, ordinary)
    return f'"{word}"'


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Have signals that end a process raise an exception, once: what was made is removed.

    What is ignored, as a hangup by nohup(1), stays so.
    """

    def end(number: int, _: FrameType | None) -> NoReturn:
        _ignore_signals()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    heard = [each for each in _ENDING if signal.getsignal(each) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _started(unit: str, text: str) -> Iterator[None]:
    """Write *unit*, start it and wait for its end; afterwards nothing is left of it."""
    path = _UNITS / unit
    try:
        path.write_text(text)
        _systemctl("start", unit)
        yield
    finally:
        _ignore_signals()
        _systemctl("stop", unit)
        _systemctl("reset-failed", unit)
        path.unlink(missing_ok=True)


def _systemctl(*arguments: str) -> str:
    """What systemctl(1) prints. Failures show in what follows, and in the unit's properties."""
    command = ["systemctl", "--no-pager", "--quiet", *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return finished.stdout


def _said(invocation: str) -> str:
    """What systemd has logged of a start that failed, an entry a line."""
    # systemd's own entries have the first field, those of the unit's processes the other.
    matches = [f"INVOCATION_ID={invocation}", "+", f"_SYSTEMD_INVOCATION_ID={invocation}"]
    command = ["journalctl", "--no-pager", "--quiet", "--output=cat", "--lines=10", *matches]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return finished.stdout.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="backslashreplace")
    except FileNotFoundError:  # it did not come that far
        return ""
