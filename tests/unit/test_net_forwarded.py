"""X-Forwarded-For and its kin, and Forwarded: who is believed, and how far."""

import re
import time
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pounce.net.forwarded import (
    Client,
    ForwardedFields,
    Origin,
    TrustedProxies,
    _elements,
    parse_node,
)

PEER = ("127.0.0.1", 5000)
TRUSTED = ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32", "unix")
PROXIES = TrustedProxies(TRUSTED)
X_FORWARDED = tuple(
    b"x-forwarded-" + each for each in (b"for", b"proto", b"host", b"port", b"prefix")
)


@pytest.mark.parametrize(
    ("allow", "client", "trusted"),
    [
        (["127.0.0.1"], ("127.0.0.1", 1), True),
        (["127.0.0.1"], ("127.0.0.2", 1), False),
        (["127.0.0.1"], ("::ffff:127.0.0.1", 1), True),
        (["10.0.0.0/8"], ("10.9.8.7", 1), True),
        (["::ffff:127.0.0.1"], ("127.0.0.1", 1), True),
        (["::ffff:127.0.0.1"], ("127.0.0.2", 1), False),
        (["::ffff:10.0.0.0/104"], ("::ffff:10.9.8.7", 1), True),
        (["::/0"], ("10.9.8.7", 1), False),
        (["fe80::/10"], ("fe80::1%eth0", 1), True),
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
        (["[203.0.113.9]"], PEER),  # RFC 7239 section 6: brackets are for IPv6
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
        (["1.2.3.4:65536"], PEER),
        (["2001:db9::1"], ("2001:db9::1", 0)),
        (["::ffff:192.0.2.1"], ("192.0.2.1", 0)),
        (["fe80::1%eth0"], PEER),
        (["unix:"], PEER),
        # An empty member is somebody's word too, not a gap to look through.
        (["203.0.113.9, "], PEER),
        (["203.0.113.9", ""], PEER),
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
        ("203.0.113.9", "wss", "https"),
        # What 10.0.0.1 wrote: it hides the client, but says how it came.
        ("unknown, 10.0.0.1", "https, http", "https"),
        ("nonsense, 10.0.0.1", "https, http", "http"),
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


LISTENER = ("192.0.2.1", 8000)


@pytest.mark.parametrize(
    ("hops", "value", "port"),
    [
        ("203.0.113.9", b"8443", 8443),
        ("", b"443", 443),
        ("203.0.113.9", b"80, 8443", 8443),
        ("203.0.113.9, 10.0.0.1", b"443, 8080", 443),
        ("203.0.113.9, 10.0.0.1", b"8443", 8443),
        ("203.0.113.9", b"65535", 65535),
        *(("203.0.113.9", bad, 8000) for bad in (b"", b"0", b"65536", b"-1", b"+80", b"8 0")),
        ("203.0.113.9", b"9" * 60_000, 8000),
        ("203.0.113.9", "\u0664\u0664\u0663".encode(), 8000),
    ],
)
def test_port(hops: str, value: bytes, port: int) -> None:
    headers = [(b"host", b"a"), (b"x-forwarded-for", hops.encode()), (b"x-forwarded-port", value)]
    resolved = PROXIES.resolve(Origin(PEER, "http", headers, LISTENER))
    assert resolved.server == ("192.0.2.1", port)
    assert resolved.headers == headers


@pytest.mark.parametrize(
    ("hosts", "name"),
    [
        ([b"shop.example:80"], "shop.example"),
        ([b"[2001:db8::1]:80"], "[2001:db8::1]"),
        ([b"[2001:db8::1]"], "[2001:db8::1]"),
        ([b""], "localhost"),
        ([], "localhost"),
    ],
)
def test_the_port_of_a_unix_socket_goes_with_the_name_that_clients_use(
    hosts: list[bytes], name: str
) -> None:
    headers = [*((b"host", host) for host in hosts), (b"x-forwarded-port", b"443")]
    resolved = PROXIES.resolve(Origin(None, "http", headers, ("/run/shop.sock", None)))
    assert resolved.server == (name, 443)


@pytest.mark.parametrize(
    ("hops", "values", "root_path"),
    [
        ("203.0.113.9", [b"/shop"], "/shop"),
        ("203.0.113.9", [b"/shop/eu/"], "/shop/eu"),
        ("203.0.113.9", [b"/my%20sh%C3%B6p"], "/my sh\u00f6p"),
        ("203.0.113.9", ["/sh\u00f6p".encode()], "/sh\u00f6p"),
        ("203.0.113.9", [b"/evil, /shop"], "/shop"),
        ("203.0.113.9", [b"/evil", b"/shop"], "/shop"),
        ("", [b"/evil, /shop"], "/shop"),
        # Each has taken its own off.
        ("203.0.113.9, 10.0.0.1", [b"/shop, /eu"], "/shop/eu"),
        ("203.0.113.9, 10.0.0.1", [b"/evil, /shop, /eu"], "/shop/eu"),
        ("203.0.113.9, 10.0.0.1", [b"/shop"], "/shop"),
        ("203.0.113.9, 10.0.0.1", [b"/shop, /"], "/shop"),
        # What is no prefix says nothing.
        *(
            ("203.0.113.9, 10.0.0.1", [bad], "/configured")
            for bad in (
                *(b"", b"/", b"//", b"//evil.example", b"/a//b", b"shop", b"/a b", b"/\\evil"),
                *(b"/%2Fevil.example", b"/%5cevil", b"/a%0d%0ab", b"/%7f", b"/%", b"/%zz"),
                *(b"/a?b", b"/a#b", b"/\x00", b"/\x7f", b"/\xff", b"/%ff", b"/\xc2\x85"),
                *(b"/shop, //evil.example", b"http://evil.example", b"/%E2%80%A8"),
            )
        ),
    ],
)
def test_prefix(hops: str, values: list[bytes], root_path: str) -> None:
    fields = [(b"x-forwarded-prefix", value) for value in values]
    origin = Origin(
        PEER, "http", [(b"x-forwarded-for", hops.encode()), *fields], LISTENER, "/configured"
    )
    assert PROXIES.resolve(origin).root_path == root_path


def test_without_fields_nothing_is_made_anew() -> None:
    origin = Origin(None, "http", [(b"host", b"a")])
    assert PROXIES.resolve(origin) is origin


def forwarded(*lines: str, fields: ForwardedFields = "auto") -> Origin:
    """What a trusted peer's Forwarded fields make of a request to ``origin``."""
    headers = [(b"host", b"origin"), *((b"forwarded", line.encode()) for line in lines)]
    return TrustedProxies(TRUSTED, fields).resolve(Origin(PEER, "http", headers))


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["for=203.0.113.9"], ("203.0.113.9", 0)),
        (["For=203.0.113.9"], ("203.0.113.9", 0)),
        (['for="203.0.113.9:8080"'], ("203.0.113.9", 8080)),
        (['for="203.0.113.9:_port"'], ("203.0.113.9", 0)),
        (['for="[2001:db9::1]"'], ("2001:db9::1", 0)),
        (['for="[2001:db9::1]:443"'], ("2001:db9::1", 443)),
        ([r'for="\2\0\3.0.113.9"'], ("203.0.113.9", 0)),
        (["for=1.1.1.1, for=203.0.113.9;by=_here, for=10.0.0.1"], ("203.0.113.9", 0)),
        (["for=1.1.1.1", "for=203.0.113.9", "for=10.0.0.1"], ("203.0.113.9", 0)),
        (["by=10.0.0.1;for=203.0.113.9 ; proto=https"], ("203.0.113.9", 0)),
        (["for=203.0.113.9;;"], ("203.0.113.9", 0)),
        # Who is not named: what named proxies said is as far as anything is known.
        (["for=unknown"], PEER),
        (["for=_hidden, for=10.0.0.1"], ("10.0.0.1", 0)),
        (["for=203.0.113.9, for=Unknown, for=10.0.0.1"], ("10.0.0.1", 0)),
        (["for=203.0.113.9, proto=https"], PEER),
        (["for=203.0.113.9,"], PEER),
        (["for=203.0.113.9", ""], PEER),
        # What is malformed says nothing.
        (["for=203.0.113.9:8080"], PEER),
        (["for=[2001:db9::1]"], PEER),
        (['for="2001:db9::1"'], PEER),
        (['for="203.0.113.9:65536"'], PEER),
        (['for="203.0.113.9:"'], PEER),
        (["for=203.0.113.9;for=203.0.113.10"], PEER),
        (["for=203.0.113.9;For=203.0.113.9"], PEER),
        (["for = 203.0.113.9"], PEER),
        (['for="203.0.113.9'], PEER),
        (["for=300.0.113.9"], PEER),
        (["for=203.0.113.9 proto=https"], PEER),
        # ... and what proxies say after it counts all the same.
        (['for="6.6.6.6, for=203.0.113.9'], ("203.0.113.9", 0)),
        (['for="6.6.6.6', "for=203.0.113.9, for=10.0.0.1"], ("203.0.113.9", 0)),
        ([r'x="\", for=203.0.113.9'], ("203.0.113.9", 0)),
        # A host may hold anything; it ends no element.
        ([r'for=203.0.113.9;host="a,for=6.6.6.6"'], ("203.0.113.9", 0)),
        ([r'for=203.0.113.9;host="a, for=\"6.6.6.6\""'], ("203.0.113.9", 0)),
        ([r'for=203.0.113.9;host="\\\", for=6.6.6.6;x=\""'], ("203.0.113.9", 0)),
    ],
)
def test_client_of_forwarded(lines: list[str], client: Client) -> None:
    assert forwarded(*lines).client == client


