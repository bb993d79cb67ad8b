"""Threads behind HTTP/3: what a thread makes goes out as anything does."""

import gzip
import tempfile
from pathlib import Path

import pytest

from pounce.application.sync_app import RawRequest
from pounce.threads import storage
from pounce.threads.raw import SyncAppHandler
from tests import http3
from tests.apps.transports_wsgi import FILE, app
from tests.integration.test_context_variables import asgi, wsgi
from tests.live import echo, live, threads_for, threads_of
from tests.wsgi import handler


@live
async def test_over_http3(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(FILE)
    async with (
        http3.serve(echo, tmp_path) as server,
        threads_for(server.workers[0].context, handler(app)),
        http3.connected(server.address) as client,
    ):
        for _ in range(2):
            assert (await client.get("/scheme")).body == b"httpsHTTP/3"
            assert (await client.post("/", FILE)).body == FILE
            assert (await client.get("/stream")).body == b"piece 0\npiece 1\npiece 2\n"
            answer = await client.get("/file", (b"x-file", str(file).encode()))
            assert answer.body == FILE


@live
async def test_what_wsgi_promises_over_http3(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with gzip.open(file, "wb") as compressed:
        compressed.write(FILE)
    async with (
        http3.serve(echo, tmp_path) as server,
        threads_for(server.workers[0].context, handler(app)),
        http3.connected(server.address) as client,
    ):
        for target in ("/more/list", "/more/pieces", "/more/write") * 2:
            answer = await client.get(target)
            assert (answer.status, answer.body) == (999, b"hello")
            assert answer.header(b"content-length") == b"5"
        answer = await client.get("/compressed", (b"x-file", str(file).encode()))
        assert answer.body == FILE


@live
async def test_contents_that_cannot_be_stored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    size = storage.MEMORY * 3
    async with http3.serve(echo, tmp_path) as server:
        context = server.workers[0].context
        async with (
            threads_for(context, handler(app)),
            http3.connected(server.address) as client,
        ):
            with monkeypatch.context() as patched:
                patched.setattr(tempfile, "tempdir", "/nonexistent/tmp")
                assert (await client.post("/", b"x" * size)).status == 507
            assert len((await client.post("/", b"x" * size)).body) == size
            threads_of(context).storage.take(1 << 30)
            assert (await client.post("/", b"x" * size)).status == 503


@live
async def test_what_a_sync_app_leaves_over_http3(tmp_path: Path) -> None:
    class Leaving:
        def handle_sync(self, request: RawRequest) -> None:
            assert request.http_version == "3"

    async with (
        http3.serve(echo, tmp_path) as server,
        threads_for(server.workers[0].context, SyncAppHandler(Leaving(), falls_through=True)),
        http3.connected(server.address) as client,
    ):
        for _ in range(2):
            assert (await client.post("/", b"content")).body == b"content"


@live
async def test_context_variables_over_http3(tmp_path: Path) -> None:
    async with (
        http3.serve(asgi, tmp_path) as server,
        http3.connected(server.address) as client,
    ):
        for _ in range(2):
            assert (await client.get("/")).body == b"nothing"
            assert (await client.post("/reads", bytes(300_000))).body == b"nothing"
        async with threads_for(server.workers[0].context, handler(wsgi), threads=1):
            assert {(await client.get("/")).body for _ in range(3)} == {b"nothing"}
