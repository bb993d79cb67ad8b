"""What an application does after its response, whatever ends meanwhile."""

import asyncio
import signal
import ssl
from pathlib import Path

import pytest

from pounce.application.types import Receive, Scope, Send
from pounce.net.tls import Certificates, ListenerTLS, TLSFiles
from tests.certificates import Authority
from tests.live import GET, live, respond, serve, until
from tests.service import Service, serving, wait_until
from tests.websocket import HANDSHAKE

CLOSE = b"GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n"
UPGRADE = "\r\n".join(["GET / HTTP/1.1", "host: a.example", *HANDSHAKE, "", ""]).encode()
EARLY = b"POST / HTTP/1.1\r\nhost: a.example\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"


class Work:
    """An application that works on after its response until it is released."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.begun = self.finished = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            if scope["path"] == "/":
                await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
        else:
            await respond(send, b"hello", 304 if scope["path"] == "/304" else 200)
        self.begun = True
        await self.released.wait()
        self.finished = True


REQUESTS = {
    "keep-alive": GET,
    "close": CLOSE,
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "HEAD": CLOSE.replace(b"GET", b"HEAD"),
    "304": CLOSE.replace(b"/ ", b"/304 ", 1),
    "before the content": EARLY,
    "WebSocket": UPGRADE,
    "denied WebSocket": UPGRADE.replace(b"/ ", b"/denied ", 1),
}


@live
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("request_text", REQUESTS.values(), ids=REQUESTS)
async def test_a_drain_waits_for_it(tmp_path: Path, request_text: bytes, *, secure: bool) -> None:
    work, ends = Work(), _TLS(tmp_path) if secure else None
    async with serve(work, tls=ends and ends.server) as server:
        connecting = server.connect_securely(ends.client) if ends else server.connect()
        async with await connecting as client:
            await client.send(request_text)
            await until(lambda: work.begun)
        drained = asyncio.Event()
        context = server.context
        context.drain(lambda: drained.set() if context.idle else None)
        await until(lambda: not (context.connections or context.ending))
        assert not drained.is_set()
        assert " from 127.0.0.1:" in context.in_flight()
        assert context.in_flight().endswith(" s <- works on after its response\n")
        work.released.set()
        await drained.wait()
    assert work.finished


class _TLS:
    """Both ends of it."""

    def __init__(self, directory: Path) -> None:
        authority = Authority()
        certificate, key = authority.issue("a.example").write(directory, "a")
        files = TLSFiles([(str(certificate), str(key))])
        self.server = ListenerTLS(Certificates(files))
        self.client = ssl.create_default_context(cafile=authority.write(directory))


MODULE = """
import asyncio, time
from pathlib import Path
from tests.live import respond

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    file = Path(__file__).with_name(scope["path"][1:])
    await respond(send, b"hello")
    file.write_text("begun")
    await asyncio.sleep(float(scope["query_string"] or 0))
    file.write_text("finished")

def wsgi(environ, start_response):
    file = Path(__file__).with_name(environ["PATH_INFO"][1:])
    start_response("200 OK", [("Content-Length", "5")])
    yield b"hello"
    file.write_text("begun")
    time.sleep(float(environ["QUERY_STRING"] or 0))
    file.write_text("finished")
"""


def _ask(service: Service, name: str, seconds: float, connection: str) -> None:
    """Have the application work for so many *seconds* after its response."""
    with service.connect() as wire:
        target = f"/{name}?{seconds}"
        head = f"GET {target} HTTP/1.1\r\nhost: a.example\r\nconnection: {connection}\r\n\r\n"
        wire.sock.sendall(head.encode())
        answer = wire.receive()
        assert answer is not None
        assert answer.body == b"hello"


@pytest.mark.parametrize(
    ("ending", "app", "flags"),
    [
        ("stop", "it:app", ("--worker-mode", "process", "--loop", "asyncio")),
        ("stop", "it:wsgi", ("--worker-mode", "thread")),
        ("reload", "it:app", ("--worker-mode", "thread")),
        ("reload", "it:app", ("--worker-mode", "process", "--execution", "sync")),
        ("recycling", "it:app", ("--worker-mode", "process", "--max-requests", "2")),
        ("recycling", "it:wsgi", ("--worker-mode", "process", "--max-requests", "2")),
    ],
)
def test_a_service_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, app: str, flags: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (tmp_path / "it.py").write_text(MODULE)
    works = [tmp_path / "close", tmp_path / "keep-alive"]
    with serving(tmp_path, "--workers", "1", *flags, app=app, apps=tmp_path) as service:
        for work in works:
            _ask(service, work.name, 1.5, work.name)
        wait_until(lambda: all(work.exists() for work in works), "the beginning of the work")
        if ending == "stop":
            service.send_signal(signal.SIGTERM)
            assert service.wait() == 0
        elif ending == "reload":
            service.reload(2)
            service.expect("generation 1 is retired")
        else:
            service.expect_worker("0", other_than=service.workers["0"])
            service.expect(r"worker 0 \(\d+\) stopped")
        assert [work.read_text() for work in works] == ["finished", "finished"]


@pytest.mark.parametrize(
    ("app", "where"),
    [("it:app", "works on after its response"), ("it:wsgi", r"in thread pounce-1-0-\d")],
)
def test_what_takes_too_long_is_named_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: str, where: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (tmp_path / "it.py").write_text(MODULE)
    flags = ("--workers", "1", "--shutdown-timeout", "1")
    with serving(tmp_path, *flags, app=app, apps=tmp_path) as service:
        _ask(service, "work", 60, "close")
        wait_until((tmp_path / "work").exists, "the beginning of the work")
        service.send_signal(signal.SIGTERM)
        service.wait()
        told = service.expect(
            "time is up, and unfinished work is dropped: "
            rf"GET /work from 127\.0\.0\.1:\d+, for (\d\.\d) s <- {where}$"
        )
        assert float(told[1]) > 0.4  # all but what passed before the next sweep
    assert (tmp_path / "work").read_text() == "begun"
