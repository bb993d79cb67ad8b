"""Loads: wrk on a core of its own, and idle connections."""

import re
import resource
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.servers import CLIENT_CORE, Server

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Load:
    """What wrk sends: to *path*, on so many *connections*, as its *script* (Lua) says."""

    path: str = "/hello"
    connections: int = 32
    script: str = ""


@dataclass(frozen=True)
class Sample:
    """One run: requests a second, a second of CPU time, and the 99th percentile in seconds."""

    rate: float
    rate_per_cpu: float
    p99: float


def run(load: Load, server: Server, seconds: float, directory: Path) -> Sample:
    """Load *server* for so many *seconds*; raises RuntimeError if anything went wrong."""
    script = directory / "wrk.lua"
    script.write_text(load.script)
    command = ["taskset", "--cpu-list", str(CLIENT_CORE), "wrk", "--latency", "--threads", "1"]
    command += ["--connections", str(load.connections), "--duration", f"{seconds:g}s"]
    before = server.cpu()
    output = subprocess.run(
        [*command, "--script", script, server.url(load.path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    used = max(server.cpu() - before, 0.01)
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"{server.name}, {load.path}: {output}")
    requests = int(_found(r"(\d+) requests in", output)[1])
    p99 = _found(r"99%\s+([\d.]+)(us|ms|s)", output)
    rate = float(_found(r"Requests/sec:\s+([\d.]+)", output)[1])
    return Sample(rate, requests / used, float(p99[1]) * _UNITS[p99[2]])


@contextmanager
def idle_connections(server: Server, count: int) -> Iterator[None]:
    """Hold *count* connections open that have had one response each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 1000), hard))
    with ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            sock.sendall(b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            received = b""
            while not received.endswith(b"Hello, world!"):
                received += sock.recv(4096)
        yield


def _found(pattern: str, text: str) -> re.Match[str]:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"wrk says: {text}")
    return match
