"""Structured log entries, straight to the journal.

The wire format is systemd's "Native Journal Protocol": a datagram of fields, each
``NAME=value`` and a newline, or, where the value has line breaks, ``NAME``, newline, its
length as a little-endian 64-bit number, the value, newline. So a traceback is one entry.
"""

import errno
import fcntl
import logging
import os
import socket
import struct
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")

_PRIORITIES = {  # syslog(3) levels
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
_formatter = logging.Formatter()
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def stderr_is_journal() -> bool:
    """Whether standard error is connected to the journal: JOURNAL_STREAM, systemd.exec(5)."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class JournalSocket:
    """Sends entries to the journal; processes and threads may share it: each is one datagram.

    It is connected, for otherwise each entry looks the path up, which takes longer than the rest of
    sending it; and again when a socket that has taken the place of the first one's peer is there.
    Raises OSError where there is no journal.
    """

    def __init__(self, path: Path = JOURNAL_SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.connect(self._path)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def write(self, data: bytes) -> int:
        """Send an entry. Raises OSError, and BlockingIOError where the journal is too slow."""
        try:
            self._socket.send(data, socket.MSG_DONTWAIT)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS):
                self._send_sealed(data)
            elif error.errno in (errno.ENOTCONN, errno.ECONNREFUSED):
                self._socket.connect(self._path)
                self._socket.send(data, socket.MSG_DONTWAIT)
            else:
                raise
        return len(data)

    def follow(self) -> None:
        """It is found anew when it is lost."""

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send_sealed(self, entry: bytes) -> None:
        """Pass an entry too large for a datagram in a memory file that cannot change any more."""
        descriptor = os.memfd_create("pounce-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(entry)
            file.flush()
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))
            self._socket.sendmsg([], [rights], socket.MSG_DONTWAIT)


def encode_record(record: logging.LogRecord) -> bytes:
    """The entry of *record*: its message, its origin, and its journal fields.

    Those are in ``extra={"pounce": {"POUNCE_WORKER": 3, ...}}``.
    """
    extra: Mapping[str, object] = record.__dict__.get("pounce") or {}
    # There is nothing to format but the message, in nearly every record.
    is_plain = not record.exc_info and not record.stack_info
    message = record.getMessage() if is_plain else _formatter.format(record)
    origin = _origin(record.levelno, record.name, record.pathname, record.lineno, record.funcName)
    return encode_entry(extra) + _encode_field("MESSAGE", message) + origin


def encode_entry(fields: Mapping[str, object]) -> bytes:
    """The fields as one datagram of the native journal protocol, or as part of one."""
    return b"".join([_short_field(name, str(value)) for name, value in fields.items()])


@lru_cache(maxsize=64)
def _origin(level: int, name: str, file: str, line: int, function: str | None) -> bytes:
    """What an entry says of the place it comes from: many come from the same."""
    fields = {
        "PRIORITY": _priority(level),
        "SYSLOG_IDENTIFIER": "pounce",
        "LOGGER": name,
        "CODE_FILE": file,
        "CODE_LINE": line,
        "CODE_FUNC": function or "",
    }
    return encode_entry(fields)


def _encode_field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)


# These are nearly always what they were in entries before.
_short_field = lru_cache(maxsize=256)(_encode_field)


def _priority(level: int) -> int:
    """The syslog level of a logging level; custom ones count as the standard one below."""
    standard = max((known for known in _PRIORITIES if known <= level), default=logging.DEBUG)
    return _PRIORITIES[standard]
