"""What proxies in front say about a request: X-Forwarded-For and its kin, or Forwarded.

Anybody can send these fields, so they count only when the peer is a trusted proxy, and only
as far as trusted proxies wrote them: each appends on the right what it saw itself. All are
therefore read from the right, and what is left of the first untrusted address is never looked
at: whatever a client puts there, it cannot make what the proxies say unreadable.

The fields stay among the request's, for the application to see.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Literal, NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

from pounce.net.host import is_authority, name_of

Headers: TypeAlias = list[tuple[bytes, bytes]]
Client: TypeAlias = tuple[str, int]
Server: TypeAlias = tuple[str, int | None]
ForwardedFields: TypeAlias = Literal["auto", "x-forwarded", "forwarded"]

# The first three have counterparts in Forwarded, the other two do not.
_COMMON = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")
_X_FORWARDED = (*_COMMON, b"x-forwarded-port", b"x-forwarded-prefix")

FORWARDED_FIELDS = frozenset((*_X_FORWARDED, b"forwarded"))
"""Names of the fields that :meth:`TrustedProxies.resolve` reads."""

# Some proxies name the scheme of the WebSocket, which is a request like others until it is one.
_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}

# RFC 7239 section 4, with space allowed around semicolons, which some proxies write.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = rb'"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+)"'
_PAIR = re.compile(rb"(%b)=(?:(%b)|%b)" % (_TOKEN, _TOKEN, _QUOTED))
_ELEMENT = re.compile(
    rb"[ \t]*+(?:%b[ \t]*+)?(?:;[ \t]*+(?:%b[ \t]*+)?)*+" % (_PAIR.pattern, _PAIR.pattern)
)
_ESCAPE = re.compile(rb"\\(.)")

# The most elements, counted from the right, that are read of a field. No chain of proxies is as
# long, but a client can put 60,000 empty elements into a field that each request then pays for.
_MOST_ELEMENTS = 100

# As many bytes of Forwarded are read, and as long are all prefixes together at most: a quoted
# string or an encoded path that fills a head takes 5 to 15 ms to decode.
_LONGEST = 8192

# RFC 7239 section 6.
_OBFUSCATED = rb"_[0-9A-Za-z._-]+"
_NODE = re.compile(
    rb"(?:(?P<v4>[0-9.]+)|\[(?P<v6>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]|(?i:unknown)|%b)"
    rb"(?::(?:(?P<port>[0-9]{1,5})|%b))?" % (_OBFUSCATED, _OBFUSCATED)
)
_LONGEST_ADDRESS = 45  # IPv6 that ends in IPv4; INET6_ADDRSTRLEN has a NUL as well
# RFC 4291 section 2.5.5.2. A dual-stack listener sees IPv4 peers as these (ipv6(7)).
_MAPPED = bytes(10) + b"\xff\xff"
_MAPPED_NETWORK = ipaddress.IPv6Network((_MAPPED + bytes(4), 96))
# X-Forwarded-For, which nothing specifies, has IPv6 addresses also without brackets.
_BARE_IPV6 = re.compile(rb"[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*")

# Applications put the prefix in front of the links and redirects that they make. "//host" there
# would be another site, and browsers read a backslash as a slash: neither passes, encoded or not.
_PREFIX = re.compile(
    rb"(?:/(?:[^%/?#\\\x00-\x20\x7f]|%(?![01]|2[Ff]|5[Cc]|7[Ff])[0-9A-Fa-f]{2})++)++"
)


class Origin(NamedTuple):
    """What the application shall see of where a request comes from and what it was sent to.

    *server* is the listener's host and port, or a unix socket's path and None.
    """

    client: Client | None
    scheme: str
    headers: Headers
    server: Server | None = None
    root_path: str = ""


class _Report(NamedTuple):
    """What the proxies wrote, that of the nearest first."""

    nodes: Sequence[bytes]
    protos: Sequence[bytes]
    hosts: Sequence[bytes]
    ports: Sequence[bytes] = ()
    prefixes: Sequence[bytes] = ()


class _Address(NamedTuple):
    """An IP address as a number, which takes a tenth of the time that ipaddress's objects take."""

    version: int
    number: int


class _Network(NamedTuple):
    """The addresses of a *version* that have *number* where *mask* has ones."""

    version: int
    number: int
    mask: int


