"""The opening handshake: which requests are one, what the others are told, what is agreed on."""

import pytest

from pounce.application.types import MessageError
from pounce.config.service import ServerConfig
from pounce.http.defaults import DefaultHeaders
from pounce.websocket.handshake import (
    BadHandshake,
    Handshake,
    accept_response,
    read_handshake,
)

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
BARE = DefaultHeaders(ServerConfig(server_header=False, date_header=False))
GOOD = {
    b"host": b"a.example",
    b"upgrade": b"websocket",
    b"connection": b"Upgrade",
    b"sec-websocket-key": KEY,
    b"sec-websocket-version": b"13",
}


def read(method: str = "GET", compression: bool = True, **changes: bytes | None) -> Handshake:
    fields = GOOD | {name.replace("_", "-").encode(): value for name, value in changes.items()}
    headers = [(name, value) for name, value in fields.items() if value is not None]
    return read_handshake(method, headers, compression=compression)


def test_the_example_of_the_specification_is_accepted() -> None:
    # RFC 6455 section 1.3
    response = accept_response(read(), BARE, None, ())
    assert response == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"upgrade: websocket\r\n"
        b"connection: Upgrade\r\n"
        b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (400, {"method": "POST"}),
        (400, {"content_length": b"5"}),
        (400, {"content_length": b"10"}),
        (400, {"transfer_encoding": b"chunked"}),
        (400, {"sec_websocket_key": None}),
        (400, {"sec_websocket_key": b"short"}),
        (400, {"sec_websocket_key": b"dGhlIHNhbXBsZSBub25jZQ"}),
        (400, {"sec_websocket_key": b"\xff" * 24}),
        (400, {"sec_websocket_key": b"AAAAAAAAAAAAAAAAAAAAAAAA"}),
        (400, {"sec_websocket_version": None}),
        (400, {"sec_websocket_protocol": b"a,,\x7f"}),
        (400, {"sec_websocket_extensions": b"; ="}),
        (400, {"sec_websocket_protocol": b"a," * 100 + b"a"}),
        (400, {"sec_websocket_protocol": b"," * 100 + b"a"}),
        (400, {"sec_websocket_extensions": b"x," * 100 + b"x"}),
        (400, {"sec_websocket_extensions": b"permessage-deflate" + b";a=b" * 100}),
        (400, {"sec_websocket_extensions": b'x;a="' + b"\\a" * 100 + b'"'}),
        (426, {"sec_websocket_version": b"8"}),
        (426, {"sec_websocket_version": b"013"}),
    ],
)
def test_a_bad_handshake_is_refused(status: int, changes: dict[str, object]) -> None:
    with pytest.raises(BadHandshake) as caught:
        read(**changes)  # type: ignore[arg-type]
    assert caught.value.status == status


@pytest.mark.parametrize("length", [b"0", b"00"])
def test_a_length_of_zero_announces_no_content(length: bytes) -> None:
    assert read(content_length=length).key == KEY.decode()


@pytest.mark.parametrize("name", [b"sec-websocket-key", b"sec-websocket-version"])
def test_a_repeated_field_is_refused(name: bytes) -> None:
    with pytest.raises(BadHandshake) as caught:
        read_handshake("GET", [*GOOD.items(), (name, GOOD[name])], compression=True)
    assert caught.value.status == 400


def test_another_version_is_told_ours() -> None:
    with pytest.raises(BadHandshake) as caught:
        read(sec_websocket_version=b"8")
    assert dict(caught.value.fields) == {b"upgrade": b"websocket", b"sec-websocket-version": b"13"}


def test_subprotocols_come_in_the_clients_order() -> None:
    headers = [
        *GOOD.items(),
        (b"sec-websocket-protocol", b"chat, superchat"),
        (b"sec-websocket-protocol", b"v2"),
    ]
    handshake = read_handshake("GET", headers, compression=True)
    assert handshake.subprotocols == ["chat", "superchat", "v2"]
    assert b"\r\nsec-websocket-protocol: v2\r\n" in accept_response(handshake, BARE, "v2", ())


def test_a_hundred_subprotocols_are_read() -> None:
    names = [f"v{number}" for number in range(100)]
    assert read(sec_websocket_protocol=",".join(names).encode()).subprotocols == names


@pytest.mark.parametrize("name", [b"sec-websocket-protocol", b"sec-websocket-extensions"])
def test_elements_of_all_lines_count_together(name: bytes) -> None:
    with pytest.raises(BadHandshake) as caught:
        read_handshake("GET", [*GOOD.items(), *[(name, b"a, a, a")] * 50], compression=True)
    assert caught.value.reason == f"too many elements in {name.decode()}"


def test_a_subprotocol_that_was_not_offered_cannot_be_chosen() -> None:
    with pytest.raises(MessageError, match="did not offer"):
        accept_response(read(sec_websocket_protocol=b"chat"), BARE, "other", ())


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        (None, False),
        (b"permessage-deflate", True),
        (b"permessage-deflate; client_max_window_bits", True),
        (b"x-unknown, permessage-deflate; server_no_context_takeover", True),
        (b"permessage-deflate; server_max_window_bits=99, permessage-deflate", True),
        (b"permessage-deflate; server_max_window_bits=99", False),
        (b"x-unknown", False),
    ],
)
def test_compression_is_agreed_on_where_it_is_offered(offer: bytes | None, agreed: bool) -> None:
    handshake = read(sec_websocket_extensions=offer)
    assert len(handshake.extensions) == agreed
    line = b"\r\nsec-websocket-extensions: permessage-deflate"
    assert (line in accept_response(handshake, BARE, None, ())) == agreed


def test_compression_can_be_turned_off() -> None:
    assert not read(compression=False, sec_websocket_extensions=b"permessage-deflate").extensions


@pytest.mark.parametrize(
    "header",
    [
        (b"Sec-WebSocket-Accept", b"x"),
        (b"connection", b"close"),
        (b"content-length", b"0"),
        (b"x", b"a\r\nb: c"),
        (b"x y", b"z"),
        ("x", "y"),
    ],
)
def test_headers_that_would_break_the_handshake_are_the_applications_error(
    header: tuple[bytes, bytes],
) -> None:
    with pytest.raises(MessageError):
        accept_response(read(), BARE, None, [header])


def test_the_applications_headers_are_sent() -> None:
    response = accept_response(read(), BARE, None, [(b"Set-Cookie", b"a=b")])
    assert response.endswith(b"\r\nset-cookie: a=b\r\n\r\n")


def test_the_default_headers_are_sent() -> None:
    response = accept_response(read(), DefaultHeaders(ServerConfig()), None, ())
    assert b"\r\nserver: pounce\r\ndate: " in response