@pytest.mark.parametrize(
    ("line", "scheme", "host"),
    [
        ("for=203.0.113.9;proto=https;host=shop.example", "https", b"shop.example"),
        ('for=203.0.113.9;Proto="HTTPS";host="shop.example:8443"', "https", b"shop.example:8443"),
        ("for=203.0.113.9;proto=gopher;host=a/b", "http", b"origin"),
        ("for=6.6.6.6;proto=https;host=evil, for=203.0.113.9", "http", b"origin"),
        ("for=203.0.113.9;proto=https;host=a, for=10.0.0.1;proto=http;host=b", "https", b"a"),
        # The proxy that the client came to says only who it is: the next one's word is left.
        ("for=203.0.113.9, for=10.0.0.1;proto=https;host=a", "https", b"a"),
        ("for=unknown;proto=https, for=10.0.0.1;proto=http", "https", b"origin"),
        ("proto=https;host=a", "https", b"a"),
        ("for=203.0.113.9;proto=https;proto=http", "http", b"origin"),
    ],
)
def test_scheme_and_host_of_forwarded(line: str, scheme: str, host: bytes) -> None:
    resolved = forwarded(line)
    assert resolved.scheme == scheme
    assert [value for name, value in resolved.headers if name == b"host"] == [host]


@pytest.mark.parametrize(
    ("fields", "headers", "client"),
    [
        ("auto", [(b"x-forwarded-for", b"192.0.2.1"), (b"forwarded", b"for=192.0.2.2")], 1),
        ("auto", [(b"forwarded", b"for=192.0.2.2"), (b"x-forwarded-proto", b"https")], None),
        ("auto", [(b"forwarded", b"for=192.0.2.2")], 2),
        ("x-forwarded", [(b"forwarded", b"for=192.0.2.2")], None),
        ("x-forwarded", [(b"x-forwarded-for", b"192.0.2.1")], 1),
        ("forwarded", [(b"x-forwarded-for", b"192.0.2.1"), (b"forwarded", b"for=192.0.2.2")], 2),
        ("forwarded", [(b"x-forwarded-for", b"192.0.2.1")], None),
        ("auto", [(b"forwarded", b"for=192.0.2.2"), (b"x-forwarded-prefix", b"/a")], 2),
        ("auto", [(b"forwarded", b"for=192.0.2.2"), (b"x-forwarded-port", b"1")], 2),
    ],
)
def test_one_kind_of_fields_is_read(
    fields: ForwardedFields, headers: list[tuple[bytes, bytes]], client: int | None
) -> None:
    resolved = TrustedProxies(TRUSTED, fields).resolve(Origin(PEER, "http", headers, LISTENER))
    assert (resolved.server, resolved.root_path) == (LISTENER, "")
    assert resolved.client == (PEER if client is None else (f"192.0.2.{client}", 0))
    assert resolved.headers == headers


