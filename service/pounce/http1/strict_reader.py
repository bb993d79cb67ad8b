"""The reader with the last word: h11 judges every head."""

from typing import Literal

import h11

from pounce.http1.events import MOST_ELEMENTS, BadRequest, Headers, RequestHead
from pounce.http1.reader import RequestReader
from pounce.http1.rules import check_head
from pounce.net.forwarded import FORWARDED_FIELDS


class StrictReader(RequestReader):
    """Has h11 parse each head, within the rules that all readers share."""

    __slots__ = ()

    def _parse_head(self, block: bytes) -> RequestHead:
        request = _parse(block)
        headers: Headers = list(request.headers)
        check_head(request.method, request.target, request.http_version, headers)
        version: Literal["1.0", "1.1"] = "1.0" if request.http_version == b"1.0" else "1.1"
        fields = _options(headers)
        return RequestHead(
            method=request.method.decode("ascii"),
            target=request.target,
            headers=headers,
            http_version=version,
            keep_alive=_keep_alive(version, fields[b"connection"]),
            # RFC 9110 section 10.1.1: the expectation of an HTTP/1.0 client is ignored.
            expect_continue=version == "1.1" and b"100-continue" in fields[b"expect"],
            has_body=_has_body(headers),
            forwarded=any(name in FORWARDED_FIELDS for name, _ in headers),
            # RFC 9110 section 7.8: without the connection option it was not meant for this hop,
            # and an HTTP/1.0 client is not believed.
            websocket=version == "1.1"
            and b"upgrade" in fields[b"connection"]
            and b"websocket" in fields[b"upgrade"],
        )


def _parse(block: bytes) -> h11.Request:
    # A connection of its own for every head: h11 is the judge here, not the keeper of state.
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(block) + 2)
    connection.receive_data(block + b"\r\n")
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        # What h11 says quotes the client's bytes; they do not belong in a response.
        raise BadRequest(error.error_status_hint, "malformed head") from error
    if not isinstance(event, h11.Request):
        raise BadRequest(400, "malformed head")
    return event


_STEERING = (b"connection", b"expect", b"upgrade")


def _options(headers: Headers) -> dict[bytes, set[bytes]]:
    """The comma-separated, case-insensitive members of the fields that steer the connection."""
    found: dict[bytes, set[bytes]] = {name: set() for name in _STEERING}
    steering = [field for field in headers if field[0] in found]
    if sum(value.count(b",") for _, value in steering) >= MOST_ELEMENTS:
        # RFC 9110 section 5.6.1.2 asks for a reasonable number. To read some of them alone could
        # miss "close" or "upgrade", which a proxy in front has seen.
        raise BadRequest(400, "too many elements in Connection, Expect or Upgrade")
    for name, value in steering:
        found[name].update(member.strip(b" \t") for member in value.lower().split(b","))
    return found


def _keep_alive(version: str, options: set[bytes]) -> bool:
    """RFC 9112 section 9.3: HTTP/1.1 persists unless told not to, HTTP/1.0 only when asked."""
    if b"close" in options:
        return False
    return version == "1.1" or b"keep-alive" in options


def _has_body(headers: Headers) -> bool:
    """RFC 9112 section 6.3: a request has content when one of two fields says so."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and int(value) > 0)
        for name, value in headers
    )
