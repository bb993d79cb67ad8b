"""Files that WSGI applications send: past the threads, whole or not at all."""

import io
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.live import live, until
from tests.wsgi import PLAIN, Environ, Start, serving

CONTENT = b"0123456789" * 50_000


class Unnamed(io.BytesIO):
    """A file that the kernel knows nothing of."""


def sends(file: Any, *, skip: int = 0, fields: Any = PLAIN) -> Any:
    def app(environ: Environ, start: Start) -> Any:
        start("200 OK", fields)
        file.seek(skip)
        return environ["wsgi.file_wrapper"](file, 10)

    return app


@pytest.fixture(params=["on a disk", "in memory"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "in memory":
        return Unnamed(CONTENT)
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path.open("rb")


@pytest.mark.parametrize("skip", [0, 3, len(CONTENT) - 5, len(CONTENT)])
@live
async def test_a_wrapped_file_is_sent_from_where_it_stands(file: Any, skip: int) -> None:
    async with serving(sends(file, skip=skip)) as server, await server.connect() as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == CONTENT[skip:]
        await until(lambda: file.closed)


@live
async def test_files_and_others_take_turns_on_one_connection(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)

    def app(environ: Environ, start: Start) -> Any:
        length = [("content-length", str(len(CONTENT)))]
        start("200 OK", length if environ["PATH_INFO"] == "/file" else PLAIN)
        if environ["PATH_INFO"] == "/file":
            return environ["wsgi.file_wrapper"](path.open("rb"))
        return [b"hello"]

    async with serving(app) as server, await server.connect(receive_buffer=8192) as client:
        for _ in range(2):
            await client.send(
                b"GET /file HTTP/1.1\r\nhost: a.example\r\n\r\n"
                b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n"
                b"HEAD /file HTTP/1.1\r\nhost: a.example\r\n\r\n"
            )
            assert (await client.response()).endswith(b"\r\n\r\n" + CONTENT)
            assert (await client.response()).endswith(b"\r\n\r\nhello")
            head = await client.response(no_body=True)
            assert b"content-length: 500000\r\n" in head


@live
async def test_a_file_comes_after_what_has_not_left_yet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    opened = threading.Event()

    def app(environ: Environ, start: Start) -> Any:
        start("200 OK", PLAIN)
        if environ["PATH_INFO"] == "/file":
            opened.set()
            return environ["wsgi.file_wrapper"](path.open("rb"))
        return [b"x" * 50_000]

    async with serving(app) as server, await server.connect(receive_buffer=4096) as client:
        # What the kernel does not take stays in the transport, too little to stop requests.
        descriptor = os.dup((await server.connection()).descriptor)
        with socket.socket(fileno=descriptor) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await client.send(
            b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n"
            b"GET /file HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n"
        )
        await until(opened.is_set)
        assert (await client.response()).endswith(b"\r\n\r\n" + b"x" * 50_000)
        assert (await client.rest()).endswith(b"\r\n\r\n" + CONTENT)


def file_beside(path: Path) -> Any:
    """An application that sends the file at *path* as ``/file``, and greets elsewhere."""

    def app(environ: Environ, start: Start) -> Any:
        start("200 OK", PLAIN)
        if environ["PATH_INFO"] == "/file":
            return environ["wsgi.file_wrapper"](path.open("rb"))
        return [b"hello"]

    return app


@live
async def test_no_thread_waits_for_who_reads_a_file_slowly(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT * 10)
    async with serving(file_beside(path), threads=1, write_timeout=0.5) as server:
        readers = [await server.connect(receive_buffer=4096) for _ in range(5)]
        for reader in readers:
            await reader.ask("/file")
            await reader.read_until(b"\r\n\r\n")
        async with await server.connect() as client:
            assert (await client.get()).endswith(b"hello")
        # Nor does the loop wait for ever for who does not read at all.
        await server.departures()
        for reader in readers:
            assert await reader.is_reset()
            reader.sock.close()


@live
async def test_a_file_that_shrinks_is_no_whole_response(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT * 10)
    async with (
        serving(file_beside(path)) as server,
        await server.connect(receive_buffer=4096) as client,
    ):
        await client.ask("/file")
        await client.read_until(b"\r\n\r\n")
        path.write_bytes(b"")
        assert await client.is_reset()
    assert "has become shorter" in caplog.text
