"""The certificates of a listener, as aioquic wants them, and its QUIC configuration."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pounce.config import ServerConfig
from pounce.errors import ConfigError
from pounce.http3.packets import VERSIONS
from pounce.http3.tokens import CONNECTION_ID_SIZE

# What a client may send before the application has taken any of it: of one request, and of all
# requests of its connection.
_STREAM_WINDOW = 262_144
_CONNECTION_WINDOW = 1_048_576

# What passes through nearly every network without fragments, headers of IPv6 included: Ethernet's
# 1500 bytes less what tunnels and PPPoE take. RFC 9000 section 14.1 demands 1200.
_DATAGRAM_SIZE = 1350

# How long a client may be silent when it should have been gone: a polite end comes first. Seconds.
_SILENCE = 5.0

_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)


class _Pair(NamedTuple):
    certificate: x509.Certificate
    chain: list[x509.Certificate]
    key: Any


class Certificates:
    """Certificates and keys, read from PEM files; raises ConfigError.

    Each of *keys* is for one of *certificates*; with none, it is in the certificate's file.
    """

    def __init__(self, certificates: Sequence[str], keys: Sequence[str]) -> None:
        self._pairs = [
            _load(*paths) for paths in zip(certificates, keys or certificates, strict=True)
        ]
        self._by_name: dict[str, _Pair] = {}
        for pair in self._pairs:
            for name in _names(pair.certificate):
                self._by_name.setdefault(name, pair)

    def choose(self, host: str | None) -> tuple[Any, list[Any], Any]:
        """The certificate for *host*, its chain and its key; the first where none is for it."""
        name = (host or "").lower()
        wildcard = f"*.{name.partition('.')[2]}"
        return self._by_name.get(name) or self._by_name.get(wildcard) or self._pairs[0]


def quic_configuration(config: ServerConfig, certificates: Certificates) -> QuicConfiguration:
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


def _load(certificate: str, key: str) -> _Pair:
    first, *chain = _certificates(certificate)
    private = _key(key)
    # As OpenSSL does for TLS over TCP: files may be read while they are being renewed.
    if private.public_key() != first.public_key():
        reason = "the key is not this certificate's"
        raise ConfigError(f"certificate {certificate}, key {key}: {reason}")
    return _Pair(first, chain, private)


def _certificates(path: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise ConfigError(f"{path} has no certificate that can be read: {error}") from None


def _key(path: str) -> Any:
    # A file may have the certificates before or after the key.
    found = _PRIVATE_KEY.search(_read(path))
    if found is None:
        raise ConfigError(f"{path} has no private key")
    try:
        return load_pem_private_key(found[0], password=None)
    except (TypeError, ValueError) as error:  # a password is wanted; it is malformed
        raise ConfigError(f"the private key in {path} cannot be read: {error}") from None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.value.get_values_for_type(x509.DNSName)]
