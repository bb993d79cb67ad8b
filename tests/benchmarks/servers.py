"""The servers under test: their environment, how each is started, and what it uses."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import run
from tests.benchmarks.journal import journal
from tests.certificates import Authority
from tests.service import free_port

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
PACKAGES = (
    "uvicorn[standard]",
    "granian[uvloop]",
    "gunicorn",
    "hypercorn[uvloop]",
    "starlette",
    "fastapi",
    "flask",
    "websockets",
    "wsproto",
)
# aioquic does not fit a free-threaded interpreter.
HAS_HTTP3 = not run.VERSION.endswith("t")
THREADS = 8
CORES = len(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = 0, min(CORES, 3) - 1
"""One worker has a core of its own, and so has the client. Two workers have two cores where there
is a third for the client, or else share one: beside a client no caches would be their own."""

PATIENCE = 20.0

DESCRIPTORS = 16_384
"""Every server starts with this limit, so that none of them inherits what another row has set."""

_ESTABLISHED = "01"  # TCP_ESTABLISHED, <net/tcp_states.h>
_TICKS = os.sysconf("SC_CLK_TCK")

_LIMITED = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")
_POUNCE = "{python} -m pounce serve applications:app --directory {here} --bind 127.0.0.1:{port}"
_UVICORN = "{python} -m uvicorn applications:app --port {port} --loop uvloop --http httptools"
# As long as pounce's: thousands of idle connections are to be open at the same time.
_UVICORN += " --timeout-keep-alive 75"

# One worker, no access log, uvloop and the fastest parser, unless the name says otherwise.
COMMANDS = {
    "raw": "{python} raw.py {port}",
    "pounce": _POUNCE,
    "pounce, 2 workers": f"{_POUNCE} --workers 2",
    "pounce, log in a file": f"{_POUNCE} --access-log {{log}}",
    "pounce, log in the journal": f"{_POUNCE} --access-log on",
    "uvicorn": f"{_UVICORN} --log-level warning --no-access-log",
    "uvicorn, log in a file": f"{_UVICORN} --access-log",
    "uvicorn, log in the journal": f"{_UVICORN} --access-log",
    **{
        f"uvicorn, {name}": f"{_UVICORN} --log-level warning --no-access-log --ws {name}"
        for name in ("websockets", "websockets-sansio", "wsproto")
    },
    "granian": "{bin}/granian --interface asgi --loop uvloop --port {port} --workers 1"
    " --no-access-log applications:app",
    "gunicorn": "{python} -m gunicorn -k asgi --workers 1 --bind 127.0.0.1:{port} applications:app",
    "hypercorn": "{python} -m hypercorn -k uvloop --workers 1 --bind 127.0.0.1:{port}"
    " applications:app",
    "pounce, HTTP/3": f"{_POUNCE} --http3 --certificate {{certificate}} --key {{key}}",
    "hypercorn, HTTP/3": "{python} -m hypercorn -k uvloop --workers 1 --bind 127.0.0.1:{port}"
    " --quic-bind 127.0.0.1:{port} --certfile {certificate} --keyfile {key} applications:app",
    "pounce, wsgi": "{python} -m pounce serve blocking:app --directory {here} --threads {threads}"
    " --bind 127.0.0.1:{port}",
    "gunicorn gthread": "{python} -m gunicorn -k gthread --threads {threads} --workers 1"
    " --bind 127.0.0.1:{port} blocking:app",
    "granian, wsgi": "{bin}/granian --interface wsgi --blocking-threads {threads} --workers 1"
    " --port {port} --no-access-log blocking:app",
    "pounce, flask": "{python} -m pounce serve blocking:make_flask() --directory {here}"
    " --threads {threads} --bind 127.0.0.1:{port}",
    "gunicorn gthread, flask": "{python} -m gunicorn -k gthread --threads {threads} --workers 1"
    " --bind 127.0.0.1:{port} blocking:make_flask()",
    # Two threads each: the other one has one for each worker.
    "pounce, free-threaded": "{pounce_t} -m pounce serve raw_app:app --directory {here}"
    " --worker-mode thread --threads 2 --bind 127.0.0.1:{port}",
    "bengal-pounce": "{bengal_t} -m pounce serve --app raw_app:app --port {port} --workers 2"
    " --worker-mode sync --no-access-log --log-level error",
}


@dataclass(frozen=True)
class Interpreters:
    """Those of environments with pounce and its peers; *free_threaded* ones where there are any.

    The other pounce has the same name, and so an environment of its own.
    """

    python: Path
    free_threaded: Path | None = None
    bengal: Path | None = None


def environments() -> Interpreters:
    """Make those that are not there yet."""
    ours = ("--editable", str(PROJECT))
    packages = (*PACKAGES, "hypercorn[h3]") if HAS_HTTP3 else PACKAGES
    python = _environment(f"bench-{run.VERSION}", Path(sys.executable), *ours, *packages)
    free_threaded = run.free_threaded()
    if free_threaded is None:
        return Interpreters(python)
    return Interpreters(
        python,
        _environment("bench-3.14t", free_threaded, *ours),
        _environment("bench-3.14t-bengal", free_threaded, "bengal-pounce==0.9.2"),
    )


def _environment(name: str, interpreter: Path, *packages: str) -> Path:
    python = run.CACHE / name / "bin" / "python"
    if not python.exists():
        subprocess.run([interpreter, "-m", "venv", python.parent.parent], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


@dataclass(frozen=True)
class Server:
    """A running server; *python* has its packages, and *log* what it wrote."""

    name: str
    python: Path
    pid: int
    port: int
    log: Path

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def cpu(self) -> float:
        """Seconds of CPU time that all its processes have used so far."""
        return sum(_cpu(pid) for pid in _family(self.pid))

    def memory(self) -> int:
        """Bytes that all its processes take together: their proportional set sizes (PSS)."""
        return sum(_memory(pid) for pid in _family(self.pid))

    def worker_memory(self) -> int:
        """Bytes of its youngest process, a worker; processes share some of their memory."""
        return _memory(_family(self.pid)[-1])

    def open_connections(self) -> int:
        """How many clients are connected, as the server's side of the kernel counts them."""
        # proc_net_tcp(5): the second field is the local address, the fourth the state.
        lines = Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]
        sockets = (line.split() for line in lines)
        mine = f":{self.port:04X}"
        return sum(each[1].endswith(mine) and each[3] == _ESTABLISHED for each in sockets)

    def brought_the_gil(self) -> str | None:
        """The module that a free-threaded interpreter switched the GIL on for: it warns of that."""
        found = re.search(r"\(GIL\) has been enabled to load module '(.+?)'", self.log.read_text())
        return found[1] if found else None


