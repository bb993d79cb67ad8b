"""Where a process listens, as /proc says."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pounce.net.address import Address
from pounce.systemd.socket_files import held_by, listened_at


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(
    ("host", "same", "others"),
    [
        ("127.0.0.1", ["127.0.0.1"], ["", "[::1]", "0.0.0.0", "127.0.0.2"]),
        ("0.0.0.0", ["0.0.0.0", ""], ["127.0.0.1", "[::]"]),
        ("::1", ["[::1]", "[0:0::1]"], ["", "[::]", "127.0.0.1"]),
        ("::", ["[::]", ""], ["[::1]", "0.0.0.0"]),
        ("::ffff:127.0.0.1", ["127.0.0.1", "[::ffff:127.0.0.1]"], ["[::1]"]),
    ],
)
def test_tcp(stack: ExitStack, host: str, same: list[str], others: list[str]) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = stack.enter_context(socket.socket(family))
    sock.bind((host, 0))
    port = sock.getsockname()[1]
    mine = [Address.parse(f"{each}:{port}") for each in same]
    assert not any(map(held_by(os.getpid()).has, mine))
    sock.listen()
    held = held_by(os.getpid())
    assert all(map(held.has, mine))
    assert not any(held.has(Address.parse(f"{each}:{port}")) for each in others)
    assert not any(held.has(each, "udp") for each in mine)


def test_udp(stack: ExitStack) -> None:
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind(("127.0.0.1", 0))
    address = Address.parse(f"127.0.0.1:{sock.getsockname()[1]}")
    held = held_by(os.getpid())
    assert held.has(address, "udp")
    assert not held.has(address)


def test_unix(stack: ExitStack, tmp_path: Path) -> None:
    path, name = tmp_path / "a b.sock", f"pounce-test-{os.getpid()}"
    for bound in (str(path), f"\0{name}"):
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.bind(bound)
        sock.listen()
    (tmp_path / "link").symlink_to(tmp_path)
    held = held_by(os.getpid())
    for written in (f"unix:{path}", f"unix:{tmp_path}/link/a b.sock", f"unix:@{name}"):
        assert held.has(Address.parse(written)), written
    assert not held.has(Address.parse(f"unix:/{name}"))
    assert path in listened_at(os.getpid())


def test_others_sockets_are_not_its_own(stack: ExitStack) -> None:
    sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    address = Address.parse(f"127.0.0.1:{sock.getsockname()[1]}")
    command = [sys.executable, "-c", "input()"]
    child = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
    assert not held_by(child.pid).has(address)
    child.communicate(b"\n")
    assert not held_by(child.pid).has(address)