@given(st.binary(max_size=60))
def test_no_value_breaks_it(value: bytes) -> None:
    for names in (X_FORWARDED, (b"forwarded",)):
        resolved = PROXIES.resolve(Origin(PEER, "http", [(name, value) for name in names]))
        assert resolved.client is not None
        assert resolved.scheme in {"http", "https"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((b"forwarded", value) for value in (b";" * 60_000, b"; " * 30_000 + b'"')),
        *((b"forwarded", value) for value in (b"," * 60_000 + b'"', b'a="' * 20_000 + b",")),
        *((b"x-forwarded-prefix", value) for value in (b"/" * 60_000, b"/a" * 30_000 + b"%")),
        (b"x-forwarded-prefix", b"/a," * 20_000),
    ],
)
def test_a_long_value_takes_no_long_time(name: bytes, value: bytes) -> None:
    origin = Origin(PEER, "http", [(name, value)])
    began = time.process_time()
    TrustedProxies(["*"]).resolve(origin)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("name", "element"), [(b"x-forwarded-for", b"%b"), (b"forwarded", b"for=%b")]
)
@pytest.mark.parametrize(("proxies", "client"), [(99, "203.0.113.9"), (100, "10.0.0.1")])
def test_a_hundred_elements_are_read(
    name: bytes, element: bytes, proxies: int, client: str
) -> None:
    addresses = [b"203.0.113.9", *[b"10.0.0.1"] * proxies]
    value = b", ".join(element % address for address in addresses)
    resolved = PROXIES.resolve(Origin(PEER, "http", [(name, value)]))
    assert resolved.client == (client, 0)