class TrustedProxies:
    """Who is believed: *allow* has addresses, networks, ``unix`` (any local peer), or ``*``.

    *fields* are the ones that are read: with ``auto`` X-Forwarded-*, or Forwarded in a request
    that has none of them. It is never both: a proxy passes on, as the client sent them, those
    that it does not write itself.
    """

    def __init__(self, allow: Iterable[str], fields: ForwardedFields = "auto") -> None:
        entries = set(allow)
        self._fields = fields
        self._everyone = "*" in entries
        self._unix = "unix" in entries
        self._networks = tuple(map(_network, entries - {"*", "unix"}))

    def trusts_peer(self, client: Client | None) -> bool:
        """Whether the peer of a connection is believed; None is the peer of a unix socket."""
        if self._everyone:
            return True
        if client is None:
            return self._unix
        address = _address(client[0])
        if address is not None:
            for version, number, mask in self._networks:
                if version == address.version and address.number & mask == number:
                    return True
        return False

    def resolve(self, origin: Origin) -> Origin:
        """Replace what a trusted peer reports; call it for no other peer's requests."""
        report = self._report(_forwarded_fields(origin.headers))
        if report is None:
            return origin
        client, index = self._client(report.nodes, origin.client)
        scheme = _SCHEMES.get(_at(report.protos, index).lower())
        host = _at(report.hosts, index)
        headers = origin.headers
        if host and is_authority(host):
            headers = [(b"host", host), *(field for field in headers if field[0] != b"host")]
        return Origin(
            client,
            scheme or origin.scheme,
            headers,
            _server(_at(report.ports, index), origin.server, headers),
            _mounted_at(report.prefixes[: index + 1]) or origin.root_path,
        )

    def _report(self, fields: dict[bytes, list[bytes]]) -> _Report | None:
        forwarded = fields.pop(b"forwarded", None)
        # A proxy that writes Forwarded may pass a client's X-Forwarded-Port and -Prefix on: these
        # two alone must not hide Forwarded.
        auto = self._fields == "auto" and fields.keys().isdisjoint(_COMMON)
        if forwarded and (auto or self._fields == "forwarded"):
            return _read_forwarded(b",".join(forwarded))
        if fields and self._fields != "forwarded":
            return _Report(*[_members(fields.get(name, ())) for name in _X_FORWARDED])
        return None

    def _client(self, nodes: Sequence[bytes], peer: Client | None) -> tuple[Client | None, int]:
        """The client past the trusted *nodes*, and its place in what was reported.

        Where a node has no address, the one that reported it is as far as anything is known.
        """
        client, index = peer, 0
        for index, node in enumerate(nodes):
            try:
                found = parse_node(node)
            except ValueError:
                # No proxy that writes this is known to have written the rest of it.
                return client, max(0, index - 1)
            if found is None:
                break
            client = found
            if not self.trusts_peer(found):
                break
        return client, index


def _forwarded_fields(headers: Headers) -> dict[bytes, list[bytes]]:
    fields: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in FORWARDED_FIELDS:
            fields.setdefault(name, []).append(value)
    return fields


def _members(values: Sequence[bytes]) -> Sequence[bytes]:
    if not values:
        return ()
    if len(values) == 1 and b"," not in values[0]:
        return (values[0].strip(b" \t"),)
    members = b",".join(values).rsplit(b",", _MOST_ELEMENTS)
    # The first holds all that was not split, where there was more.
    return [member.strip(b" \t") for member in members[: -_MOST_ELEMENTS - 1 : -1]]


def _at(members: Sequence[bytes], index: int) -> bytes:
    """The member at *index*; the one nearest to the client where fewer proxies wrote the field."""
    return members[min(index, len(members) - 1)] if members else b""


def _server(port: bytes, server: Server | None, headers: Headers) -> Server | None:
    """The *server* with the *port* that clients use, if it is one."""
    if not (port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65535):
        return server
    if server is not None and server[1] is not None:
        return server[0], int(port)
    # A unix socket has no name beside a port: clients know the one in their Host field.
    hosts = [value for name, value in headers if name == b"host"]
    return (name_of(hosts[0]) if hosts else "") or "localhost", int(port)


