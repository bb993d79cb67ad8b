"""A stand-in for the journal: it takes what it is sent, and forgets it.

It listens where systemd-journald does, in a mount namespace that only the server is in, and reads
what the server writes to its output, as the journal would.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread


@contextmanager
def journal(command: list[str], directory: Path) -> Iterator[tuple[int, list[str], str]]:
    """Yields the server's output, its *command* within the namespace, and JOURNAL_STREAM."""
    run = directory / "run"
    path = run / "systemd" / "journal" / "socket"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    native = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    native.bind(str(path))
    ours, stream = socket.socketpair()
    for each in (native, ours):
        Thread(target=_drop, args=(each,), daemon=True).start()
    status = os.fstat(stream.fileno())
    with native, ours, stream:
        yield stream.fileno(), _within(run, command), f"{status.st_dev}:{status.st_ino}"


def _within(run: Path, command: list[str]) -> list[str]:
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = 'mount --bind "$0" /run && exec "$@"'
    return ["unshare", "--mount", *root, "sh", "-c", script, str(run), *command]


def _drop(sock: socket.socket) -> None:
    with suppress(OSError):  # it is closed
        while sock.recv(65_536):
            pass
