"""A throw-away machine with a real systemd, and the few verbs that tests need."""

import contextlib
import ctypes
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.systemd.rootfs import UnpreparedError

REPOSITORY = Path(__file__).parents[2]
APPLICATIONS = "/srv/apps"  # tests/apps, in the machine

T = TypeVar("T")
_PIPES: Any = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
    "text": True,
}
Result = subprocess.CompletedProcess[str]

# Runs in a mount namespace of its own, so that the kernel unmounts everything when it ends.
# The container's systemd gets a control group of its own: two in one would fight.
_BOOT = """
set -eu
root=$1 scratch=$2 cgroup=$3
echo $$ > "$cgroup/cgroup.procs"
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$scratch/upper,workdir=$scratch/work" \\
    "$scratch/root"
exec setpriv --pdeathsig KILL systemd-nspawn -D "$scratch/root" --register=no --keep-unit \\
    --private-network --boot --console=pipe --quiet
"""


class Machine:
    """A booted container; a context manager."""

    def __init__(self, root: Path) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix="pounce-machine-"))
        self._cgroup = control_groups() / self._scratch.name
        self._cgroup.mkdir()
        self._console = (self._scratch.with_suffix(".console")).open("w+")
        self._nspawn = self._boot(root)
        try:
            self.init = self.wait_until(self._find_init, 20, "nspawn to start an init")
            self.wait_until(self._is_running, 60, "systemd to be running")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Pull the plug: nothing in it is worth a shutdown."""
        (self._cgroup / "cgroup.kill").write_text("1")
        self._nspawn.wait(30)
        self._console.close()
        Path(self._console.name).unlink()
        self._scratch.rmdir()
        self.wait_until(self._remove_control_group, 30, "the container's processes to end")

    def _boot(self, root: Path) -> subprocess.Popen[bytes]:
        arguments = [str(root), str(self._scratch), str(self._cgroup)]
        private = ["unshare", "--mount", "--propagation", "private", "--"]
        return subprocess.Popen(
            [*private, "sh", "-c", _BOOT, "boot", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
            env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            start_new_session=True,
        )

    def _remove_control_group(self) -> bool:
        try:
            for directory, _, _ in os.walk(self._cgroup, topdown=False):
                Path(directory).rmdir()
        except OSError:  # busy while a process is left
            return False
        return True

    def _find_init(self) -> int | None:
        if self._nspawn.poll() is not None:
            self._console.seek(0)
            raise UnpreparedError(f"the container did not boot:\n{self._console.read()}")
        pid = self._nspawn.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return next((int(child) for child in children if _is_init(int(child))), None)

    def _is_running(self) -> bool:
        state = self.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip()
        if state == "degraded":
            failed = self.run("systemctl", "--failed", "--no-legend").stdout
            raise UnpreparedError(f"the container's systemd is degraded:\n{failed}")
        return state == "running"

    # -- running things and reaching files ------------------------------------------------

    def run(self, *command: str, check: bool = True, timeout: float = 60) -> Result:
        """Run *command* in the machine; a failure raises with all that it printed."""
        finished = subprocess.run(self._inside(command), **_PIPES, timeout=timeout, check=False)
        if check and finished.returncode:
            raise AssertionError(
                f"{' '.join(command)}: exit status {finished.returncode}\n"
                f"{finished.stdout}{finished.stderr}"
            )
        return finished

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start *command* in the machine and leave it running."""
        return subprocess.Popen(self._inside(command), **_PIPES)

    def in_network(self, *command: str) -> list[str]:
        """A command of the host's, so that it runs on the host but in the machine's network."""
        return ["nsenter", "-t", str(self.init), "--net", "--", *command]

    def _inside(self, command: tuple[str, ...]) -> list[str]:
        return ["nsenter", "-t", str(self.init), "--all", "--wdns=/", "--", *command]

    def path(self, path: str) -> Path:
        """The host's path of the machine's *path* (whose links must be relative)."""
        return Path(f"/proc/{self.init}/root") / path.lstrip("/")

    def write(self, path: str, text: str) -> None:
        """Write a file that everybody in the machine may read, with its directories."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def install(self, wheel: Path) -> None:
        """Install the built *wheel*, the repository's units and the tests' applications."""
        shutil.copy(wheel, self.path(f"/root/{wheel.name}"))
        # As a package would, not to /usr/local (Debian's sysconfig reads the variable).
        self.run(
            *("env", "DEB_PYTHON_INSTALL_LAYOUT=deb"),
            *("python3", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"),
            *("--break-system-packages", "--root-user-action=ignore", "--prefix=/usr"),
            f"/root/{wheel.name}",
        )
        for unit in (REPOSITORY / "units").iterdir():
            shutil.copy(unit, self.path("/usr/lib/systemd/system"))
        if self.systemd_version < 254:
            self.write(
                "/etc/systemd/system/pounce@.service.d/restart.conf",
                (REPOSITORY / "packaging/systemd-252/restart.conf").read_text(),
            )
        shutil.copytree(REPOSITORY / "tests/apps", self.path(APPLICATIONS), dirs_exist_ok=True)
        self.systemctl("daemon-reload")

    # -- systemd -----------------------------------------------------------------------------

    def reboot(self) -> None:
        """Stop everything and boot again; the init stays the same process (systemd 254)."""
        asked = ("show", "--value", "-p", "UserspaceTimestampMonotonic")
        before = self.systemctl(*asked).stdout
        patient = ("timeout", "5", "systemctl", *asked)
        self.systemctl("soft-reboot", "--no-block")
        self.wait_until(
            # While systemd executes itself anew, systemctl fails, or waits for an answer for ever.
            lambda: self.run(*patient, check=False).stdout not in ("", before),
            60,
            "the machine to boot again",
        )
        self.wait_until(self._is_running, 60, "systemd to be running again")

    def systemctl(self, *arguments: str, check: bool = True, timeout: float = 120) -> Result:
        """Run systemctl; where a start fails, the error shows the unit's journal."""
        finished = self.run("systemctl", *arguments, check=False, timeout=timeout)
        if check and finished.returncode:
            log = self.run("journalctl", "--no-pager", "--lines=60", check=False).stdout
            raise AssertionError(f"systemctl {' '.join(arguments)}\n{finished.stderr}\n{log}")
        return finished

    @cached_property
    def systemd_version(self) -> int:
        """systemd's version, as 257."""
        return int(self.run("systemctl", "--version").stdout.split()[1])

    def show(self, unit: str, name: str) -> str:
        """A unit's property, as text."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def journal(self, unit: str, *matches: str) -> list[dict[str, Any]]:
        """The unit's journal entries, oldest first; a field is text."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "-u", unit, "-o", "json", "--all", *matches).stdout
        return [_as_text(json.loads(line)) for line in lines.splitlines()]

    # -- clients -------------------------------------------------------------------------------

    def curl(self, target: str, *options: str, check: bool = True) -> Result:
        """GET ``http://host:port/path`` or ``unix:/socket:/path`` with the machine's curl."""
        if match := re.fullmatch(r"unix:([^:]+):(/.*)", target):
            options = (*options, "--unix-socket", match[1])
            target = f"http://localhost{match[2]}"
        return self.run("curl", "-sS", "--max-time", "30", *options, target, check=check)

    def connect(self, address: tuple[str, int] | str) -> socket.socket:
        """A client socket connected to a TCP or unix address of the machine."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        target = str(self.path(address)) if isinstance(address, str) else address
        with _network_of(self.init):
            sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(30)
        try:
            sock.connect(target)
        except OSError:
            sock.close()
            raise
        return sock

    @staticmethod
    def wait_until(condition: Callable[[], T | None], deadline: float, what: str) -> T:
        """Wait at most *deadline* seconds for *condition* to be true; returns its value."""
        end = time.monotonic() + deadline
        pause = threading.Event()
        while not (value := condition()):
            if time.monotonic() > end:
                raise AssertionError(f"waited {deadline} s in vain for {what}")
            pause.wait(0.05)
        return value


def build_wheel(directory: Path) -> Path:
    """Build pounce's wheel, from a copy: a build tree in the repository would go stale."""
    source = directory / "source"
    shutil.copytree(REPOSITORY / "service", source / "service")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", directory, source],
        check=True,
    )
    [wheel] = directory.glob("pounce-*.whl")
    return wheel


def _as_text(entry: dict[str, Any]) -> dict[str, Any]:
    """journalctl shows a value that is not printable UTF-8 as a list of bytes."""
    return {
        name: bytes(value).decode(errors="replace") if isinstance(value, list) else value
        for name, value in entry.items()
    }


def _is_init(pid: int) -> bool:
    """Whether the process is the first of a namespace, and not nspawn's helper on the way."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    return re.search(r"^NSpid:.*\t1$", status, re.MULTILINE) is not None


def control_groups() -> Path:
    """Where the host has the unified control group hierarchy."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise UnpreparedError("no cgroup2 file system is mounted")


@contextlib.contextmanager
def _network_of(pid: int) -> Iterator[None]:
    """Make sockets in the network of process *pid*: one belongs to where it was made."""
    with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{pid}/ns/net") as theirs:  # noqa: PTH123
        _set_namespace(theirs.fileno())
        try:
            yield
        finally:
            _set_namespace(ours.fileno())


def _set_namespace(descriptor: int) -> None:
    # os.setns is new in Python 3.12.
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000):  # CLONE_NEWNET
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
