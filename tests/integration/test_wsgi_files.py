"""Files that WSGI applications send: past the threads, whole or not at all."""

import gzip
import io
import os
import socket
import threading
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
from django.core.files import File

from pounce.wsgi.file_wrapper import FileWrapper
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


class Loud:
    """A file that reads otherwise than its descriptor."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.fileno, self.tell, self.seek = file.fileno, file.tell, file.seek
        self.close = file.close

    def read(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        return data.replace(b"0", b"!")


def compressed(path: Path) -> Any:
    with gzip.open(path, "wb", compresslevel=0) as file:
        file.write(CONTENT)
    return gzip.open(path)


def unwritten(path: Path) -> Any:
    file = path.open("w+b", buffering=len(CONTENT) * 2)
    file.write(CONTENT)
    file.seek(0)
    file.read(1)
    file.seek(0, os.SEEK_END)
    file.write(CONTENT)
    file.seek(0)
    return file


def begun(path: Path) -> Any:
    """A file of which more has been read into its buffer than out of it."""
    path.write_bytes(b"head\n" + CONTENT)
    file = path.open("rb")
    assert file.readline() == b"head\n"
    return file


def replaced(path: Path) -> Any:
    """An ordinary file whose `read` is another."""
    path.write_bytes(CONTENT)
    file: Any = path.open("rb")
    read = file.read
    file.read = lambda size: read(size).replace(b"0", b"!")
    return file


def plain(path: Path) -> Any:
    path.write_bytes(CONTENT)
    return path.open("rb")


def piped(path: Path) -> Any:
    """What another has written."""
    ours, theirs = os.pipe()
    os.write(theirs, CONTENT[:60_000])
    os.close(theirs)
    return os.fdopen(ours, "rb")


def lent(path: Path) -> Any:
    """An ordinary file with a method that is bound to it, but not its own."""

    def read(its: Any, size: int) -> bytes:
        data: bytes = its.read1(size)
        return data.replace(b"0", b"!")

    file: Any = plain(path)
    file.read = MethodType(read, file)
    return file


LOUD = CONTENT.replace(b"0", b"!")


@pytest.mark.parametrize(
    ("opened", "content"),
    [
        (compressed, CONTENT),
        (unwritten, CONTENT * 2),
        (begun, CONTENT),
        (replaced, LOUD),
        (lent, LOUD),
        (lambda path: io.BufferedReader(compressed(path)), CONTENT),
        (piped, CONTENT[:60_000]),
        (lambda path: Loud(plain(path)), LOUD),
        (lambda path: File(plain(path)), CONTENT),
        (lambda path: plain(path).detach(), CONTENT),
        (lambda path: io.BytesIO(CONTENT), CONTENT),
    ],
)
@live
async def test_what_read_gives_is_sent(opened: Any, content: bytes, tmp_path: Path) -> None:
    def app(environ: Environ, start: Start) -> Any:
        start("200 OK", PLAIN)
        return environ["wsgi.file_wrapper"](opened(tmp_path / "file"))

    async with serving(app) as server, await server.connect() as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.rest()).partition(b"\r\n\r\n")[2] == content


@live
async def test_text_is_no_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    async with serving(sends(path.open("r"))) as server, await server.connect() as client:
        assert (await client.get()).startswith(b"HTTP/1.1 500 ")
    assert "content is str, not bytes" in caplog.text


@pytest.mark.parametrize("size", [5, len(CONTENT) - 5, len(CONTENT)])
@live
async def test_a_file_that_has_grown_is_sent_up_to_its_length(size: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)

    def app(environ: Environ, start: Start) -> Any:
        start("200 OK", [("Content-Length", str(size))])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    async with serving(app) as server, await server.connect() as client:
        for _ in range(2):
            assert (await client.get()).endswith(b"\r\n\r\n" + CONTENT[:size])


@live
async def test_a_head_request_reads_no_file(tmp_path: Path) -> None:
    file = Unnamed(CONTENT)
    path = tmp_path / "file"
    path.write_bytes(CONTENT)

    def app(environ: Environ, start: Start) -> Any:
        start("200 OK", PLAIN)
        is_path = environ["PATH_INFO"] == "/path"
        return environ["wsgi.file_wrapper"](path.open("rb") if is_path else file)

    async with serving(app) as server, await server.connect() as client:
        for target, told in ((b"/path", True), (b"/memory", False)):
            await client.send(b"HEAD %b HTTP/1.1\r\nhost: a.example\r\n\r\n" % target)
            head = await client.response(no_body=True)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert (b"content-length: 500000\r\n" in head) is told
        await until(lambda: file.closed)


def test_it_seeks_where_its_file_does(tmp_path: Path) -> None:
    with plain(tmp_path / "file") as file:
        wrapper = FileWrapper(file)
        assert wrapper.seekable()
        assert (wrapper.seek(10), wrapper.seek(-1, os.SEEK_END)) == (10, len(CONTENT) - 1)
        assert wrapper.tell() == len(CONTENT) - 1
        assert list(wrapper) == [b"9"]
        assert FileWrapper(Loud(file)).seekable()
    with piped(tmp_path / "file") as file:
        assert not FileWrapper(file).seekable()


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
