"""The reader of plain requests, which is nearly all of them; the rest it leaves to h11.

It recognises and never judges: what does not match, or has a field that is more than data,
goes to the strict reader as if this one had never looked. So it accepts a subset of what the
strict reader accepts, and makes the same events of it.
"""

import re
from collections.abc import Callable
from functools import partial

from pounce.config import ServerConfig
from pounce.http1.body import SizedBody
from pounce.http1.events import Event, Headers, NeedData, RequestHead
from pounce.http1.strict_reader import StrictReader
from pounce.net.forwarded import FORWARDED_FIELDS
from pounce.net.host import is_authority

_METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}

# RFC 9112 sections 3 and 5, narrowed to how clients write it: origin-form without a fragment,
# one space after the colon, none at the end. No quantifier gives back what it took, so the time
# is linear in the head's length, whatever it holds.
_FIELD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++: [\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*+(?<![ \t])"
_PLAIN_HEAD = re.compile(
    rb"(%b) (/[\x21\x22\x24-\x7e]*+) HTTP/1\.1\r\n(%b(?:\r\n%b)*+)\r\n\r\n"
    % (b"|".join(_METHODS), _FIELD, _FIELD)
)

# Fields that say how the message is framed, or how the connection goes on.
_PLAIN_STEERING = frozenset((b"connection", b"content-length"))
_OTHER_STEERING = frozenset((b"expect", b"te", b"trailer", b"transfer-encoding", b"upgrade"))

# All that is more than data for the application.
_NOTED = _PLAIN_STEERING | _OTHER_STEERING | FORWARDED_FIELDS

_KEEP_ALIVE = {b"keep-alive": True, b"Keep-Alive": True, b"close": False}

# So few digits are read alike by everybody.
_MAX_LENGTH_DIGITS = 18


# The constructor that NamedTuple makes is written in Python, and takes three times as long.
_head: Callable[[tuple[object, ...]], RequestHead] = partial(tuple.__new__, RequestHead)


class FastReader(StrictReader):
    """Takes plain heads apart itself, and has the strict reader do all others."""

    __slots__ = ("_host", "_max_count", "_max_size")

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(config)
        # A head no longer than both keeps them; which one a longer head breaks, others judge.
        self._max_size = min(config.max_request_line, config.max_header_size)
        self._max_count = config.max_header_count
        self._host: bytes | None = b""

    def next_event(self) -> Event | NeedData:
        """The next event, or NEED_DATA; raises BadRequest."""
        # A head that comes in pieces is not looked at again and again.
        if self._body is None and not self._scanned and not self._skipped:
            head = self._read_plain_head()
            if head is not None:
                return head
        return super().next_event()

    def _read_plain_head(self) -> RequestHead | None:
        match = _PLAIN_HEAD.match(self._buffer)
        if match is None or (end := match.end()) > self._max_size:
            return None
        method, target, lines = match.groups()
        headers: Headers = []
        fields: dict[bytes, bytes] = {}
        for line in lines.split(b"\r\n"):
            name, _, value = line.partition(b": ")
            name = name.lower()
            headers.append((name, value))
            fields[name] = value
        if len(headers) != len(fields) or len(headers) > self._max_count:
            return None
        host = fields.get(b"host")
        # A client names the same one again and again.
        if host != self._host:
            if host is None or not is_authority(host):
                return None
            self._host = host
        keep_alive, length, forwarded = True, 0, False
        if not _NOTED.isdisjoint(fields):
            steering = self._plain_steering(fields)
            if steering is None:
                return None
            keep_alive, length = steering
            forwarded = not FORWARDED_FIELDS.isdisjoint(fields)
        del self._buffer[:end]
        if length:
            self._body = SizedBody(length)
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

    def _plain_steering(self, fields: dict[bytes, bytes]) -> tuple[bool, int] | None:
        """Whether the connection persists, and the content's length; None if not plainly said."""
        keep_alive = _KEEP_ALIVE.get(fields.get(b"connection", b"keep-alive"))
        digits = fields.get(b"content-length", b"0")
        if (
            keep_alive is None
            or not digits.isdigit()
            or len(digits) > _MAX_LENGTH_DIGITS
            or not _OTHER_STEERING.isdisjoint(fields)
        ):
            return None
        length = int(digits)
        limit = self._config.max_body_size
        return None if limit and length > limit else (keep_alive, length)