def _mounted_at(prefixes: Sequence[bytes]) -> str:
    """The path that proxies have taken off, the nearest one's last; nothing if it is none."""
    if not prefixes:
        return ""
    if sum(map(len, prefixes)) > _LONGEST:
        return ""
    try:
        return "".join(parse_prefix(prefix) for prefix in reversed(prefixes))
    except ValueError:
        return ""


def parse_prefix(value: bytes) -> str:
    """The decoded path that applications shall be mounted at; "/" is nothing.

    Raises ValueError if it cannot stand in front of the path of every link.
    """
    prefix = value.removesuffix(b"/")
    if prefix and not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{value!r} is not a path")
    text = unquote_to_bytes(prefix).decode()
    if not text.isprintable():
        raise ValueError(f"{value!r} has a control character")
    return text


def _read_forwarded(value: bytes) -> _Report:
    nodes, protos, hosts = [], [], []
    proto = host = b""
    for element in _elements(value):
        proto, host = element.get(b"proto", proto), element.get(b"host", host)
        node = element.get(b"for", b"unknown")
        nodes.append(node if _NODE.fullmatch(node) else b"")
        protos.append(proto)
        hosts.append(host)
    return _Report(nodes, protos, hosts)


def _elements(value: bytes) -> Iterator[dict[bytes, bytes]]:
    """The elements of a Forwarded field from the right, as far as they are well-formed.

    Each is the shortest that ends there. It cannot be part of a longer one: that would have to
    begin inside a quoted string, where a quote stands after a backslash, never after ``=``.
    An empty element is one, not nothing: a proxy that has nothing to say must not make the word
    of its client its own.
    """
    end = start = len(value)
    first = max(0, end - _LONGEST)
    for _ in range(_MOST_ELEMENTS):  # a comma in a quoted string counts as well
        start = value.rfind(b",", first, start)
        if start < 0 and first:
            return  # no element is taken for whole that is not
        if _ELEMENT.fullmatch(value, start + 1, end):
            element = _pairs(value, start + 1, end)
            if element is None:
                return
            yield element
            end = start
        if start < 0:
            return


def _pairs(value: bytes, start: int, end: int) -> dict[bytes, bytes] | None:
    """The pairs of a well-formed element; None where a name is given twice, which is an error."""
    pairs: dict[bytes, bytes] = {}
    for match in _PAIR.finditer(value, start, end):
        name = match[1].lower()
        if name in pairs:
            return None
        pairs[name] = _ESCAPE.sub(rb"\1", match[3]) if match[2] is None else match[2]
    return pairs


@lru_cache(maxsize=1024)
def parse_node(node: bytes) -> Client | None:
    """Read an address with or without a port, or None for one that is not told.

    The port is 0 where none was given, or none that is a number. Raises ValueError.
    """
    match = _NODE.fullmatch(node)
    if match is None:
        if not _BARE_IPV6.fullmatch(node):
            raise ValueError(f"{node!r} is not a node")
        return _known(node), 0
    port = int(match["port"] or 0)
    if port > 65535:
        raise ValueError(f"{port} is not a port")
    host = match["v4"] or match["v6"]
    return None if host is None else (_known(host), port)


def _known(host: bytes) -> str:
    # What is longer need not be remembered as none.
    address = _address(host.decode("ascii")) if len(host) <= _LONGEST_ADDRESS else None
    if address is None:
        raise ValueError(f"{host!r} is not an address")
    if address.version == 4:
        return inet_ntop(AF_INET, address.number.to_bytes(4, "big"))
    return inet_ntop(AF_INET6, address.number.to_bytes(16, "big"))


@lru_cache(maxsize=1024)
def _address(text: str) -> _Address | None:
    try:
        if ":" not in text:
            return _Address(4, int.from_bytes(inet_pton(AF_INET, text), "big"))
        # A peer's link-local address names its interface, too.
        packed = inet_pton(AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return None
    if packed.startswith(_MAPPED):
        return _Address(4, int.from_bytes(packed[12:], "big"))
    return _Address(6, int.from_bytes(packed, "big"))


def _network(entry: str) -> _Network:
    network = ipaddress.ip_network(entry, strict=False)
    number, mask = int(network.network_address), int(network.netmask)
    if network.version == 6 and network.subnet_of(_MAPPED_NETWORK):
        return _Network(4, number & 0xFFFFFFFF, mask & 0xFFFFFFFF)
    return _Network(network.version, number, mask)
