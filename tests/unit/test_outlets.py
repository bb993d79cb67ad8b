"""Records on their way to whoever reads them, or does not."""

import fcntl
import os
import pty
import resource
import select
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from pounce.events.outlets import LogFile, Outlet, SharedStream, Spool, Stream, StreamSocket

Reads = Callable[[], bytes]
Opens = Callable[[ExitStack], tuple[Outlet, Reads]]


def reads(descriptor: int) -> Reads:
    """Read whatever is there now."""
    os.set_blocking(descriptor, False)

    def read() -> bytes:
        found = b""
        with suppress(BlockingIOError):
            while piece := os.read(descriptor, 65_536):
                found += piece
        return found

    return read


def pipe(stack: ExitStack) -> tuple[Outlet, Reads]:
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    os.set_blocking(writer, False)
    return Stream(writer), reads(reader)


def shared_pipe(stack: ExitStack) -> tuple[Outlet, Reads]:
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    return SharedStream(writer), reads(reader)


def terminal(stack: ExitStack) -> tuple[Outlet, Reads]:
    ours, theirs = pty.openpty()
    stack.callback(os.close, ours)
    os.set_blocking(theirs, False)
    return Stream(theirs), reads(ours)


def stream_socket(stack: ExitStack) -> tuple[Outlet, Reads]:
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    return StreamSocket(theirs.detach()), reads(ours.fileno())


every_reader = pytest.mark.parametrize("opens", [pipe, shared_pipe, terminal, stream_socket])


@pytest.fixture
def told() -> list[str]:
    return []


def lines_of(count: int) -> list[bytes]:
    return [b"%06d %s\n" % (number, b"x" * 500) for number in range(count)]


def read_all(spool: Spool, read: Reads) -> bytes:
    """Read until nothing follows, while the spool gets its turns."""
    found = b""
    spool.flush()
    while piece := read():
        found += piece
        spool.flush()
    return found.replace(b"\r\n", b"\n")


@every_reader
def test_what_nobody_reads_costs_the_oldest_lines(
    opens: Opens, stack: ExitStack, told: list[str]
) -> None:
    outlet, read = opens(stack)
    spool = Spool(outlet, "the log", told.append)
    lines = lines_of(5000)
    for line in lines:
        spool.put(line)
    assert told == []
    found = read_all(spool, read).splitlines(keepends=True)
    assert set(found) <= set(lines), "a line is not whole"
    assert found == sorted(found)
    assert (found[0], found[-1]) == (lines[0], lines[-1])
    lost = len(lines) - len(found)
    assert told == [f"the log can be written again; records lost: {lost} (its reader was too slow)"]
    spool.close()


@every_reader
def test_a_short_delay_costs_nothing(opens: Opens, stack: ExitStack, told: list[str]) -> None:
    outlet, read = opens(stack)
    spool = Spool(outlet, "the log", told.append)
    lines = lines_of(500)
    for line in lines:
        spool.put(line)
    assert read_all(spool, read) == b"".join(lines)
    assert told == []
    spool.close()


def test_the_same_trouble_is_told_once_in_a_while(stack: ExitStack, told: list[str]) -> None:
    outlet, read = pipe(stack)
    spool = Spool(outlet, "the log", told.append)
    for _ in range(3):
        for line in lines_of(2000):
            spool.put(line)
        read_all(spool, read)
    assert len(told) == 1
    # The end is the last occasion.
    spool.finish(time.monotonic())
    assert len(told) == 2
    spool.close()


def test_a_line_that_a_pipe_might_cut_waits_for_room(stack: ExitStack, told: list[str]) -> None:
    outlet, read = pipe(stack)
    fcntl.fcntl(outlet.fileno(), fcntl.F_SETPIPE_SZ, 65_536)
    spool = Spool(outlet, "the log", told.append)
    # Another process, which writes to the same pipe.
    other = Spool(Stream(os.dup(outlet.fileno())), "the log", told.append)
    long, short = b"l" * 40_000 + b"\n", b"s" * 99 + b"\n"
    for _ in range(200):
        other.put(short)
    spool.put(long)
    for _ in range(400):
        other.put(short)
    found = b""
    while piece := read():
        found += piece
        spool.flush()
        other.flush()
    assert found.count(short) == 600
    assert found.count(long) == 1
    assert set(found.splitlines(keepends=True)) == {long, short}
    for each in (spool, other):
        each.close()


def test_lines_of_a_record_that_does_not_fit_are_whole(stack: ExitStack, told: list[str]) -> None:
    outlet, read = pipe(stack)
    spool = Spool(outlet, "the log", told.append)
    record = b"".join(lines_of(400))
    spool.put(record)
    first = read()
    assert first.endswith(b"\n")
    assert len(first) < len(record)
    assert first + read_all(spool, read) == record
    spool.close()


