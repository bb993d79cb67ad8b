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
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

# An unresponsive journal delays an entry, and the event loop that writes it, by no more than
# this; then the entry is dropped. A socket timeout would do it by spinning: poll(2) calls an
# unconnected datagram socket writable even while the receiver's queue is full.
_SEND_TIMEOUT = struct.pack("ll", 0, 100_000)


def stderr_is_journal() -> bool:
    """Whether standard error is connected to the journal: JOURNAL_STREAM, systemd.exec(5)."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class JournalHandler(logging.Handler):
    """Sends each record as one journal entry.

    Besides the message, the entry has the record's origin and the journal fields of
    ``extra={"pounce": {"POUNCE_WORKER": 3, ...}}``. The socket is unconnected: it survives a
    restart of the journal and is safe to share among threads and forked children, because
    every entry is one datagram.
    """

    def __init__(self, path: Path = JOURNAL_SOCKET, *, identifier: str = "pounce") -> None:
        super().__init__()
        self._path = str(path)
        self._identifier = identifier
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Send *record*; a failure is told on standard error and never raised."""
        try:
            self._send(encode_entry(self._fields(record)))
        except Exception:  # logging.Handler leaves no error to its caller
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

    def _fields(self, record: logging.LogRecord) -> dict[str, object]:
        extra = getattr(record, "pounce", None) or {}
        return {
            **extra,
            "MESSAGE": record.getMessage() if self._is_plain(record) else self.format(record),
            "PRIORITY": _priority(record.levelno),
            "SYSLOG_IDENTIFIER": self._identifier,
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,
            "CODE_FUNC": record.funcName or "",
        }

    def _is_plain(self, record: logging.LogRecord) -> bool:
        """Whether there is nothing to format but the message, as in nearly every record."""
        return self.formatter is None and not record.exc_info and not record.stack_info

    def _send(self, entry: bytes) -> None:
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_sealed(entry)

    def _send_sealed(self, entry: bytes) -> None:
        """Pass an entry too large for a datagram in a memory file that cannot change any more."""
        descriptor = os.memfd_create("pounce-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(entry)
            file.flush()
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))
            self._socket.sendmsg([], [rights], 0, self._path)


def encode_entry(fields: Mapping[str, object]) -> bytes:
    """The fields as one datagram of the native journal protocol."""
    return b"".join(
        [
            _encode_field(name, str(value)) if name == "MESSAGE" else _short_field(name, str(value))
            for name, value in fields.items()
        ]
    )


def _encode_field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)


# All but the message is nearly always what it was in entries before.
_short_field = lru_cache(maxsize=256)(_encode_field)


@lru_cache(maxsize=64)
def _priority(level: int) -> int:
    """The syslog level of a logging level; custom ones count as the standard one below."""
    standard = max((known for known in _PRIORITIES if known <= level), default=logging.DEBUG)
    return _PRIORITIES[standard]
