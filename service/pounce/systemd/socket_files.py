"""Where a process listens, as the kernel says, and the files of unix sockets there."""

import contextlib
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pounce.net.address import Address

_LISTENS = 0x10000
"""The flag of a socket that accepts connections, in /proc/net/unix: proc_pid_net(5)."""

# The states of listening TCP sockets and of UDP sockets without a peer: tcp_states.h of the kernel.
_STATES = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


class Held(NamedTuple):
    """The sockets with which a process listens: paths, and (table, host, port) of the others."""

    paths: list[str]
    inets: set[tuple[str, str, int]]

    def has(self, address: Address, protocol: str = "tcp") -> bool:
        """Whether the process listens at *address*; for UDP, *protocol* is "udp"."""
        if address.kind == "unix":
            wanted = _resolved(address.path)
            return any(_resolved(path) == wanted for path in self.paths)
        hosts = (_plain(address.host),) if address.host else _WILDCARDS
        return any((protocol, host, address.port) in self.inets for host in hosts)


def held_by(pid: int) -> Held:
    """Where the process *pid* listens; nowhere if it has ended."""
    try:
        inodes = set(_links(Path(f"/proc/{pid}/fd")))
        rows = {table: _rows(pid, table) for table in ("unix", *_STATES)}
    except OSError:
        return Held([], set())
    paths = [
        row[7]
        for row in rows.pop("unix")
        if len(row) == 8 and f"socket:[{row[6]}]" in inodes and int(row[3], 16) & _LISTENS
    ]
    inets = {
        (table.removesuffix("6"), *_inet(row[1]))
        for table, found in rows.items()
        for row in found
        if f"socket:[{row[9]}]" in inodes and row[3] == _STATES[table]
    }
    return Held(paths, inets)


def listened_at(pid: int) -> list[Path]:
    """The paths at which the process *pid* listens; none where it has ended."""
    return [Path(path) for path in held_by(pid).paths if path.startswith("/")]


def _rows(pid: int, table: str) -> list[list[str]]:
    """What a table of proc_pid_net(5) has; one that this kernel does not know has nothing."""
    try:
        text = Path(f"/proc/{pid}/net/{table}").read_text(errors="surrogateescape")
    except FileNotFoundError:
        return []
    most = 7 if table == "unix" else -1  # a path may have blanks
    return [line.split(maxsplit=most) for line in text.splitlines()[1:]]


def _inet(written: str) -> tuple[str, int]:
    """Host and port: the address is hexadecimal, in words of the machine's own byte order."""
    host, _, port = written.partition(":")
    raw = bytes.fromhex(host)
    step = -1 if sys.byteorder == "little" else 1
    words = [raw[at : at + 4][::step] for at in range(0, len(raw), 4)]
    return _shown(ipaddress.ip_address(b"".join(words))), int(port, 16)


def _plain(host: str) -> str:
    """An IP address in its shortest form, without the interface of a link-local one."""
    return _shown(ipaddress.ip_address(host.partition("%")[0]))


def _shown(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _resolved(path: str) -> str:
    return path if path.startswith("@") else os.path.realpath(path)


def _links(directory: Path) -> Iterator[str]:
    for link in directory.iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            yield os.readlink(link)  # noqa: PTH115 - no path: "socket:[" and a number


def remove_stale(path: Path) -> None:
    """Remove the socket at *path* unless somebody listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            return