def test_a_record_longer_than_a_pipe_arrives(stack: ExitStack, told: list[str]) -> None:
    outlet, read = pipe(stack)
    spool = Spool(outlet, "the log", told.append)
    record = b"x" * 1_000_000 + b"\n"
    spool.put(record)
    assert read_all(spool, read) == record
    spool.close()


def test_the_end_waits_for_a_reader_that_comes(stack: ExitStack, told: list[str]) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    spool = Spool(Stream(writer), "the log", told.append)
    lines = lines_of(400)
    for line in lines:
        spool.put(line)
    found: list[bytes] = []

    def read() -> None:
        while piece := os.read(reader, 65_536):
            found.append(piece)

    thread = threading.Thread(target=read)
    thread.start()
    spool.finish(time.monotonic() + 10)
    spool.close()
    thread.join()
    assert b"".join(found) == b"".join(lines)
    os.close(reader)


@every_reader
def test_the_end_does_not_wait_for_long(opens: Opens, stack: ExitStack, told: list[str]) -> None:
    outlet, _ = opens(stack)
    spool = Spool(outlet, "the log", told.append)
    for line in lines_of(1000):
        spool.put(line)
    start = time.monotonic()
    spool.finish(start + 0.2)
    assert time.monotonic() - start < 25
    spool.close()


def test_nobody_will_ever_read(told: list[str]) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.close(reader)
    spool = Spool(Stream(writer), "the log", told.append)
    for line in lines_of(2000):
        spool.put(line)
    spool.finish(time.monotonic() + 10)
    assert told == []
    spool.close()


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_does_not_repeat_what_waits(stack: ExitStack, told: list[str]) -> None:
    outlet, read = pipe(stack)
    spool = Spool(outlet, "the log", told.append)
    for line in lines_of(200):
        spool.put(line)
    pid = os.fork()
    if pid == 0:
        spool.forget()
        spool.put(b"of the child\n")
        spool.finish(time.monotonic() + 10)
        os._exit(0)
    found = b""
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        found += read()
    found += read_all(spool, read)
    assert found.count(b"of the child\n") == 1
    assert sorted(found.splitlines(keepends=True))[:-1] == lines_of(200)
    spool.close()


def test_a_thread_that_logs_in_a_destructor(stack: ExitStack, told: list[str]) -> None:
    """The garbage collector may run in the middle of a write."""
    outlet, read = pipe(stack)

    class Tells(Stream):
        def write(self, data: bytes) -> int:
            if data == b"first\n":
                spool.put(b"second\n")
            return super().write(data)

    spool = Spool(Tells(outlet.fileno()), "the log", told.append)
    spool.put(b"first\n")
    assert read() == b"first\nsecond\n"
    spool.close()


# Files


@pytest.fixture
def access(tmp_path: Path, told: list[str]) -> Iterator[Spool]:
    spool = Spool(LogFile(str(tmp_path / "access")), "the access log", told.append, elsewhere=True)
    yield spool
    spool.close()


