"""The files of unix sockets at which a service listens, though its unit may name others by now."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_LISTENS = 0x10000
"""The flag of a socket that accepts connections, in /proc/net/unix: proc_pid_net(5)."""


def listened_at(pid: int) -> list[Path]:
    """The paths at which the process *pid* listens; none where it has ended."""
    try:
        held = set(_links(Path(f"/proc/{pid}/fd")))
        table = Path(f"/proc/{pid}/net/unix").read_text(errors="surrogateescape")
    except OSError:
        return []
    rows = (line.split(maxsplit=7) for line in table.splitlines()[1:])
    return [
        Path(path)
        for _, _, _, flags, _, _, inode, path in (row for row in rows if len(row) == 8)
        if f"socket:[{inode}]" in held and int(flags, 16) & _LISTENS and path.startswith("/")
    ]


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
