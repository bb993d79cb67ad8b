"""``pounce serve``: from a command line to an answered request and an exit code."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pounce.net.address import Address
from tests.service import APPS, Service, running

DEADLINE = 20.0  # seconds; every wait below ends far sooner

APPLICATION = """\
import os

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = os.environ["GREETING"].encode()
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})
"""


@contextmanager
def serving(
    directory: Path, *arguments: str
) -> Iterator[tuple[subprocess.Popen[bytes], tuple[str, int]]]:
    """Run ``pounce serve`` with a listener passed down, so that clients need not wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        command = [sys.executable, "-m", "pounce", "serve", *arguments, "--bind", f"fd:{fd}"]
        process = subprocess.Popen(
            command, cwd=directory, pass_fds=[fd], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            yield process, listener.getsockname()
        finally:
            process.kill()
            process.communicate()


def get(address: tuple[str, int]) -> bytes:
    with socket.create_connection(address, timeout=DEADLINE) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_requests_are_answered_until_it_is_told_to_stop(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    path = tmp_path / "shop.toml"
    path.write_text('app = "shop:app"\n[environment]\nGREETING = "hello"\n')
    with serving(Path("/"), "--config", str(path), "--directory", str(tmp_path)) as (process, at):
        assert get(at).endswith(b"\r\n\r\nhello")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0


def test_an_application_that_is_not_there(tmp_path: Path) -> None:
    with serving(tmp_path, "gone:app") as (process, _):
        output, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 70
        assert b"there is no module 'gone'" in output


def test_systemd_is_not_taken_for_another_server(tmp_path: Path) -> None:
    """Where it has passed its socket to a wrapper."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "{}:{}".format(*listener.getsockname())
        done = subprocess.run(
            [sys.executable, "-m", "pounce", "serve", "shop:app", "--bind", address],
            cwd=tmp_path,
            env={**os.environ, "LISTEN_PID": "1", "LISTEN_FDS": "1"},
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert done.returncode == 71
    assert "Address already in use\n  systemd listens there if the socket unit" in done.stderr


def test_an_abstract_socket(tmp_path: Path) -> None:
    address = f"unix:@{tmp_path}"
    command = [sys.executable, "-m", "pounce", "serve", "mirror:app", "--directory", str(APPS)]
    command += ["--bind", address]
    with running(command, tmp_path / "log") as process:
        service = Service(process, Address.parse(address), tmp_path / "log")
        service.expect("generation 1 serves")
        assert f"listening on {address}\n" in service.log
        with service.connect() as wire:
            assert json.loads(wire.get("/").body)["server"] == [f"@{tmp_path}", None]
        second = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE, check=False
        )
    assert second.returncode == 71
    assert f"cannot listen on {address}: Address already in use".encode() in second.stdout