def test_no_more_is_read_of_elements_that_are_empty_or_malformed() -> None:
    assert len(list(_elements(b"," * 60_000))) == 100
    assert not list(_elements(b'for="' + b"," * 100 + b'"'))


def test_no_more_is_read_of_long_elements() -> None:
    near = b'for=10.0.0.1;by="%b"' % (b"\\a" * 2500)
    (nearest,) = _elements(b",".join([b"for=203.0.113.9", near, near]))
    assert nearest[b"for"] == b"10.0.0.1"
    assert not list(_elements(b'for="%b"' % (b"\\a" * 10_000)))


@pytest.mark.parametrize(("size", "root_path"), [(8000, "/" + "a" * 8000), (8192, "")])
def test_no_prefix_is_longer_than_a_path_may_be(size: int, root_path: str) -> None:
    fields = [(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-prefix", b"/" + b"a" * size)]
    assert PROXIES.resolve(Origin(PEER, "http", fields)).root_path == root_path


@given(st.ip_addresses(), st.integers(0, 65535))
def test_addresses_with_ports(address: object, port: int) -> None:
    text = f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
    found = parse_node(text.encode())
    assert found is not None
    assert found[1] == port


# A chain of proxies, and what each writes. The model knows who sent what, so it need not read.


@dataclass(frozen=True)
class Hop:
    """What a proxy saw: where the request came from, and how; and what it took off the path."""

    address: str
    port: int
    proto: str
    host: str
    listens: int = 8443
    takes: str = ""

    @property
    def trusted(self) -> bool:
        return any(ip_address(self.address) in ip_network(each) for each in TRUSTED[:-1])

    @property
    def node(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}" if self.port else host


trusted_addresses = st.one_of(
    st.ip_addresses(network="10.0.0.0/8"), st.ip_addresses(network="2001:db8::/32")
)
addresses = trusted_addresses | st.ip_addresses(network="203.0.113.0/24") | st.ip_addresses(v=6)


def hops(address: st.SearchStrategy[object]) -> st.SearchStrategy[Hop]:
    return st.builds(
        Hop,
        address.map(str).filter(lambda text: not text.startswith("::ffff:")),
        st.sampled_from([0, 1, 8080, 65535]),
        st.sampled_from(["http", "https"]),
        st.sampled_from(["a.example", "b.example:8443", "[2001:db8::2]:1", "203.0.113.1"]),
        st.integers(1, 65535),
        st.sampled_from(["/", "/shop", "/shop/eu", "/a%20b", "//evil"]),
    )


@st.composite
def chains(draw: st.DrawFn) -> list[Hop]:
    """Proxies from the far end to the peer; those next to the peer are likely trusted."""
    far = draw(st.lists(hops(addresses), max_size=2))
    return far + draw(st.lists(hops(trusted_addresses), min_size=not far, max_size=3))


def expected(chain: list[Hop]) -> Hop:
    untrusted = [hop for hop in chain if not hop.trusted]
    return untrusted[-1] if untrusted else chain[0]


def spellings(value: str) -> st.SearchStrategy[str]:
    """As the RFC lets a value be written: a token where it is one, or quoted, escaped or not."""
    written = [escape(value, r'["\\]'), escape(value, "[aeiou0-9:]"), escape(value, ".")]
    return st.sampled_from([value, *written] if re.fullmatch(r"[\w.-]+", value) else written)


def escape(text: str, what: str) -> str:
    return '"' + re.sub(f"({what})", r"\\\1", text) + '"'


@st.composite
def elements(draw: st.DrawFn, hop: Hop) -> str:
    pairs = {"for": hop.node, "proto": hop.proto, "host": hop.host}
    written = [
        draw(st.sampled_from([name, name.upper(), name.title()])) + "=" + draw(spellings(value))
        for name, value in pairs.items()
    ]
    others = ["by=_proxy", "x=" + escape(r'a,b;for=6.6.6.6"\, for="6.6.6.6"', r'["\\]')]
    written += draw(st.sampled_from([[], others, others[1:]]))
    return draw(st.sampled_from([";", "; ", ";;"])).join(draw(st.permutations(written)))


@st.composite
def lines(draw: st.DrawFn, members: list[str]) -> list[str]:
    """Members in one field or in several, in order."""
    found = [members[0]]
    for member in members[1:]:
        if draw(st.booleans()):
            found.append(member)
        else:
            found[-1] += draw(st.sampled_from([",", ", ", " ,\t"])) + member
    return found


# What the client itself may have sent before anybody appended to it.
rubbish = st.text(st.sampled_from('for=;,"\\ \t[]:._1a\xff'), max_size=30) | st.sampled_from(
    ['for="', "for=6.6.6.6", 'for="6.6.6.6', "\\", 'x="\\', ';"', "for=6.6.6.6;host="]
)


def origin_of(name: str, values: list[str], *others: tuple[bytes, bytes]) -> Origin:
    fields = [(name.encode(), line.encode("latin-1")) for line in values]
    return PROXIES.resolve(Origin(PEER, "http", [(b"host", b"origin"), *fields, *others]))


def is_of(origin: Origin, hop: Hop) -> None:
    assert origin.client == (hop.address, hop.port)
    assert origin.scheme == hop.proto
    assert (b"host", hop.host.encode()) in origin.headers


@given(st.data(), chains())
def test_forwarded_says_what_the_first_trusted_proxy_saw(
    data: st.DataObject, chain: list[Hop]
) -> None:
    members = [data.draw(elements(hop)) for hop in chain]
    is_of(origin_of("forwarded", data.draw(lines(members))), expected(chain))


@given(st.data(), chains(), rubbish)
def test_nothing_that_a_client_sends_hides_what_proxies_append(
    data: st.DataObject, chain: list[Hop], sent: str
) -> None:
    client = Hop("203.0.113.77", 77, "https", "true.example")
    known = [client, *(hop for hop in chain if hop.trusted)]
    members = [sent, *(data.draw(elements(hop)) for hop in known)]
    is_of(origin_of("forwarded", data.draw(lines(members))), client)


@given(st.data(), chains(), rubbish)
def test_x_forwarded_says_what_the_first_trusted_proxy_saw(
    data: st.DataObject, chain: list[Hop], sent: str
) -> None:
    client = Hop("203.0.113.77", 77, "https", "true.example")
    known = [client, *(hop for hop in chain if hop.trusted)]
    others = [
        (b"x-forwarded-" + name, ", ".join(str(getattr(hop, each)) for hop in known).encode())
        for name, each in ((b"proto", "proto"), (b"host", "host"), (b"port", "listens"))
    ]
    taken = [sent.replace(",", ""), *(hop.takes for hop in known)]
    others.append((b"x-forwarded-prefix", ", ".join(taken).encode("latin-1")))
    members = [sent, *(hop.node for hop in known)]
    origin = origin_of("x-forwarded-for", data.draw(lines(members)), *others)
    is_of(origin, client)
    assert origin.server == (client.host, client.listens)
    prefixes = [hop.takes.rstrip("/").replace("%20", " ") for hop in known]
    assert origin.root_path == ("" if "//evil" in prefixes else "".join(prefixes))


# RFC 7239 section 4 once more, letter by letter and from the left.


class Grammar:
    """Reads a whole field; None where it is not what the grammar says."""

    TOKEN = frozenset(
        "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    )

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self) -> list[dict[str, str]] | None:
        try:
            found = [self.element()]
            while self.text:
                self.expect(",")
                found.append(self.element())
        except SyntaxError:
            return None
        return found

    def element(self) -> dict[str, str]:
        pairs: dict[str, str] = {}
        self.space()
        while self.text and not self.text.startswith(","):
            if not self.text.startswith(";"):
                name = self.token().lower()
                self.expect("=")
                value = self.quoted() if self.text.startswith('"') else self.token()
                if name in pairs:
                    raise SyntaxError
                pairs[name] = value
                self.space()
            if self.text and not self.text.startswith(","):
                self.expect(";")
                self.space()
        return pairs

    def quoted(self) -> str:
        self.expect('"')
        value = ""
        while not self.text.startswith('"'):
            if self.text.startswith("\\"):
                self.take()
            value += self.take()
        self.take()
        return value

    def token(self) -> str:
        value = ""
        while self.text and self.text[0] in self.TOKEN:
            value += self.take()
        if not value:
            raise SyntaxError
        return value

    def space(self) -> None:
        self.text = self.text.lstrip(" \t")

    def expect(self, letter: str) -> None:
        if self.take() != letter:
            raise SyntaxError

    def take(self) -> str:
        if not self.text:
            raise SyntaxError
        first, self.text = self.text[0], self.text[1:]
        return first


pieces = st.sampled_from([*',;="\\ \t', "for", "a", "=b", '="x"', '="', ",c=d", r"\"", "for=_x"])


@settings(max_examples=300)
@given(st.lists(pieces, max_size=14).map("".join))
def test_from_the_right_is_read_what_the_grammar_says_from_the_left(text: str) -> None:
    found = [
        {name.decode(): value.decode("latin-1") for name, value in element.items()}
        for element in _elements(text.encode("latin-1"))
    ]
    read = Grammar(text).read()
    if read is not None:
        assert found[::-1] == read
    elif found:
        starts = [at + 1 for at, letter in enumerate(text) if letter == ","]
        assert found[::-1] in [Grammar(text[start:]).read() for start in starts]
