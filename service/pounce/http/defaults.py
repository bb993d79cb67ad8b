"""The fields every response has unless the application sets them or an option turns them off."""

import time
from email.utils import formatdate

from pounce.application.types import MessageError
from pounce.config.service import ServerConfig
from pounce.http.headers import LENGTH_DIGITS, checked_field, is_event_stream

SERVER = b"pounce"

# Names that the writer of a response looks at itself.
_SPECIAL = frozenset((b"alt-svc", b"connection", b"date", b"server", b"transfer-encoding"))

_REMEMBERED = 256


class DefaultHeaders:
    """What goes into the heads of a worker's responses, made no oftener than it changes.

    *server*, *date* and *both* hold finished HTTP/1.1 lines, empty where the configuration says
    so. *alternative* is the line that says where else the origin is served (RFC 7838), of the
    *alt_svc* given. *tail* is all three and the head's end, and *fields* are both as pairs;
    `refresh` brings up to date what has the date in it.

    *lines* are those of all other fields, by the field; see `FieldLines`.
    """

    __slots__ = (
        "_until",
        "_with_date",
        "alternative",
        "both",
        "date",
        "fields",
        "lines",
        "server",
        "tail",
    )

    def __init__(self, config: ServerConfig, alt_svc: bytes = b"") -> None:
        self.alternative = b"alt-svc: %b\r\n" % alt_svc if alt_svc else b""
        self._with_date = config.date_header
        self._until = 0.0
        self.server = b"server: %b\r\n" % SERVER if config.server_header else b""
        self.date = b""
        self._join()
        # One for each worker: threads that share one would wait for each other.
        self.lines = FieldLines()
        self.refresh()

    def refresh(self) -> None:
        """Bring the date up to the present second (RFC 9110 section 6.6.1)."""
        now = time.time()
        # The clock may be set back, too.
        if self._with_date and not self._until - 1 <= now < self._until:
            self._until = int(now) + 1
            self.date = b"date: %b\r\n" % formatdate(int(now), usegmt=True).encode("ascii")
            self._join()

    def _join(self) -> None:
        self.both = self.server + self.date
        self.tail = self.both + self.alternative + b"\r\n"
        pairs = (line.partition(b": ") for line in self.both.splitlines())
        self.fields = [(name, value) for name, _, value in pairs]


class FieldLines(dict[tuple[bytes, bytes], tuple[int | bytes | None, bytes]]):
    """The lines of applications' fields, checked; any pair of bytes has one.

    Before the line is what concerns the server in the field: nothing, the length, or a name.
    Applications send the same few fields again and again, so some are remembered. To look a field
    up raises MessageError, and TypeError, ValueError or AttributeError where it is no such pair.
    """

    __slots__ = ()

    def __missing__(self, field: tuple[bytes, bytes]) -> tuple[int | bytes | None, bytes]:
        """Make the line, and remember it."""
        if len(self) >= _REMEMBERED:
            self.clear()
        self[field] = made = _made(*field)
        return made


def _made(name: bytes, value: bytes) -> tuple[int | bytes | None, bytes]:
    # The length differs most often, and of a number there is nothing to check.
    if name != b"content-length" or not value.isdigit():
        name, value = checked_field(name, value)
    if name == b"content-length":
        value = value.strip(b" \t")  # which is not part of a value (RFC 9110 section 5.5)
    line = b"%b: %b\r\n" % (name, value)
    if name == b"content-length":
        if not value.isdigit() or len(value) > LENGTH_DIGITS:
            raise MessageError(f"content-length {value!r} is not one number")
        return int(value), line
    if name == b"content-type" and is_event_stream(value):
        return name, line
    return name if name in _SPECIAL else None, line
