"""A unit that stands in for a service: it has its user and sandbox, and runs one command.

It is written to /run, from what `systemctl cat` shows, so that systemd reads the directives exactly
as it would for the service: for systemd-run(1), specifiers (%i) would have to be expanded and
lists put together here, and only known directives could be passed on. A new unit file needs no
daemon-reload.
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

from pounce.errors import ConfigError
from pounce.systemd.standin_directories import (
    PROPERTIES,
    absent_parents,
    remove,
    remove_empty,
    unready,
)

_RUN = Path("/run")
_UNITS = Path("/run/systemd/system")
_PREFIX = "pounce-check-"
_OUTPUT = ".output"
"""What the name of a check's own directory has behind the name of its unit."""
_PROPERTIES = ("LoadState", "NeedDaemonReload", "Slice", "FragmentPath", *PROPERTIES)
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

# What makes a service of the directives, beside its user, sandbox and resources.
_LEFT_OUT = re.compile(
    r"Exec(Condition|Start(Pre|Post)?|Reload(Post)?|Stop(Post)?)"
    r"|Restart.*|Timeout.*|Watchdog.*|FileDescriptorStore.*|Standard.*|TTY.*|Reload.*|Runtime.*Sec"
    r"|Type|ExitType|NotifyAccess|Sockets|PIDFile|BusName|RemainAfterExit|SuccessExitStatus"
    r"|RuntimeDirectory(Preserve)?|RefreshOnReload|NonBlocking|GuessMainPID"
)
_ASSIGNMENT = re.compile(r"(\w+)\s*=\s*(.*)", re.DOTALL)
_SPECIFIER = re.compile(r"%(.)")
_SERVE = re.compile(r"[-@:+!|]*(/\S+)\s+serve\b")

_UNIT = """\
[Unit]
Description={description}

[Service]
{directives}
Type=oneshot
# For a check that is killed, and so cannot end its unit; the next one does.
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
    """How the command ended, and what it wrote.

    *failure* says why there is no verdict, and *said* is what systemd has to say of it.
    """

    status: int
    stdout: str
    stderr: str
    failure: str = ""
    said: str = ""


class StandIn:
    """Stands in for *service*, whose section [Service] has *lines*; *properties* are as shown."""

    def __init__(self, service: str, lines: Sequence[str], properties: Mapping[str, str]) -> None:
        self.service = service
        self._properties = properties
        self._lines = [_named(line, service, properties) for line in lines]
        # The same instance, for %i; several may run at once.
        self._unit = f"{_PREFIX}{os.getpid()}@{service.partition('@')[2]}"
        self.placeholders = unready(properties)
        """The settings for whose directories empty ones take their place, with its own names."""

    @property
    def user(self) -> str:
        """The service's user, as far as it is named."""
        return self._properties.get("User") or "root"

    @property
    def program(self) -> str:
        """The pounce that the service runs; "" if it does not run one."""
        commands = [_value(line) for line in self._lines if _key(line) == "ExecStart"]
        match = _SERVE.match(commands[-1]) if commands else None
        return match[1] if match else ""

    @property
    def is_outdated(self) -> bool:
        """Whether files of the service have changed, or are new, since systemd read them."""
        return self._properties.get("NeedDaemonReload") == "yes"

    @property
    def _has_runtime_directory(self) -> bool:
        return any(_key(line) == "RuntimeDirectory" for line in self._lines)

    def run(self, command: Sequence[str], mark: str) -> Outcome:
        """Run *command* and wait for its end.

        The variable *mark* has in it the `identity` of the file that is its standard output: only
        this command has both.
        """
        with ending_in_order(), _place(self._unit) as output:
            stdout = output / "stdout"
            stdout.touch()
            marks = [f"{mark}={identity(stdout.stat())}", "PYTHONDONTWRITEBYTECODE=1"]
            with _started(self._unit, self._text(command, marks, output)) as complaint:
                return self._outcome(output, complaint)

    def _text(self, command: Sequence[str], marks: Sequence[str], output: Path) -> str:
        kept = [line for line in self._lines if _is_kept(line, self.placeholders)]
        own = [f"{name}={self._unit}" for name in self.placeholders]
        return _UNIT.format(
            description=f"Check of {self.service}",
            directives="\n".join([*kept, *own]),
            marks=" ".join(map(_quoted, marks)),
            slice=self._properties.get("Slice", ""),
            output=output,
            runtime=self._unit if self._has_runtime_directory else "",
            command=" ".join(map(_quoted, command)),
        )

    def _outcome(self, output: Path, complaint: str) -> Outcome:
        stdout, stderr = (_text(output / name) for name in ("stdout", "stderr"))
        if not complaint:  # systemd has forgotten the unit already
            return Outcome(0, stdout, stderr)
        names = ("Result", "ExecMainStatus", "ExecMainCode", "InvocationID")
        found = _shown(self._unit, names)
        status = int(found.get("ExecMainStatus") or 0)
        has_exited = found.get("ExecMainCode") == str(os.CLD_EXITED)
        # From 200 on, systemd's own steps before the program have failed (systemd.exec(5)).
        if has_exited and status < 200:
            return Outcome(status, stdout, stderr)
        invocation = found.get("InvocationID")
        said = _said(invocation) if invocation else ""
        failure = _why(found.get("Result", ""), found.get("ExecMainCode", ""), status)
        return Outcome(status, stdout, stderr, failure, said or complaint)