@contextmanager
def serving(
    name: str, interpreters: Interpreters, directory: Path, source: Path | None = None
) -> Iterator[Server]:
    """Start the server *name* on its core; its output goes to a file in *directory*.

    *source* has the package that is imported instead of the installed one.
    """
    port = free_port()
    own = re.sub("[^a-z0-9]+", "-", name.lower())
    if "HTTP/3" in name:
        Authority().issue("localhost").write(directory, own)
    log = directory / f"{own}.log"
    command = _command(name, interpreters, port, log)
    two = name.endswith("2 workers") and CORES > 2
    cores = f"{SERVER_CORE},{SERVER_CORE + 1}" if two else str(SERVER_CORE)
    places = [source, HERE] if source else [HERE]
    environment = {**os.environ, "PYTHONPATH": ":".join(map(str, places))}
    with ExitStack() as stack:
        output: Any = stack.enter_context(log.open("wb"))
        if name.endswith("journal"):
            output, command, stream = stack.enter_context(journal(command, directory))
            environment["JOURNAL_STREAM"] = stream
        process = subprocess.Popen(
            [*_LIMITED, "taskset", "--cpu-list", cores, *command],
            cwd=HERE,
            env=environment,
            stdout=output,
            stderr=output,
        )
        stack.callback(_stop, process)
        _wait_until_it_accepts(process, port, log)
        yield Server(name, interpreters.python, process.pid, port, log)


def _command(name: str, interpreters: Interpreters, port: int, log: Path) -> list[str]:
    return (
        COMMANDS[name]
        .format(
            python=interpreters.python,
            bin=interpreters.python.parent,
            pounce_t=interpreters.free_threaded,
            bengal_t=interpreters.bengal,
            port=port,
            here=HERE,
            threads=THREADS,
            log=log.with_suffix(".access"),
            certificate=log.with_suffix(".pem"),
            key=log.with_suffix(".key"),
        )
        .split()
    )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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
