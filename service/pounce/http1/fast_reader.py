"""The reader of plain requests, which is nearly all of them; the rest it leaves to h11.

It recognises and never judges: what does not match, or has a field that is more than data,
goes to the strict reader as if this one had never looked. So it accepts a subset of what the
strict reader accepts, and makes the same events of it.

Clients repeat themselves, and what was recognised before needs no second look: a thread
remembers field lines, and a connection the fields of its last request.
"""

import re
import threading
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from pounce.config.service import ServerConfig
from pounce.http.headers import LENGTH_DIGITS
from pounce.http1.body import SizedBody, WholeBody
from pounce.http1.events import Event, Headers, NeedData, RequestHead
from pounce.http1.reader import RequestReader
from pounce.http1.strict_reader import StrictReader
from pounce.net.forwarded import FORWARDED_FIELDS
from pounce.net.host import is_authority

_METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}

# RFC 9112 sections 3 and 5, narrowed to how clients write it: origin-form without a fragment,
# one space after the colon, none at the end. No quantifier gives back what it took, so the time
# is linear in the head's length, whatever it holds.
_PLAIN_LINE = re.compile(rb"(%b) (/[\x21\x22\x24-\x7e]*+) HTTP/1\.1\r\n" % b"|".join(_METHODS))
_PLAIN_FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]++): ([\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*+)(?<![ \t])"
)

# Fields that say how the message is framed, or how the connection goes on.
_PLAIN_STEERING = frozenset((b"connection", b"content-length"))
_OTHER_STEERING = frozenset((b"expect", b"te", b"trailer", b"transfer-encoding", b"upgrade"))

# All that is more than data for the application.
_NOTED = _PLAIN_STEERING | _OTHER_STEERING | FORWARDED_FIELDS

_KEEP_ALIVE = {b"keep-alive": True, b"Keep-Alive": True, b"close": False}

# What lines a thread remembers: so many, none longer, and nobody's secrets.
_REMEMBERED = 512
_LONGEST_REMEMBERED = 256
_SECRETS = frozenset((b"authorization", b"cookie", b"proxy-authorization"))


class _Unusual(Exception):
    """It is for the strict reader."""


class _Lines(threading.local):
    """The field lines that were recognised before, as name and value.

    One for each thread, for threads that share one would wait for each other.
    """

    def __init__(self) -> None:
        self.known: dict[bytes, tuple[bytes, bytes]] = {}


_lines = _Lines()


class _Fields(NamedTuple):
    """What a request says after its first line, as far as it is plain."""

    headers: Headers
    keep_alive: bool
    length: int
    forwarded: bool


_NOTHING = _Fields([], True, 0, False)

# The constructor that NamedTuple makes is written in Python, and takes three times as long.
_head: Callable[[tuple[object, ...]], RequestHead] = partial(tuple.__new__, RequestHead)


class FastReader(StrictReader):
    """Takes plain heads apart itself, and has the strict reader do all others."""

    __slots__ = ("_block", "_fields", "_head", "_known", "_max_count", "_max_size", "_section")

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(config)
        # A head no longer than both keeps them; which one a longer head breaks, others judge.
        self._max_size = min(config.max_request_line, config.max_header_size)
        self._max_count = config.max_header_count
        self._known = _lines.known
        self.forget()

    def receive(self, data: bytes) -> Event | NeedData:
        """Take bytes as they were received, and return the next event; raises BadRequest."""
        body = self.body
        if self.buffer or self._skipped or (body is not None and not body.complete):
            return super().receive(data)
        self.again = self.body = None
        # Straight from what was received: nearly every request comes whole and alone.
        end = data.find(b"\r\n\r\n") + 4
        head = self._plain_head(data if end == len(data) else data[:end])
        if head is None:
            self.buffer += data
            return RequestReader.next_event(self)
        length = self._fields.length
        if length and len(data) - end == length:
            self.body = WholeBody(data[end:])
            return head
        if length:
            self.body = SizedBody(length)
        if end != len(data):
            self.buffer += data[end:]
        elif not length:
            self.again = data
        return head

    def next_event(self) -> Event | NeedData:
        """The next event, or NEED_DATA; raises BadRequest."""
        # A head that comes in pieces is not looked at again and again.
        if self.body is None and not self._scanned and not self._skipped:
            end = self.buffer.find(b"\r\n\r\n", 0, self._max_size) + 4
            head = self._plain_head(bytes(self.buffer[:end]))
            if head is not None:
                del self.buffer[:end]
                if self._fields.length:
                    self.body = SizedBody(self._fields.length)
                return head
        return super().next_event()

    def forget(self) -> None:
        """Drop what is remembered of the last request."""
        self._block = b""
        self._section: bytes | None = None
        self._head: RequestHead | None = None
        self._fields = _NOTHING
        self.again = None

    def _plain_head(self, block: bytes) -> RequestHead | None:
        if block != self._block:
            head = self._parse_plain_head(block)
            if head is None:
                return None
            self._block, self._head = block, head
        return self._head

    def _parse_plain_head(self, block: bytes) -> RequestHead | None:
        match = _PLAIN_LINE.match(block)
        if match is None or len(block) > self._max_size:
            return None
        section = block[match.end() : -4]
        if section != self._section:
            try:
                self._fields = self._plain_fields(section)
            except _Unusual:
                return None
            self._section = section
        method, target = match.groups()
        headers, keep_alive, length, forwarded = self._fields
        return _head(
            (
                _METHODS[method],
                target,
                headers,
                "1.1",
                keep_alive,
                False,
                length > 0,
                forwarded,
                False,
            )
        )

    def _plain_fields(self, section: bytes) -> _Fields:
        known, parse = self._known, self._plain_field
        headers = [known.get(line) or parse(line) for line in section.split(b"\r\n")]
        fields = dict(headers)
        if len(headers) != len(fields) or len(headers) > self._max_count:
            raise _Unusual
        if b"host" not in fields:
            raise _Unusual
        if _NOTED.isdisjoint(fields):
            return _Fields(headers, True, 0, False)
        keep_alive, length = self._plain_steering(fields)
        return _Fields(headers, keep_alive, length, not FORWARDED_FIELDS.isdisjoint(fields))

    def _plain_field(self, line: bytes) -> tuple[bytes, bytes]:
        match = _PLAIN_FIELD.fullmatch(line)
        if match is None:
            raise _Unusual
        name, value = match.groups()
        field = name.lower(), value
        if field[0] == b"host" and not is_authority(value):
            raise _Unusual
        known = self._known
        if len(line) <= _LONGEST_REMEMBERED and field[0] not in _SECRETS:
            if len(known) >= _REMEMBERED:
                known.clear()
            known[line] = field
        return field

    def _plain_steering(self, fields: dict[bytes, bytes]) -> tuple[bool, int]:
        """Whether the connection persists, and the content's length."""
        keep_alive = _KEEP_ALIVE.get(fields.get(b"connection", b"keep-alive"))
        digits = fields.get(b"content-length", b"0")
        if (
            keep_alive is None
            or not digits.isdigit()
            or len(digits) > LENGTH_DIGITS
            or not _OTHER_STEERING.isdisjoint(fields)
        ):
            raise _Unusual
        length = int(digits)
        limit = self._config.max_body_size
        if limit and length > limit:
            raise _Unusual
        return keep_alive, length
