import socket

import pytest

from pounce.net.address import Address
from pounce.net.host import unix_path

TCP = [
    ("127.0.0.1:8000", Address("tcp", host="127.0.0.1", port=8000)),
    ("localhost:80", Address("tcp", host="localhost", port=80)),
    (":8000", Address("tcp", port=8000)),
    ("[::1]:443", Address("tcp", host="::1", port=443)),
    ("[::]:0", Address("tcp", host="::", port=0)),
    ("[fe80::1%eth0]:80", Address("tcp", host="fe80::1%eth0", port=80)),
    ("a.example:65535", Address("tcp", host="a.example", port=65535)),
    ("a_b-1.example.:80", Address("tcp", host="a_b-1.example.", port=80)),
    ("b\xfccher.example:80", Address("tcp", host="b\xfccher.example", port=80)),
]
OTHERS = [
    ("unix:/run/pounce/shop.sock", Address("unix", path="/run/pounce/shop.sock")),
    ("unix:/a:80", Address("unix", path="/a:80")),
    ("unix:@shop", Address("unix", path="@shop")),
    ("fd:0", Address("fd", fd=0)),
    ("fd:3", Address("fd", fd=3)),
]


@pytest.mark.parametrize(("text", "address"), TCP + OTHERS)
def test_an_address_and_its_text(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize("path", ["/run//shop.sock", "//run/./shop.sock", "/run/shop.sock/"])
def test_a_path_is_what_systemd_makes_of_it(path: str) -> None:
    assert Address.parse(f"unix:{path}") == Address("unix", path="/run/shop.sock")


@pytest.mark.parametrize(
    ("path", "plain"), [("/run/../srv/a.sock", "/srv/a.sock"), ("/run/a/..", "/run")]
)
def test_a_path_that_goes_back_is_told_as_it_should_be(path: str, plain: str) -> None:
    with pytest.raises(ValueError, match=f"goes back by '..'; use unix:{plain}$"):
        Address.parse(f"unix:{path}")


@pytest.mark.parametrize(
    "host",
    [
        *(
            "a b",
            "%H",
            "*",
            "a..b",
            ".a",
            "a/b",
            "a@b",
            64 * "a",
            "127.1",
            "0",
            "0x7f.1",
            "1.2.3.256",
        ),
        *("[:::]", "[1::2::3]", "[fe80::1%]", "[fe80::1%a b]", "[fe80::1%interface-too-long]"),
        *("[fe80::1%a%b]", "[::1%lo]"),
    ],
)
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    with pytest.raises(ValueError, match="is neither an IP address nor a host name; use host:port"):
        Address.parse(f"{host}:80")


def test_a_bare_path_is_a_unix_socket() -> None:
    assert Address.parse("/run/shop.sock") == Address("unix", path="/run/shop.sock")
    assert Address.parse("@shop") == Address("unix", path="@shop")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not an address"),
        ("8000", "'8000' is not an address"),
        ("localhost", "'localhost' is not an address"),
        ("::1:80", "'::1:80' is not an address"),
        ("[::1]", "'[::1]' is not an address"),
        ("http://a:80", "'http://a:80' is not an address"),
        ("a:", "'' in 'a:' is not a port number"),
        ("a:http", "'http' in 'a:http' is not a port number"),
        ("a:65536", "'65536' in 'a:65536' is not a port number"),
        ("a:-1", "'-1' in 'a:-1' is not a port number"),
        ("a:+1", "'+1' in 'a:+1' is not a port number"),
        ("a:\uff18", "'\uff18' in 'a:\uff18' is not a port number"),
        ("fd:", "'' in 'fd:' is not a descriptor number"),
        ("fd:-1", "'-1' in 'fd:-1' is not a descriptor number"),
        ("fd:2147483648", "'2147483648' in 'fd:2147483648' is not a descriptor number"),
    ],
)
def test_what_is_no_address_is_told_with_what_is(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="use ") as caught:
        Address.parse(text)
    allowed = "use host:port, [ipv6]:port, :port, unix:/path, unix:@name or fd:NUMBER"
    assert str(caught.value) == f"{message}; {allowed}"


@pytest.mark.parametrize("text", ["unix:", "unix:run/shop.sock"])
def test_a_unix_path_is_absolute(text: str) -> None:
    with pytest.raises(ValueError, match="is not absolute; use unix:/path"):
        Address.parse(text)


@pytest.mark.parametrize("character", ["a", "é"])
def test_a_unix_path_fits_the_kernels_bytes(character: str) -> None:
    most = 106 // len(character.encode())
    assert Address.parse("/" + most * character).path
    with pytest.raises(ValueError, match="too long; use one of at most 107 bytes"):
        Address.parse("/" + (most + 1) * character)


@pytest.mark.parametrize("name", [106 * "a", "ü", "shop/a b:80"])
def test_an_abstract_name_is_what_the_kernel_has(name: str) -> None:
    address = Address.parse(f"unix:@{name}")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(address.sun_path)
        assert sock.getsockname() == b"\0" + name.encode()
        assert unix_path(sock.getsockname()) == address.path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unix:@" + 107 * "a", "too long; .* 106 after the @"),
        ("unix:/", "cannot be the name"),
        ("unix:///", "cannot be the name"),
        ("unix:@", "cannot be the name"),
        ("unix:@a\0", "cannot be the name"),
        ("unix:/a\0", "cannot be the name"),
    ],
)
def test_what_cannot_be_a_unix_sockets_name(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Address.parse(text)
