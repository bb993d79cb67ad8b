"""The options of one address to listen on."""

from dataclasses import dataclass
from typing import Literal

from pounce.errors import ConfigError
from pounce.kinds import Boolean, Choice, ListenAddress, SecretFile, Text, Texts
from pounce.net.address import Address
from pounce.options import option, required, settle

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

    def __post_init__(self) -> None:
        settle(self)
        if self.key and len(self.key) != len(self.certificate):
            raise ConfigError(
                f"key: found {len(self.key)}, expected one for each certificate, "
                f"of which there are {len(self.certificate)}"
            )
        if self.client_ca and not self.certificate:
            raise ConfigError("client_ca: it needs a certificate beside it")
        if bool(self.client_ca) != (self.client_certificates != "off"):
            raise ConfigError(
                f"client_certificates: found {self.client_certificates!r}, but "
                f"client_ca {'is set' if self.client_ca else 'is not set'}"
            )


DEFAULT_LISTEN = Listen(address=Address.parse("127.0.0.1:8000"))
"""Where a service listens when nothing says where, and systemd hands it no socket."""