def _why(result: str, code: str, status: int) -> str:
    """How the command ended, or why it could not begin."""
    if result == "timeout":
        return "the check has not ended within 10 minutes"
    if code in (str(os.CLD_KILLED), str(os.CLD_DUMPED)):
        name = {each.value: each.name for each in signal.Signals}.get(status, f"signal {status}")
        return f"{name} ended the process that checks"
    if status >= 200:
        return f'status {status}; systemd.exec(5), "PROCESS EXIT CODES"'
    return "systemd could not start it" + (f": {result}" if result not in ("", "success") else "")


def stand_in(service: str) -> StandIn | None:
    """What stands in for *service*; None where no systemd runs that knows it.

    Raises ConfigError where it is masked.
    """
    if (
        not Path("/run/systemd/system").is_dir() or shutil.which("systemctl") is None
    ):  # sd_booted(3)
        return None
    properties = _shown(service, _PROPERTIES)
    if properties.get("LoadState") == "masked":
        masked = Path(properties.get("FragmentPath", "")).name or service  # or the template
        raise ConfigError(
            f"{service} is masked: systemd does not start it",
            hint=f"systemctl unmask {masked}, then check again",
        )
    lines = list(_service_lines(_systemctl("cat", service).stdout))
    return StandIn(service, lines, properties) if lines else None


def identity(found: os.stat_result) -> str:
    """What tells a file from all others of this machine, while there is one."""
    return f"{found.st_dev}:{found.st_ino}"


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


def _is_kept(line: str, placeholders: Sequence[str]) -> bool:
    key = _key(line)
    return not _LEFT_OUT.fullmatch(key) and key not in placeholders


def _named(line: str, service: str, properties: Mapping[str, str]) -> str:
    """*line* with the specifiers that stand for names of *service* (systemd.unit(5)).

    The others mean the same in a unit of the same instance.
    """
    stem = service.removesuffix(".service")
    prefix = stem.partition("@")[0]
    fragment = properties.get("FragmentPath", "")
    names = {"n": service, "N": stem, "y": fragment, "Y": os.path.dirname(fragment)}  # noqa: PTH120 - text
    names |= dict.fromkeys("pPjJ", prefix)
    return _SPECIFIER.sub(lambda found: _expanded(found, names), line)


def _expanded(found: re.Match[str], names: Mapping[str, str]) -> str:
    name = names.get(found[1])
    return found[0] if name is None else name.replace("%", "%%")


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
def _place(unit: str) -> Iterator[Path]:
    """A directory for what *unit* writes. Its lock tells other checks that this one goes on.

    Only root may open it, so nobody else can hold the lock.
    """
    _sweep()
    temporary = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=_RUN))
    place = _RUN / f"{unit}{_OUTPUT}"
    with _locked(temporary):
        temporary.rename(place)
        try:
            yield place
        finally:
            shutil.rmtree(place)


def _sweep() -> None:
    """Remove what checks have left that were killed: the kernel has taken their locks."""
    for place in _RUN.glob(f"{_PREFIX}*{_OUTPUT}"):
        with suppress(FileNotFoundError, BlockingIOError), _locked(place):
            _remove(place.name.removesuffix(_OUTPUT))
            shutil.rmtree(place)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _started(unit: str, text: str) -> Iterator[str]:
    """Write *unit*, start it and wait for its end; afterwards nothing is left of it.

    Gives the complaint of systemctl(1) where the start fails.
    """
    absent = absent_parents()
    try:
        (_UNITS / unit).write_text(text)
        start = _systemctl("start", unit)
        yield start.stderr.strip() or "no reason is given" if start.returncode else ""
    finally:
        _ignore_signals()
        _remove(unit)
        remove_empty(absent)


def _remove(unit: str) -> None:
    """Stop *unit*, and remove it with all that systemd has made for it."""
    _systemctl("stop", unit)
    _systemctl("reset-failed", unit)
    (_UNITS / unit).unlink(missing_ok=True)
    remove(unit)


def _systemctl(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """What systemctl(1) prints. Failures show in what follows, and in the unit's properties."""
    command = ["systemctl", "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def _shown(unit: str, names: Sequence[str]) -> dict[str, str]:
    """The properties *names* of *unit*, with their specifiers resolved."""
    lines = _systemctl("show", f"--property={','.join(names)}", unit).stdout.splitlines()
    return dict(line.partition("=")[::2] for line in lines)


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
