"""The opening handshake: a request judged, and the response that accepts it; no I/O."""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass

from websockets.exceptions import InvalidHandshake, NegotiationError
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.headers import build_extension, parse_extension, parse_subprotocol
from websockets.utils import accept_key

from pounce.application.types import MessageError
from pounce.http.defaults import DefaultHeaders
from pounce.http.headers import checked_fields
from pounce.http1.events import MOST_ELEMENTS, Headers

# A window of 4 KiB instead of 32 KiB, and less memory for finding matches, compress short
# messages about as well, and a connection takes a tenth of the memory.
_DEFLATE = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
)

# What makes a list long to read: its elements, their parameters, and escapes in quoted strings.
_MARKS = ",;\\"

# What the handshake itself says, and what a 101 response cannot have (RFC 9110 section 8.6).
_RESERVED = frozenset(
    (
        b"connection",
        b"content-length",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
        b"transfer-encoding",
        b"upgrade",
    )
)


class BadHandshake(Exception):
    """The handshake is refused with *status* and the header fields *fields*."""

    def __init__(self, status: int, reason: str, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.fields = fields


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a client has asked for.

    *subprotocols* are in the client's order. *extensions* were agreed on, and *agreement* tells
    the client which; it is empty where there are none.
    """

    key: str
    subprotocols: list[str]
    extensions: list[PerMessageDeflate]
    agreement: str


def read_handshake(method: str, headers: Headers, *, compression: bool) -> Handshake:
    """Judge a request that asks to go on with WebSocket (RFC 6455 section 4.2.1).

    That it is an HTTP/1.1 request with the right Upgrade and Connection fields was found before.
    Raises BadHandshake.
    """
    if method != "GET" or any(_announces_content(*field) for field in headers):
        raise _bad("a WebSocket handshake is a GET without content")
    version = _only(headers, b"sec-websocket-version")
    if version != "13":
        # RFC 6455 section 4.4; RFC 9110 section 15.5.22 asks for the Upgrade field.
        fields = ((b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"))
        raise BadHandshake(426, "the WebSocket version is 13", fields)
    key = _only(headers, b"sec-websocket-key")
    if not _is_key(key):
        raise _bad("Sec-WebSocket-Key is not 16 bytes in base64")
    try:
        offered = [
            name
            for value in _lists(headers, b"sec-websocket-protocol")
            for name in parse_subprotocol(value)
        ]
        agreement, extensions = _negotiate(headers) if compression else ("", [])
    except InvalidHandshake as error:
        raise _bad("malformed WebSocket handshake") from error
    return Handshake(key, list(offered), extensions, agreement)


def accept_response(
    handshake: Handshake,
    defaults: DefaultHeaders,
    subprotocol: str | None,
    headers: Iterable[Iterable[bytes]],
) -> bytes:
    """The response that opens the WebSocket; raises MessageError."""
    lines = [
        b"upgrade: websocket",
        b"connection: Upgrade",
        b"sec-websocket-accept: " + accept_key(handshake.key).encode(),
    ]
    if subprotocol is not None:
        if subprotocol not in handshake.subprotocols:
            # RFC 6455 section 4.1: the client would have to fail the connection.
            raise MessageError(f"the client did not offer the subprotocol {subprotocol!r}")
        lines.append(b"sec-websocket-protocol: " + subprotocol.encode())
    if handshake.agreement:
        lines.append(b"sec-websocket-extensions: " + handshake.agreement.encode())
    for name, value in checked_fields(headers):
        if name in _RESERVED:
            raise MessageError(f"the header {name!r} of a WebSocket handshake is the server's own")
        lines.append(name + b": " + value)
    defaults.refresh()
    return b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n%b\r\n" % (
        b"\r\n".join(lines),
        defaults.both,
    )


def _announces_content(name: bytes, value: bytes) -> bool:
    # A length of 0 says that there is none (RFC 9110 section 8.6), as small devices do say.
    return name == b"transfer-encoding" or (
        name == b"content-length" and value.strip(b"0 \t") != b""
    )


def _bad(reason: str) -> BadHandshake:
    return BadHandshake(400, reason, ())


def _values(headers: Headers, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in headers if name == wanted]


def _lists(headers: Headers, wanted: bytes) -> list[str]:
    """The lists of *wanted*, which the library takes 40 ms to read where they fill a head."""
    values = _values(headers, wanted)
    if sum(value.count(mark) for value in values for mark in _MARKS) >= MOST_ELEMENTS:
        raise _bad(f"too many elements in {wanted.decode()}")
    return values


def _only(headers: Headers, wanted: bytes) -> str:
    values = _values(headers, wanted)
    if len(values) != 1:
        raise _bad(f"exactly one {wanted.decode()} is required")
    return values[0]


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key.encode(), validate=True)) == 16
    except binascii.Error:
        return False


def _negotiate(headers: Headers) -> tuple[str, list[PerMessageDeflate]]:
    """Agree to the first offer of compression that can be met (RFC 7692 section 5.1)."""
    for value in _lists(headers, b"sec-websocket-extensions"):
        for name, parameters in parse_extension(value):
            if name == _DEFLATE.name:
                try:
                    agreed, extension = _DEFLATE.process_request_params(parameters, [])
                except NegotiationError:
                    continue
                return build_extension([(name, agreed)]), [extension]
    return "", []
