"""The certificates of a listener, as aioquic wants them, and its QUIC configuration."""

import re
from typing import Any, TypeAlias

from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pounce.config.service import ServerConfig
from pounce.errors import ConfigError
from pounce.http3.packets import VERSIONS
from pounce.http3.tokens import CONNECTION_ID_SIZE
from pounce.net.certificate import KEY_VALUES_MISMATCH, ByName, unusable
from pounce.net.tls import CertificateContext, Certificates

# What a client may send before the application has taken any of it: of one request, and of all
# requests of its connection.
_STREAM_WINDOW = 262_144
_CONNECTION_WINDOW = 1_048_576

# What passes through nearly every network without fragments, headers of IPv6 included: Ethernet's
# 1500 bytes less what tunnels and PPPoE take. RFC 9000 section 14.1 demands 1200.
_DATAGRAM_SIZE = 1350

# How long a client may be silent when it should have been gone: a polite end comes first. Seconds.
_SILENCE = 5.0

_PRIVATE_KEY = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)

# A certificate, those of its issuers, and its key, as aioquic takes them.
Identity: TypeAlias = tuple[x509.Certificate, list[x509.Certificate], Any]


class QuicCertificates:
    """A listener's *certificates*, which TLS has loaded, for QUIC. Raises ConfigError."""

    def __init__(self, certificates: Certificates) -> None:
        each = [(context.certificate, _identity(context)) for context in certificates.contexts]
        self.choose = ByName(each).find


def quic_configuration(config: ServerConfig, certificates: QuicCertificates) -> QuicConfiguration:
    """What all connections of a listener begin with."""
    certificate, chain, key = certificates.choose(None)
    return QuicConfiguration(
        is_client=False,
        alpn_protocols=["h3"],
        connection_id_length=CONNECTION_ID_SIZE,
        idle_timeout=config.keep_alive_timeout + _SILENCE,
        max_data=_CONNECTION_WINDOW,
        max_stream_data=_STREAM_WINDOW,
        max_datagram_size=_DATAGRAM_SIZE,
        supported_versions=list(VERSIONS),
        certificate=certificate,
        certificate_chain=chain,
        private_key=key,
    )


def _identity(context: CertificateContext) -> Identity:
    own, *issuers = context.certificate.chain
    key = _key(context)
    # OpenSSL has compared them, but the files may have been renewed since.
    if key.public_key() != own.public_key():
        raise unusable(*context.files, KEY_VALUES_MISMATCH)
    return own, issuers, key


def _key(context: CertificateContext) -> Any:
    # A file may have the certificates before or after the key.
    block = _PRIVATE_KEY.search(context.key)
    try:
        return load_pem_private_key(block[0].encode() if block else b"", password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"the key {context.files[1]} cannot be used for HTTP/3: {error}",
            hint="have a certificate issued for an ECDSA (P-256) or RSA key",
        ) from None
