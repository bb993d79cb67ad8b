"""X-Forwarded-For, -Proto and -Host: who is believed, and how far."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pounce.net.forwarded import Client, Origin, TrustedProxies, parse_hop

PEER = ("127.0.0.1", 5000)
PROXIES = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32", "unix"])


@pytest.mark.parametrize(
    ("allow", "client", "trusted"),
    [
        (["127.0.0.1"], ("127.0.0.1", 1), True),
        (["127.0.0.1"], ("127.0.0.2", 1), False),
        (["127.0.0.1"], ("::ffff:127.0.0.1", 1), True),
        (["10.0.0.0/8"], ("10.9.8.7", 1), True),
        (["::1"], ("::1", 1), True),
        (["::1"], None, False),
        (["unix"], None, True),
        (["unix"], ("127.0.0.1", 1), False),
        (["*"], ("203.0.113.1", 1), True),
        (["*"], None, True),
        ([], ("127.0.0.1", 1), False),
        ([], None, False),
    ],
)
def test_trusts_peer(allow: list[str], client: Client | None, *, trusted: bool) -> None:
    assert TrustedProxies(allow).trusts_peer(client) is trusted


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        ([], PEER),
        (["203.0.113.9"], ("203.0.113.9", 0)),
        (["203.0.113.9:8080"], ("203.0.113.9", 8080)),
        (["[2001:db9::1]:443"], ("2001:db9::1", 443)),
        (["1.1.1.1, 203.0.113.9"], ("203.0.113.9", 0)),
        (["1.1.1.1, 203.0.113.9, 10.0.0.1"], ("203.0.113.9", 0)),
        (["1.1.1.1", "203.0.113.9 ,\t10.0.0.1"], ("203.0.113.9", 0)),
        (["10.0.0.2, 10.0.0.1"], ("10.0.0.2", 0)),
        (["203.0.113.9, unknown"], PEER),
        (["203.0.113.9, unknown, 10.0.0.1"], ("10.0.0.1", 0)),
        (["unknown"], PEER),
        ([""], PEER),
        (["1.2.3.4:99999999"], PEER),
        (["\x00"], PEER),
    ],
)
def test_client(fields: list[str], client: Client) -> None:
    headers = [(b"x-forwarded-for", field.encode()) for field in fields]
    assert PROXIES.resolve(Origin(PEER, "http", headers)).client == client


def test_everybody_trusted_means_the_leftmost() -> None:
    headers = [(b"x-forwarded-for", b"203.0.113.1, 203.0.113.2")]
    assert TrustedProxies(["*"]).resolve(Origin(PEER, "http", headers)).client == (
        "203.0.113.1",
        0,
    )


@pytest.mark.parametrize(
    ("hops", "proto", "scheme"),
    [
        ("203.0.113.9", "https", "https"),
        ("203.0.113.9", "HTTPS", "https"),
        ("203.0.113.9", "gopher", "http"),
        ("203.0.113.9", "https, http", "http"),
        ("203.0.113.9, 10.0.0.1", "https, http", "https"),
        ("203.0.113.9, 10.0.0.1", "https", "https"),
        ("", "https", "https"),
    ],
)
def test_scheme(hops: str, proto: str, scheme: str) -> None:
    headers = [(b"x-forwarded-for", hops.encode()), (b"x-forwarded-proto", proto.encode())]
    assert PROXIES.resolve(Origin(PEER, "http", headers)).scheme == scheme


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"shop.example:8443", b"shop.example:8443"),
        (b"a b", b"origin"),
        (b"a/b", b"origin"),
        (b"", b"origin"),
    ],
)
def test_host(value: bytes, host: bytes) -> None:
    headers = [(b"x", b"y"), (b"host", b"origin"), (b"x-forwarded-host", value)]
    resolved = PROXIES.resolve(Origin(PEER, "http", headers)).headers
    assert [v for name, v in resolved if name == b"host"] == [host]
    assert (b"x", b"y") in resolved
    assert headers[1] == (b"host", b"origin")


def test_without_fields_nothing_is_made_anew() -> None:
    origin = Origin(None, "http", [(b"host", b"a")])
    assert PROXIES.resolve(origin) is origin


@given(st.binary(max_size=60))
def test_no_value_breaks_it(value: bytes) -> None:
    names = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")
    resolved = PROXIES.resolve(Origin(PEER, "http", [(name, value) for name in names]))
    assert resolved.client is not None
    assert resolved.scheme in {"http", "https"}


@given(st.ip_addresses(), st.integers(0, 65535))
def test_addresses_with_ports(address: object, port: int) -> None:
    text = f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
    found = parse_hop(text.encode())
    assert found is not None
    assert found[1] == port
