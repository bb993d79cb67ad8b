"""Contents that wait for a thread: how much room they may take, and that they give it back."""

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pounce.config.service import ServerConfig
from pounce.threads import storage
from pounce.threads.asgi import ASGIHandler
from tests.live import Client, LiveServer, echo, live, serve_in_threads, threads_of, until
from tests.wsgi import PLAIN, Environ, Start, handler, serving

SIZE = storage.MEMORY * 3
CHUNK = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: %d\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n"


def counts(environ: Environ, start: Start) -> list[bytes]:
    """Answer with the content's size; some paths treat their input badly."""
    data = environ["wsgi.input"]
    if environ["PATH_INFO"] == "/fails":
        raise ValueError("whatever it holds")
    if environ["PATH_INFO"] == "/closes":
        data.close()
    if environ["PATH_INFO"] == "/leaves":
        with data:
            data.read(1)
    start("200 OK", PLAIN)
    return [b"" if data.closed else b"%d" % len(data.read())]


def taken(server: LiveServer) -> int:
    size: int = threads_of(server.context).storage.taken
    return size


async def begin(server: LiveServer, size: int) -> Client:
    """A client that has sent *size* bytes of a content, and not yet one more, which is the last."""
    client, before = await server.connect(), taken(server)
    await client.send(UPLOAD % (size + 1) + b"x" * size)
    await until(lambda: taken(server) == before + size)
    return client


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def stored_in(directory: Path) -> int:
    """How many files without a name this process has open there."""
    links = (os.path.realpath(each) for each in Path("/proc/self/fd").iterdir())
    return sum(link.startswith(str(directory)) for link in links)


@pytest.mark.parametrize(
    ("options", "largest"),
    [
        ({}, 128 << 20),
        ({"max_body_size": 5}, 5),
        ({"max_body_size": 5 << 30}, 5 << 30),
        ({"max_stored_size": 5_000_000}, 5_000_000),
        ({"max_stored_size": 0}, 128 << 20),
    ],
)
def test_there_is_always_a_largest_one(options: dict[str, Any], largest: int) -> None:
    config = storage.bounded(ServerConfig(**options))
    assert config.max_body_size == largest
    storage.storage_of(config).take(largest)


@pytest.mark.parametrize("app", [handler(counts), ASGIHandler(echo)])
@live
async def test_an_endless_content_is_answered_413(
    app: Any, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    monkeypatch.setattr(storage, "LARGEST", SIZE)
    async with serve_in_threads(app) as server:
        async with await server.connect() as client:
            await client.send(CHUNKED + CHUNK * 6)
            await until(lambda: taken(server) == SIZE)
            await client.send(CHUNK)
            assert (await client.response()).startswith(b"HTTP/1.1 413 ")
        async with await server.connect() as client:
            await client.send(UPLOAD % (SIZE + 1))
            assert (await client.response()).startswith(b"HTTP/1.1 413 ")
        await server.departures()
        assert (taken(server), stored_in(directory)) == (0, 0)


@live
async def test_all_together_take_no_more_than_they_may(
    caplog: pytest.LogCaptureFixture, directory: Path
) -> None:
    most = SIZE * 2 + 100
    async with serving(counts, max_body_size=SIZE * 2, max_stored_size=most) as server:
        first, second = await begin(server, SIZE), await begin(server, SIZE)
        for _ in range(3):
            async with await server.connect() as third:
                await third.send(UPLOAD % SIZE + b"x" * SIZE)
                response = await third.response()
                assert response.startswith(b"HTTP/1.1 503 ")
                assert b"\r\nretry-after: " in response
                assert b"\r\nconnection: close\r\n" in response
        assert caplog.text.count("take up max_stored_size") == 1
        async with await server.connect() as small:
            await small.send(UPLOAD % 1000 + b"x" * 1000)
            assert (await small.response()).endswith(b"\r\n\r\n1000")
        await first.send(b"x")
        assert (await first.response()).endswith(b"%d" % (SIZE + 1))
        await until(lambda: taken(server) == SIZE)
        async with await server.connect() as third:
            await third.send(UPLOAD % SIZE + b"x" * SIZE)
            assert (await third.response()).endswith(b"%d" % SIZE)
        first.sock.close()
        second.sock.close()
        await until(lambda: taken(server) == stored_in(directory) == 0)


@pytest.mark.parametrize("path", ["/", "/fails", "/closes", "/leaves"])
@live
async def test_room_is_given_back_whatever_the_application_does(path: str, directory: Path) -> None:
    async with serving(counts) as server, await server.connect() as client:
        for _ in range(3):
            await client.send(
                (UPLOAD % SIZE).replace(b" / ", b" %b " % path.encode()) + b"x" * SIZE
            )
            status = b"500" if path == "/fails" else b"200"
            assert (await client.response()).startswith(b"HTTP/1.1 " + status)
            await until(lambda: taken(server) == stored_in(directory) == 0)


@live
async def test_room_is_given_back_at_once_when_a_client_leaves(directory: Path) -> None:
    async with serving(counts) as server:
        clients = [await begin(server, SIZE) for _ in range(3)]
        assert stored_in(directory) == 3
        for client in clients:
            client.sock.close()
        await until(lambda: taken(server) == stored_in(directory) == 0)


@contextmanager
def no_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """There is nowhere to make a file."""
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", "/nonexistent/tmp")
        yield "cannot be stored in /nonexistent/tmp: [Errno 2] No such file"


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Files cannot become as large as a content."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE - 5, hard))
    try:
        yield "[Errno 27] File too large"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("trouble", [no_directory, full_disk])
@live
async def test_a_disk_without_room_is_told_as_that(
    trouble: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    directory: Path,
) -> None:
    async with serving(counts) as server:
        with trouble(monkeypatch) as told:
            async with await server.connect() as client:
                await client.send(UPLOAD % SIZE + b"x" * SIZE)
                assert (await client.response()).startswith(b"HTTP/1.1 507 Insufficient Storage")
            async with await server.connect() as client:
                await client.send(UPLOAD % 1000 + b"x" * 1000)
                assert (await client.response()).endswith(b"\r\n\r\n1000")
        assert told in caplog.text
        assert "TMPDIR" in caplog.text
        assert "the application failed" not in caplog.text
        await until(lambda: taken(server) == stored_in(directory) == 0)
        async with await server.connect() as client:
            await client.send(UPLOAD % SIZE + b"x" * SIZE)
            assert (await client.response()).endswith(b"%d" % SIZE)
