"""Loads: wrk or a WebSocket client on a core of its own, and idle connections."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.servers import CLIENT_CORE, HERE, Server

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Sample:
    """One run: requests a second, a second of CPU time, and the 99th percentile in seconds."""

    rate: float
    rate_per_cpu: float
    p99: float


@dataclass(frozen=True)
class Load:
    """What wrk sends: to *path*, on so many *connections*, as its *script* (Lua) says."""

    path: str = "/hello"
    connections: int = 32
    script: str = ""

    def run(self, server: Server, seconds: int, directory: Path) -> Sample:
        """Load *server* for so many *seconds*; raises RuntimeError if anything went wrong."""
        script = directory / "wrk.lua"
        script.write_text(self.script)
        command = ["wrk", "--latency", "--threads", "1", "--connections", str(self.connections)]
        command += ["--duration", f"{seconds}s", "--timeout", "20s", "--script", str(script)]
        used, output = _run([*command, server.url(self.path)], server)
        if "Non-2xx" in output or "Socket errors" in output:
            raise RuntimeError(f"{server.name}, {self.path}: {output}")
        requests = int(_found(r"(\d+) requests in", output)[1])
        p99 = _found(r"99%\s+([\d.]+)(us|ms|s)", output)
        rate = float(_found(r"Requests/sec:\s+([\d.]+)", output)[1])
        return Sample(rate, requests / used, float(p99[1]) * _UNITS[p99[2]])


@dataclass(frozen=True)
class Echo:
    """WebSocket messages of *size* bytes, each the answer to the last one's echo."""

    connections: int = 32
    size: int = 64

    def run(self, server: Server, seconds: int, directory: Path) -> Sample:
        """Load *server* for so many *seconds*; the latency is not measured."""
        arguments = [server.port, self.connections, seconds, self.size]
        # What started with the connections is little beside what is echoed.
        used, output = _run(
            [sys.executable, str(HERE / "websocket_client.py"), *map(str, arguments)], server
        )
        echoes, took = map(float, output.split())
        return Sample(echoes / took, echoes / used, 0.0)


@dataclass(frozen=True)
class HTTP3:
    """Requests over HTTP/3 for *path*, one after the other on each of so many *connections*."""

    path: str = "/hello"
    connections: int = 10

    def run(self, server: Server, seconds: int, directory: Path) -> Sample:
        """Load *server* for so many *seconds*; the latency is not measured."""
        arguments = [server.port, self.path, self.connections, seconds]
        # The server's Python has aioquic; this one need not.
        used, output = _run(
            [str(server.python), str(HERE / "http3_client.py"), *map(str, arguments)], server
        )
        responses, _, took = map(float, output.split())
        return Sample(responses / took, responses / used, 0.0)


def _run(command: list[str], server: Server) -> tuple[float, str]:
    """Run a client; returns the CPU time that *server* used meanwhile, and the client's output.

    Raises RuntimeError with what client and server have said if the client fails.
    """
    before = server.cpu()
    client = subprocess.run(
        ["taskset", "--cpu-list", str(CLIENT_CORE), *command],
        check=False,
        capture_output=True,
        text=True,
    )
    if client.returncode:
        raise RuntimeError(f"{server.name}: {client.stderr}\n{server.log.read_text()}")
    return max(server.cpu() - before, 0.01), client.stdout


@contextmanager
def idle_connections(server: Server, count: int) -> Iterator[None]:
    """Hold *count* connections open that have had one response each.

    Raises RuntimeError where the server has not all of them at the beginning and at the end.
    """
    with ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            sock.sendall(b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            received = b""
            while not received.endswith(b"Hello, world!"):
                received += sock.recv(4096)
        _demand(count, server)
        yield
        _demand(count, server)


def _demand(count: int, server: Server) -> None:
    if (seen := server.open_connections()) != count:
        raise RuntimeError(f"{server.name} has {seen} connections open where there are {count}")


def _found(pattern: str, text: str) -> re.Match[str]:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"wrk says: {text}")
    return match
