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
# this; then the entry is dropped. A socket timeout would cost every entry a poll(2).
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
    ``extra={"pounce": {"POUNCE_WORKER": 3, ...}}``. The socket is safe to share among threads and
    forked children, because every entry is one datagram. It is connected, for otherwise each entry
    looks the path up, which takes longer than the rest of sending it; and again when a socket that
    has taken the place of the first one's peer is there.
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
            self._send(self._entry(record))
        except Exception:  # logging.Handler leaves no error to its caller
            self.handleError(record)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

    def _entry(self, record: logging.LogRecord) -> bytes:
        extra: Mapping[str, object] = getattr(record, "pounce", None) or {}
        message = record.getMessage() if self._is_plain(record) else self.format(record)
        origin = _origin(
            record.levelno,
            self._identifier,
            record.name,
            record.pathname,
            record.lineno,
            record.funcName,
        )
        return encode_entry(extra) + _encode_field("MESSAGE", message) + origin

    def _is_plain(self, record: logging.LogRecord) -> bool:
        """Whether there is nothing to format but the message, as in nearly every record."""
        return self.formatter is None and not record.exc_info and not record.stack_info

    def _send(self, entry: bytes) -> None:
        try:
            self._socket.send(entry)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS):
                self._send_sealed(entry)
            elif error.errno in (errno.ENOTCONN, errno.ECONNREFUSED):
                self._socket.connect(self._path)
                self._send(entry)
            else:
                raise

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
    """The fields as one datagram of the native journal protocol, or as part of one."""
    return b"".join([_short_field(name, str(value)) for name, value in fields.items()])


@lru_cache(maxsize=64)
def _origin(
    level: int, identifier: str, name: str, file: str, line: int, function: str | None
) -> bytes:
    """What an entry says of the place it comes from: many come from the same."""
    fields = {
        "PRIORITY": _priority(level),
        "SYSLOG_IDENTIFIER": identifier,
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
