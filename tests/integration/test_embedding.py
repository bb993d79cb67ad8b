"""pounce inside a program: in both modes, from the main thread or another, and in a test."""

import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

import pounce
from pounce.application.types import Receive, Scope, Send
from pounce.net.address import Address
from tests.certificates import Authority
from tests.modes import both_modes
from tests.service import Wire, wait_until
from tests.supervised import PATIENCE, supervised


class Application:
    """Says how often its lifespan has begun, in the process that answers."""

    def __init__(self, fails: str = "") -> None:
        self.begun = 0
        self.ended = 0
        self._fails = fails

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % self.begun})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        if self._fails:
            await send({"type": "lifespan.startup.failed", "message": self._fails})
            return
        self.begun += 1
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.ended += 1
        await send({"type": "lifespan.shutdown.complete"})


# Applications that block


def blocking(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"blocking"]


class Raw:
    """Answers all but ``/left``."""

    def handle_sync(self, request: pounce.RawRequest) -> pounce.RawResponse | None:
        return None if request.path == b"/left" else pounce.RawResponse(200, (), b"raw")


def test_applications_that_block_are_served() -> None:
    with pounce.serving(blocking, threads=2) as site:
        assert httpx.get(site.url).text == "blocking"
        site.reload()
        assert httpx.get(site.url).text == "blocking"
    with pounce.serving(Raw(), threads=2) as site:
        assert httpx.get(site.url).text == "raw"
        assert httpx.get(f"{site.url}/left").status_code == 404


@both_modes
def test_a_sync_app_stands_before_an_application(mode: Any) -> None:
    config = pounce.ServerConfig(threads=2)
    supervisor = pounce.Supervisor(config, Application(), mode=mode, sync_app=Raw())
    with socket.create_server(("127.0.0.1", 0)) as listener, supervised(supervisor, listener):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert httpx.get(url, timeout=PATIENCE).text == "raw"
        assert httpx.get(f"{url}/left", timeout=PATIENCE).text == "1"


# In a context


def test_an_object_is_served_while_the_context_lasts() -> None:
    application = Application()
    with pounce.serving(application, workers=2) as site:
        assert httpx.get(site.url).text == "1"
        site.reload()
        assert httpx.get(site.url).text == "2"
    assert application.ended == application.begun
    with pytest.raises(httpx.ConnectError):
        httpx.get(site.url)


def test_processes_share_the_object_as_it_was() -> None:
    application = Application()
    with pounce.serving(application, worker_mode="process", workers=2) as site:
        assert httpx.get(site.url).text == "1"
        site.reload()
        assert httpx.get(site.url).text == "1"
    assert application.begun == 0


def test_several_addresses(tmp_path: Path) -> None:
    unix = f"unix:{tmp_path / 's'}"
    with pounce.serving(Application(), bind=["127.0.0.1:0", unix]) as site:
        assert site.addresses == (site.url, unix)
        transport = httpx.HTTPTransport(uds=str(tmp_path / "s"))
        with httpx.Client(transport=transport) as client:
            assert client.get("http://localhost/").text == "1"


def test_an_entry_with_a_certificate_is_served_with_tls(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1").write(tmp_path, "site")
    entry = {"address": "127.0.0.1:0", "certificate": str(certificate), "key": str(key)}
    trust = ssl.create_default_context(cafile=authority.write(tmp_path))
    with pounce.serving(Application(), listen=[entry]) as site:
        assert site.url.startswith("https://127.0.0.1:")
        assert httpx.get(site.url, verify=trust).text == "1"
        other = Authority("Another")
        other.issue("127.0.0.1").write(tmp_path, "site")
        site.reload()
        renewed = ssl.create_default_context(cafile=other.write(tmp_path, "another"))
        assert httpx.get(site.url, verify=renewed).status_code == 200


def test_a_path_is_imported_and_the_programs_own_modules_stay() -> None:
    before = sys.modules["tests.service"]
    with pounce.serving("tests.apps.load:app") as site:
        assert httpx.get(site.url).status_code == 200
        site.reload()
        assert httpx.get(site.url).headers["x-served-by"].startswith("2 ")
    assert sys.modules["tests.service"] is before


def test_a_start_that_fails_is_told() -> None:
    with pytest.raises(pounce.PounceError, match="no database"):
        enter(pounce.serving(Application(fails="no database")))


def test_descriptors_that_run_out_are_told() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 64, hard)
    )
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(8):  # enough to listen, and too few to serve
            os.close(taken.pop())
        with pytest.raises(OSError, match="Too many open files"):
            enter(pounce.serving(Application()))
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_wrong_options_are_told() -> None:
    with pytest.raises(pounce.PounceError, match=r"listen\[0\]\.address: .*\nworkers: found -1"):
        enter(pounce.serving(Application(), bind="localhost", workers=-1))


def enter(context: Any) -> None:
    with context:
        pytest.fail("it serves")


# In a test


def test_a_fixture_serves(pounce_serve: Callable[..., pounce.Site]) -> None:
    one, two = pounce_serve(Application()), pounce_serve(Application())
    assert one.url != two.url
    assert [httpx.get(site.url).text for site in (one, two)] == ["1", "1"]


# As a program

PROGRAM = """
import os, threading, pounce

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"hello"}})

{how}
print("ended", flush=True)
"""
RUN = "pounce.run(app, bind={address!r}, worker_mode={mode!r})"
SERVER = """
server = pounce.Server(
    pounce.ServerConfig(
        listen=(pounce.Listen(address=pounce.Address.parse({address!r})),), worker_mode={mode!r}
    ),
    app=app,
)
thread = threading.Thread(target=server.run)
thread.start()
# Not by sys.stdin: whoever reads it holds its lock, and a child would wait for that for ever.
os.read(0, 1)
server.reload()
os.read(0, 1)
server.shutdown()
thread.join()
"""


class Program:
    """A program that serves on a unix socket."""

    def __init__(self, directory: Path, how: str, mode: str) -> None:
        self._path = str(directory / "s")
        source = PROGRAM.format(how=how.format(address=f"unix:{self._path}", mode=mode))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(self._path):
                return False
        with Wire(Address.parse(f"unix:{self._path}")) as wire:
            return wire.get("/").body == b"hello"

    def end(self, text: str = "") -> tuple[str, str]:
        """All that it has printed and logged."""
        output, log = self.process.communicate(text, PATIENCE)
        assert self.process.returncode == 0, log
        return output, log


@both_modes
def test_run_serves_until_it_is_told_to_stop(tmp_path: Path, mode: str) -> None:
    with Program(tmp_path, RUN, mode) as program:
        wait_until(program.answers, "an answer", PATIENCE)
        program.process.send_signal(signal.SIGTERM)
        output, log = program.end()
    assert output == "ended\n"
    assert "generation 1 serves" in log


@both_modes
def test_a_server_runs_in_another_thread(tmp_path: Path, mode: str) -> None:
    with Program(tmp_path, SERVER, mode) as program:
        wait_until(program.answers, "an answer", PATIENCE)
        output, log = program.end("rs")
    assert output == "ended\n"
    assert "generation 2 has taken over" in log
    assert ("a lock that one of them holds" in log) == (mode == "process")


def test_a_server_that_was_told_to_stop_does_not_serve() -> None:
    anywhere = pounce.Listen(address=pounce.Address.parse("127.0.0.1:0"))
    server = pounce.Server(pounce.ServerConfig(listen=(anywhere,)), app=Application())
    server.shutdown()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_server_that_does_not_run_cannot_reload() -> None:
    with pytest.raises(pounce.PounceError, match="does not run"):
        pounce.Server(pounce.ServerConfig()).reload()
