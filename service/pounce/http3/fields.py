"""What makes a request's fields one well-formed request (RFC 9114 sections 4.1 to 4.3).

Where a specification leaves a choice between repairing and refusing, pounce refuses, as over
HTTP/1.1: what two implementations may read differently is how requests are smuggled.
"""

import re
from typing import NamedTuple

from pounce.config.service import ServerConfig
from pounce.http.headers import LENGTH_DIGITS, OF_CONNECTIONS
from pounce.http3.errors import RequestFailed
from pounce.http3.qpack import Fields
from pounce.net.forwarded import FORWARDED_FIELDS
from pounce.net.host import is_authority

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
# RFC 9110 section 5.5; RFC 9114 section 10.3 wants malformed what has CR, LF or NUL. A value has
# no white space around it: a field line's would not be part of it.
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_TARGET = re.compile(rb"[\x21\x22\x24-\x7e]+")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))


class HTTP3Head(NamedTuple):
    """A request's fields, checked.

    *target* is ``/path?query`` or ``*``; *headers* begin with the host; *length* is the
    Content-Length, or -1; *forwarded* is whether proxies tell of the client.
    """

    method: str
    target: bytes
    headers: Fields
    length: int
    expects_continue: bool
    forwarded: bool

    @property
    def line(self) -> bytes:
        """What a request line would say."""
        return _line(self.method.encode(), self.target)


def request_head(fields: Fields, config: ServerConfig) -> HTTP3Head:
    """Judge a decoded field section; raises RequestFailed."""
    try:
        return _judged(fields, config)
    except RequestFailed as error:
        pseudo = dict(fields)
        method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        sized = len(method) + len(target) <= config.max_request_line
        if sized and _METHOD.fullmatch(method) and _TARGET.fullmatch(target):
            error.line = _line(method, target)
        raise


def _line(method: bytes, target: bytes) -> bytes:
    return b"%b %b HTTP/3" % (method, target)


def _judged(fields: Fields, config: ServerConfig) -> HTTP3Head:
    _check_size(fields, config)
    pseudo, headers = _divide(fields)
    method = _method(pseudo)
    target = _target(pseudo, method, config)
    length = _length(headers, config)
    names = {name for name, _ in headers}
    return HTTP3Head(
        method,
        target,
        [(b"host", _host(pseudo, headers)), *_joined_cookies(headers)],
        length,
        any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers),
        not names.isdisjoint(FORWARDED_FIELDS),
    )


def check_trailers(fields: Fields, config: ServerConfig) -> None:
    """Judge a trailer section, which is then dropped; raises RequestFailed."""
    _check_size(fields, config)
    pseudo, _ = _divide(fields)
    if pseudo:
        raise RequestFailed(400, "pseudo-header in the trailers")


def _check_size(fields: Fields, config: ServerConfig) -> None:
    if len(fields) > config.max_header_count + len(_PSEUDO):
        raise RequestFailed(431, "too many header fields")
    # As the lines of an HTTP/1.1 head would count.
    size = sum(len(name) + len(value) + 4 for name, value in fields if not name.startswith(b":"))
    if size > config.max_header_size:
        raise RequestFailed(431, "header fields too large")


def _divide(fields: Fields) -> tuple[dict[bytes, bytes], Fields]:
    """Pseudo-header fields and the others, each well-formed."""
    pseudo: dict[bytes, bytes] = {}
    headers: Fields = []
    for name, value in fields:
        if _VALUE.fullmatch(value) is None:
            raise RequestFailed(400, "malformed field value")
        if name.startswith(b":"):
            # RFC 9114 section 4.3: before all others, known, and each once.
            if headers or name not in _PSEUDO or name in pseudo:
                raise RequestFailed(400, "misplaced, unknown or repeated pseudo-header")
            pseudo[name] = value
        else:
            _check_field(name, value)
            headers.append((name, value))
    return pseudo, headers


def _check_field(name: bytes, value: bytes) -> None:
    if _NAME.fullmatch(name) is None:
        raise RequestFailed(400, "malformed field name")
    if name in OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
        raise RequestFailed(400, "connection-specific field")


def _method(pseudo: dict[bytes, bytes]) -> str:
    method = pseudo.get(b":method", b"")
    if _METHOD.fullmatch(method) is None:
        raise RequestFailed(400, "invalid method")
    if method == b"CONNECT" or b":protocol" in pseudo:
        # RFC 9110 section 9.3.6: for proxies. The extended one (RFC 9220) was not offered.
        raise RequestFailed(501, "CONNECT is not supported")
    if method != method.upper():
        raise RequestFailed(501, "unknown method")
    if pseudo.get(b":scheme", b"").lower() != b"https":
        raise RequestFailed(400, "the scheme is not https")
    return method.decode("ascii")


def _target(pseudo: dict[bytes, bytes], method: str, config: ServerConfig) -> bytes:
    target = pseudo.get(b":path", b"")
    if len(target) > config.max_request_line:
        raise RequestFailed(414, "request target too long")
    if _TARGET.fullmatch(target) is None:
        raise RequestFailed(400, "invalid path")
    if not target.startswith(b"/") and not (target == b"*" and method == "OPTIONS"):
        raise RequestFailed(400, "invalid path")
    return target


def _host(pseudo: dict[bytes, bytes], headers: Fields) -> bytes:
    """RFC 9114 section 4.3.1: one authority, and no Host that says something else."""
    hosts = [value for name, value in headers if name == b"host"]
    authority = pseudo.get(b":authority")
    named = {*hosts, *([] if authority is None else [authority])}
    if len(named) != 1 or len(hosts) > 1:
        raise RequestFailed(400, "exactly one authority is required")
    (host,) = named
    if not host or host.startswith(b":") or not is_authority(host):
        raise RequestFailed(400, "invalid authority")
    return host


def _length(headers: Fields, config: ServerConfig) -> int:
    values = [value for name, value in headers if name == b"content-length"]
    if not values:
        return -1
    if len(values) > 1 or not values[0].isdigit():
        raise RequestFailed(400, "invalid Content-Length")
    if len(values[0]) > LENGTH_DIGITS:
        raise RequestFailed(413, "content too large")
    length = int(values[0])
    if config.max_body_size and length > config.max_body_size:
        raise RequestFailed(413, "content too large")
    return length


def _joined_cookies(headers: Fields) -> Fields:
    """The fields but Host, and one Cookie for several (RFC 9114 section 4.2.1)."""
    cookies = [value for name, value in headers if name == b"cookie"]
    if len(cookies) < 2:
        return [field for field in headers if field[0] != b"host"]
    kept = [field for field in headers if field[0] not in (b"host", b"cookie")]
    return [*kept, (b"cookie", b"; ".join(cookies))]
