"""The servers under test: their environment, how each is started, and what it uses."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
PACKAGES = ("uvicorn[standard]", "granian[uvloop]", "gunicorn", "hypercorn[uvloop]", "starlette")
SERVER_CORE, CLIENT_CORE = 0, 1
PATIENCE = 20.0

_TICKS = os.sysconf("SC_CLK_TCK")

# One worker, no access log, uvloop and the fastest parser where there is a choice.
COMMANDS = {
    "raw": "{python} raw.py {port}",
    "pounce": "{python} -m pounce serve applications:app --directory {here}"
    " --bind 127.0.0.1:{port}",
    "uvicorn": "{python} -m uvicorn applications:app --port {port} --loop uvloop --http httptools"
    " --log-level warning --no-access-log",
    "granian": "{bin}/granian --interface asgi --loop uvloop --port {port} --workers 1"
    " --no-access-log applications:app",
    "gunicorn": "{python} -m gunicorn -k asgi --workers 1 --bind 127.0.0.1:{port} applications:app",
    "hypercorn": "{python} -m hypercorn -k uvloop --workers 1 --bind 127.0.0.1:{port}"
    " applications:app",
    "pounce, logging": "{python} -m pounce serve applications:app --directory {here}"
    " --bind 127.0.0.1:{port} --access-log {log}",
    "uvicorn, logging": "{python} -m uvicorn applications:app --port {port} --loop uvloop"
    " --http httptools --access-log",
}


def environment() -> Path:
    """The interpreter of an environment with pounce and its peers; made where there is none."""
    cache = Path(os.environ.get("POUNCE_TEST_CACHE", Path.home() / ".cache" / "pounce"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = cache / f"bench-{version}" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--editable", str(PROJECT)]
    subprocess.run([*install, *PACKAGES], check=True)
    return python


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    pid: int
    port: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def cpu(self) -> float:
        """Seconds of CPU time that all its processes have used so far."""
        return sum(_cpu(pid) for pid in _family(self.pid))

    def memory(self) -> int:
        """Bytes of the worker: the proportional set size of its largest process."""
        return max(_memory(pid) for pid in _family(self.pid))


@contextmanager
def serving(name: str, python: Path, directory: Path) -> Iterator[Server]:
    """Start the server *name* on its core; its output goes to a file in *directory*."""
    port = _free_port()
    log = directory / f"{name.replace(', ', '-')}.log"
    command = COMMANDS[name].format(
        python=python, bin=python.parent, port=port, here=HERE, log=log.with_suffix(".access")
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(SERVER_CORE), *command.split()],
            cwd=HERE,
            stdout=output,
            stderr=output,
        )
    try:
        _wait_until_it_accepts(process, port, log)
        yield Server(name, process.pid, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def _wait_until_it_accepts(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it does not serve:\n{log.read_text()}") from None
            time.sleep(0.05)
        else:
            return


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in _family(int(child)))]


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