@pytest.fixture
def limit() -> Iterator[Callable[[int], None]]:
    """Limits the size of files, as a full disk does: what still fits is written (write(2))."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_cuts_no_line(
    access: Spool, tmp_path: Path, limit: Callable[[int], None], told: list[str]
) -> None:
    lines = lines_of(100)
    limit(20_000)
    for line in lines:
        access.put(line)
    limit(resource.RLIM_INFINITY)
    whole = (tmp_path / "access").read_bytes()
    assert whole == b"".join(lines)[: len(whole)]
    assert whole.endswith(b"\n")
    assert told == ["the access log cannot be written: File too large; records lost: 0"]
    with (tmp_path / "access").open("ab") as file:
        file.write(b"of another process\n")
    access.flush()
    found = (tmp_path / "access").read_bytes()
    assert found.replace(b"of another process\n", b"") == b"".join(lines)


def test_what_a_disk_that_stays_full_costs(
    access: Spool, tmp_path: Path, limit: Callable[[int], None], told: list[str]
) -> None:
    limit(0)
    for _ in range(1000):
        access.put(b"".join(lines_of(2)), 2)
    limit(resource.RLIM_INFINITY)
    access.finish(time.monotonic())
    found = (tmp_path / "access").read_bytes().count(b"\n")
    assert 0 < found < 2000
    assert told[1:] == [
        f"the access log can be written again; records lost: {2000 - found} (File too large)"
    ]


def test_a_file_that_was_moved_is_followed(access: Spool, tmp_path: Path) -> None:
    path = tmp_path / "access"
    access.put(b"before\n")
    path.rename(tmp_path / "access.1")
    access.put(b"after\n")
    assert path.read_bytes() == b"after\n"
    assert (tmp_path / "access.1").read_bytes() == b"before\n"


def test_a_directory_that_is_gone_for_a_while(
    access: Spool, tmp_path: Path, told: list[str]
) -> None:
    moved = tmp_path.with_name(f"{tmp_path.name}.moved")
    tmp_path.rename(moved)
    access.put(b"meanwhile\n")
    assert told == ["the access log cannot be written: No such file or directory; records lost: 0"]
    moved.rename(tmp_path)
    access.flush()
    assert (tmp_path / "access").read_bytes() == b"meanwhile\n"


def test_a_fifo_that_nobody_reads(tmp_path: Path, told: list[str], stack: ExitStack) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    early = Spool(LogFile(str(path)), "the access log", told.append, elsewhere=True)
    early.put(b"early\n")
    assert "the access log cannot be written: No such device or address" in told.pop()
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    stack.callback(os.close, reader)
    spool = Spool(LogFile(str(path)), "the access log", told.append, elsewhere=True)
    batches = [b"".join(lines_of(40)) for _ in range(100)]
    for batch in batches:
        spool.put(batch, 40)
    found = read_all(spool, reads(reader)).splitlines(keepends=True)
    assert set(found) == set(lines_of(40))
    lost = 4000 - len(found)
    assert f"the access log can be written again; records lost: {lost} " in told[0]
    spool.close()
    assert read_all(early, reads(reader)) == b"early\n"
    early.close()


# Standard error, in a process of its own

WRITE = """
import os, sys, time
from pounce.events.outlets import Spool, standard_error
os.setresuid(*[int(sys.argv[1])] * 3)
spool = Spool(standard_error(), "the log", print)
for number in range(3000):
    spool.put(b"%06d " % number + b"x" * 100 + b"\\n")
os.write(1, b"written")
sys.stdin.read()
spool.finish(time.monotonic() + 10)
"""


def written(stderr: int, stack: ExitStack, user: int = -1) -> subprocess.Popen[bytes]:
    """A process of *user* that has written to *stderr* without waiting for anybody."""
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-c", WRITE, str(user)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    )
    os.close(stderr)
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 20)[0], "it waits"
    assert os.read(process.stdout.fileno(), 7) == b"written"
    return process


def test_standard_error_stays_blocking_for_everybody_else(stack: ExitStack) -> None:
    reader, writer = os.pipe()
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    kept = os.dup(writer)
    process = written(writer, stack)
    assert fcntl.fcntl(kept, fcntl.F_GETFL) == flags
    os.close(kept)
    process.stdin.close()  # type: ignore[union-attr] # it is a pipe
    read = reads(reader)
    found = b""
    while process.poll() is None:
        found += read()
    assert (found + read()).splitlines()[-1].startswith(b"002999 ")
    os.close(reader)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_standard_error_that_is_another_users(stack: ExitStack) -> None:
    reader, writer = os.pipe()
    os.fchmod(writer, 0o600)
    process = written(writer, stack, 65_534)
    process.kill()
    assert b"\n000001 " in reads(reader)()
    os.close(reader)


def test_a_terminal_that_was_stopped(stack: ExitStack) -> None:
    ours, theirs = pty.openpty()
    kept = os.dup(theirs)
    termios.tcflow(kept, termios.TCOOFF)  # as Ctrl-S does
    process = written(theirs, stack)
    read = reads(ours)
    assert read() == b""
    termios.tcflow(kept, termios.TCOON)
    process.stdin.close()  # type: ignore[union-attr] # it is a pipe
    found = b""
    while process.poll() is None:
        found += read()
    assert b"\n002999 " in found + read()
    os.close(kept)
    os.close(ours)


def test_standard_error_that_is_closed(tmp_path: Path) -> None:
    """Its descriptor is another file's by then."""
    script = """
import os
from pounce.events.outlets import Spool, standard_error
descriptor = os.open("file", os.O_WRONLY | os.O_CREAT)
os.dup2(descriptor, 2)
Spool(standard_error(), "the log", print).put(b"not for that file")
"""
    command = ["sh", "-c", 'exec 2>&-; exec "$0" -c "$1"', sys.executable, script]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "file").read_bytes() == b""


def test_what_could_not_be_written_at_the_end_is_told(stack: ExitStack) -> None:
    told: list[str] = []
    outlet, _ = pipe(stack)
    spool = Spool(outlet, "the log", told.append)
    for _ in range(3):
        spool.put(b"x" * 60_000 + b"\n")
    spool.close()
    spool.close()
    assert told == ["the log is closed; records lost: 2"]
    assert not spool.put(b"late\n")
