"""Threads behind TLS and behind HTTP/3: what a thread makes goes out as anything does."""

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pounce.net.tls import Certificates, ListenerTLS, TLSFiles
from pounce.sync.raw import SyncAppHandler
from pounce.sync_app import RawRequest
from pounce.wsgi.environ import EnvironMaker
from pounce.wsgi.handler import WSGIHandler
from tests import http3
from tests.certificates import Authority
from tests.live import echo, live, serve_in_threads, threads_for

FILE = b"0123456789" * 20_000


def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    """Answer ``/file``, ``/stream`` and ``/scheme``; anything else is an echo."""
    start("200 OK", [("content-type", "text/plain")])
    match environ["PATH_INFO"]:
        case "/file":
            path = Path(environ["HTTP_X_FILE"])
            return environ["wsgi.file_wrapper"](path.open("rb"))  # type: ignore[no-any-return]
        case "/stream":
            return (b"piece %d\n" % number for number in range(3))
        case "/scheme":
            return [environ["wsgi.url_scheme"].encode(), environ["SERVER_PROTOCOL"].encode()]
        case _:
            return [environ["wsgi.input"].read()]


@pytest.fixture
def handler() -> WSGIHandler:
    return WSGIHandler(app, EnvironMaker("", multithread=True, multiprocess=False))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(FILE)
    return path


@live
async def test_over_tls(tmp_path: Path, handler: WSGIHandler, file: Path) -> None:
    authority = Authority()
    authority.issue("a.example").write(tmp_path, "a")
    authority.write(tmp_path)
    pair = (str(tmp_path / "a.pem"), str(tmp_path / "a.key"))
    tls = ListenerTLS(Certificates(TLSFiles([pair]))).context
    trusted = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
    async with (
        serve_in_threads(handler, tls=tls) as server,
        await server.connect_securely(trusted) as client,
    ):
        for _ in range(2):
            assert (await client.get("/scheme")).endswith(b"\r\n\r\nhttpsHTTP/1.1")
            assert b"8\r\npiece 2\n" in await client.get("/stream")
            await client.send(
                b"GET /file HTTP/1.1\r\nhost: a.example\r\nx-file: %b\r\n"
                b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" % str(file).encode()
            )
            head = await client.read_until(b"\r\n\r\n")
            assert b"transfer-encoding: chunked" in head
            body = await client.read_until(b"\r\n0\r\n\r\n")
            assert body.count(b"0123456789") >= len(FILE) // 10 - 5


@live
async def test_over_http3(tmp_path: Path, handler: WSGIHandler, file: Path) -> None:
    async with (
        http3.serve(echo, tmp_path) as server,
        threads_for(server.workers[0].context, handler),
        http3.connected(server.address) as client,
    ):
        for _ in range(2):
            assert (await client.get("/scheme")).body == b"httpsHTTP/3"
            assert (await client.post("/", FILE)).body == FILE
            assert (await client.get("/stream")).body == b"piece 0\npiece 1\npiece 2\n"
            answer = await client.get("/file", (b"x-file", str(file).encode()))
            assert answer.body == FILE


@live
async def test_what_a_sync_app_leaves_over_http3(tmp_path: Path) -> None:
    class Leaving:
        def handle_sync(self, request: RawRequest) -> None:
            assert request.http_version == "3"

    handler = SyncAppHandler(Leaving(), falls_through=True)
    async with (
        http3.serve(echo, tmp_path) as server,
        threads_for(server.workers[0].context, handler),
        http3.connected(server.address) as client,
    ):
        for _ in range(2):
            assert (await client.post("/", b"content")).body == b"content"
