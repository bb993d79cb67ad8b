"""What every request must satisfy, whichever reader parsed it.

Where a specification leaves a choice between repairing and refusing, pounce refuses: a
message that two implementations may read differently is how requests are smuggled
(RFC 9112 section 11.2).
"""

import re

from pounce.config.service import ServerConfig
from pounce.http.headers import LENGTH_DIGITS
from pounce.http1.events import BadRequest, Headers
from pounce.net.host import is_authority

# What may not stand in a head at all: a control character (RFC 9110 section 5.5), CR without LF
# or LF without CR (RFC 9112 section 2.2 lets a recipient accept the latter; proxies differ), and
# a line that continues the one before (RFC 9112 section 5.2). It begins with one set of octets,
# which the re module looks for five times as fast as for alternatives.
_MALFORMED = re.compile(
    rb"[\x00-\x08\x0a-\x1f\x7f]"
    rb"(?:(?<![\r\n])|(?<=\r)[^\n]|(?<=\n)(?:(?<!\r\n)|[ \t]))"
)

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:([^\r]*)", re.IGNORECASE)
_TRANSFER_ENCODING = re.compile(rb"\r\ntransfer-encoding[ \t]*:([^\r]*)", re.IGNORECASE)

_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [\x21-\x7e\x80-\xff]+ HTTP/\d\.\d")

_ABSOLUTE_FORM = re.compile(rb"https?://([^/?]+)(.*)", re.IGNORECASE | re.DOTALL)


def request_line(head: bytearray, config: ServerConfig) -> bytes:
    """The first line of *head* if it is a request's, and not too long; else nothing."""
    end = head.find(b"\r\n", 0, config.max_request_line + 2)
    line = bytes(head[: max(0, end)])
    return line if _REQUEST_LINE.fullmatch(line) else b""


def check_partial(buffer: bytearray, start: int, line_end: int, config: ServerConfig) -> None:
    """Judge an incomplete head, so that nobody waits for what cannot become a request.

    Bytes before *start* were judged before; *line_end* is where the request line ends, or -1.
    """
    if _MALFORMED.search(buffer, start):
        raise BadRequest(400, "malformed head")
    if line_end < 0:
        # The last byte may be the CR that ends the line.
        _check_line(buffer, len(buffer) - buffer.endswith(b"\r"), config)
    elif line_end == 0:
        raise BadRequest(400, "empty request line")
    else:
        _check_line(buffer, line_end, config)
        _check_size(len(buffer) - line_end - 4, config)


def check_block(block: bytes, config: ServerConfig) -> None:
    """Judge a complete head before it is parsed; every line of *block* ends in CRLF."""
    if _MALFORMED.search(block):
        raise BadRequest(400, "malformed head")
    line_end = block.find(b"\r\n")
    if line_end == 0:
        raise BadRequest(400, "empty request line")
    _check_line(block, line_end, config)
    _check_size(len(block) - line_end - 2, config)
    if block.count(b"\r\n") - 1 > config.max_header_count:
        raise BadRequest(431, "too many header fields")
    lengths = _CONTENT_LENGTH.findall(block)
    if lengths:
        _check_lengths(lengths, config)
    codings = _TRANSFER_ENCODING.findall(block)
    if codings:
        _check_codings(codings)


def _check_line(head: bytes | bytearray, length: int, config: ServerConfig) -> None:
    if length > config.max_request_line:
        # RFC 9112 section 3: a method that is longer than any is not taken for a long target.
        if head.find(b" ", 0, config.max_request_line) < 0:
            raise BadRequest(501, "method too long")
        raise BadRequest(414, "request line too long")


def _check_size(length: int, config: ServerConfig) -> None:
    if length > config.max_header_size:
        raise BadRequest(431, "header fields too large")


