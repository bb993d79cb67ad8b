"""The options of one address to listen on."""

from dataclasses import dataclass
from typing import Literal

from pounce.config.kinds import Boolean, Choice, ListenAddress, SecretFile, Text, Texts
from pounce.config.options import option, required, settle
from pounce.errors import ConfigError
from pounce.net.address import Address
from pounce.net.clashes import have_to_share

ClientCertificates = Literal["off", "optional", "required"]

_SOCKET_NAME = Text(
    pattern=r"[ -9;-~]{0,255}",
    allowed="at most 255 printable ASCII characters without ':'",
    metavar="NAME",
)


@dataclass(frozen=True, slots=True)
class Listen:
    """One address to listen on; a ``[[listen]]`` table of the file."""

    address: Address = required("listening", ListenAddress(), "the address")
    name: str = option(
        "listening",
        _SOCKET_NAME,
        "",
        "the name (FileDescriptorName=) of the inherited socket to use",
        details="Empty: the inherited socket with this address is used.",
    )
    proxy_protocol: bool = option(
        "listening",
        Boolean(),
        False,
        "whether each connection begins with a PROXY protocol header, version 1 or 2",
        details="The header's client counts as if it had connected itself. Connections without "
        "a header, and those from peers that are not in forwarded_allow, are closed.",
    )
    certificate: tuple[str, ...] = option(
        "listening",
        Texts(SecretFile(), single=True),
        (),
        "a TLS certificate's PEM file, with the intermediate certificates after it",
        details="With none, the address is served without TLS. Of several, the one for the name "
        "that a client asks for (SNI) is used, the first where none is for it. A reload reads "
        "the files anew.",
        flag="--certificate",
    )
    key: tuple[str, ...] = option(
        "listening",
        Texts(SecretFile(), single=True),
        (),
        "the PEM file of the certificate's private key, without a password",
        details="As many as there are certificates, in their order; with none, each key is in "
        "its certificate's file.",
        flag="--key",
    )
    client_certificates: ClientCertificates = option(
        "listening",
        Choice("off", "optional", "required"),
        "off",
        "whether clients are asked for a certificate",
        details="One that client_ca has not issued is refused. Applications see it as the ASGI "
        "extension `tls`.",
        flag="--client-certificates",
    )
    client_ca: str = option(
        "listening",
        SecretFile(names=("",)),
        "",
        "the PEM file of the authorities that may issue clients' certificates",
        flag="--client-ca",
    )
    http3: bool = option(
        "listening",
        Boolean(),
        False,
        "whether HTTP/3 is served on the UDP port of the same number",
        details="It needs a certificate, and aioquic (python3-aioquic). Responses over TLS tell "
        "clients of it (Alt-Svc).",
        flag="--http3",
    )

    def __post_init__(self) -> None:
        settle(self)
        if problem := self._problem():
            raise ConfigError(problem)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The paths of each certificate and its key."""
        return tuple(zip(self.certificate, self.key or self.certificate, strict=True))

    def _problem(self) -> str:
        """Which options do not go together; "" if all do."""
        keys, certificates = len(self.key), len(self.certificate)
        if keys not in (0, certificates):
            expected = f"expected one for each certificate, of which there are {certificates}"
            return f"key: found {keys}, {expected}"
        if self.client_ca and not certificates:
            return "client_ca: it needs a certificate beside it"
        if bool(self.client_ca) != (self.client_certificates != "off"):
            state = "is set" if self.client_ca else "is not set"
            return f"client_certificates: found {self.client_certificates!r}, but client_ca {state}"
        return self._problem_of_http3() if self.http3 else ""

    def _problem_of_http3(self) -> str:
        if self.address.kind != "tcp":
            return f"http3: {self.address} has no UDP port"
        if not self.address.port:
            return "http3: a free port (0) is another one for UDP than for TCP; choose one"
        if not self.certificate:
            return "http3: it needs a certificate beside it"
        if self.client_ca:
            return "http3: it cannot ask clients for certificates; take out one of both"
        if self.proxy_protocol:
            return "http3: no proxy's header introduces it (proxy_protocol); take out one of both"
        return ""


def clash(one: Listen, other: Listen) -> str:
    """Why *other* cannot be listened on beside *one*; "" if it can."""
    if one.address == other.address:
        return f"{other.address} is given twice; each address may be given once"
    # A socket with a name is one that somebody else opens, wherever that is.
    if one.name or other.name or not have_to_share(one.address, other.address):
        return ""
    text = f"{other.address} cannot be opened beside {one.address}, with which it shares "
    if other.address.kind == "unix":
        return f"{text}the path; keep one of them"
    everywhere = f":{other.address.port} is for all addresses, of IPv4 and IPv6"
    return f"{text}an address and its port; keep one of them ({everywhere})"


DEFAULT_LISTEN = Listen(address=Address.parse("127.0.0.1:8000"))
"""Where a service listens when nothing says where, and systemd hands it no socket."""