def _check_lengths(values: list[bytes], config: ServerConfig) -> None:
    # RFC 9110 section 8.6 allows to collapse equal repetitions or to refuse them.
    value = values[0].strip(b" \t")
    if len(values) > 1 or not value.isdigit():
        raise BadRequest(400, "invalid Content-Length")
    if len(value) > LENGTH_DIGITS or int(value) > (config.max_body_size or int(value)):
        raise BadRequest(413, "content too large")


def _check_codings(values: list[bytes]) -> None:
    """RFC 9112 section 6.3 item 4: without chunked at its end nobody knows where content ends."""
    codings = [coding.strip(b" \t").lower() for coding in b",".join(values).split(b",")]
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
        raise BadRequest(400, "the last transfer coding, and only that, has to be chunked")
    if len(codings) > 1:
        raise BadRequest(501, "unknown transfer coding")


def check_head(method: bytes, target: bytes, version: bytes, headers: Headers) -> None:
    """Judge a parsed head; *version* is the digits after ``HTTP/``."""
    # RFC 9110 section 2.5: a minor version above ours is read as ours, another major is not.
    if not version.startswith(b"1."):
        raise BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if method != method.upper():
        # Methods are case-sensitive (RFC 9110 section 9.1), no registered one has a small
        # letter, and ASGI promises the application capital ones: "get" must not become GET.
        raise BadRequest(501, "unknown method")
    _check_coding(version, headers)
    _check_host(version, headers)
    _check_target(method, target)


def _check_coding(version: bytes, headers: Headers) -> None:
    names = [name for name, _ in headers]
    if b"transfer-encoding" not in names:
        return
    # RFC 9112 section 6.1: both together are an attempt at smuggling; in an HTTP/1.0 message
    # the framing is faulty, since an intermediary may have missed it.
    if b"content-length" in names:
        raise BadRequest(400, "both Transfer-Encoding and Content-Length")
    if version == b"1.0":
        raise BadRequest(400, "Transfer-Encoding in an HTTP/1.0 request")


def _check_host(version: bytes, headers: Headers) -> None:
    # RFC 9112 section 3.2: exactly one valid Host in HTTP/1.1, at most one before.
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version != b"1.0"):
        raise BadRequest(400, "exactly one Host is required")
    if hosts and not is_authority(hosts[0]):
        raise BadRequest(400, "invalid Host")


def _check_target(method: bytes, target: bytes) -> None:
    # RFC 9112 section 3.2: which form goes with which method.
    if method == b"CONNECT":
        # RFC 9110 section 9.3.6: for proxies; an origin server need not implement it.
        raise BadRequest(501, "CONNECT is not supported")
    if b"#" in target:
        # A fragment never goes on the wire; cutting it and keeping it give different resources.
        raise BadRequest(400, "fragment in the request target")
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    # RFC 9110 section 4.2.1: an http URI with an empty host is invalid.
    if not absolute or absolute[1].startswith(b":") or not is_authority(absolute[1]):
        raise BadRequest(400, "invalid request target")


def scheme_of(target: bytes, scheme: str, *, trusted: bool) -> str:
    """The scheme of a checked target, *scheme* being the connection's; raises BadRequest.

    RFC 9110 section 7.4: what is for a secure connection must have come over one. A *trusted*
    gateway is believed that it has.
    """
    if scheme == "https" or target[:6].lower() != b"https:":
        return scheme
    if not trusted:
        raise BadRequest(421, "this connection is not secure")
    return "https"


def to_origin_form(target: bytes, headers: Headers) -> tuple[bytes, Headers]:
    """Bring a checked target to the form ``/path?query`` (or ``*``).

    RFC 9112 section 3.2.2: the authority of an absolute target replaces the Host field.
    """
    if target.startswith((b"/", b"*")):
        return target, headers
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    assert absolute is not None, "the reader lets no other form pass"  # noqa: S101
    authority, rest = absolute.groups()
    kept = [(name, value) for name, value in headers if name != b"host"]
    # RFC 9112 section 3.2.4: OPTIONS for a whole server has an empty path; it reads as "/".
    return rest if rest.startswith(b"/") else b"/" + rest, [(b"host", authority), *kept]
