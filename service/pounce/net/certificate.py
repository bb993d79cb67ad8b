"""Certificate files: what a certificate says about itself, and what is wrong with its files.

OpenSSL reads and judges the files when a context loads them; TLS and QUIC both rely on its verdict.
The names and the validity of a server's own certificate, which the standard library does not tell,
are read by cryptography. Importing cryptography takes some 80 ms and 10 MB of the supervisor's
memory, so a service does so with its first certificate, at its start or in a reload.
"""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from pounce.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509

T = TypeVar("T")

KEY_VALUES_MISMATCH = "KEY_VALUES_MISMATCH"

_REASONS = {
    KEY_VALUES_MISMATCH: "the key is not this certificate's",
    "EE_KEY_TOO_SMALL": "its key is too short to be safe",
    "CA_KEY_TOO_SMALL": "an issuer's key is too short to be safe",
    "CA_MD_TOO_WEAK": "it is signed with a hash that is not safe any more",
}
_WEAK = "have a new one issued: RSA of 2048 bits or more, or ECDSA, and SHA-256"
_ADVICE = {
    KEY_VALUES_MISMATCH: "key and certificate of one pair are needed, in the same order",
    "EE_KEY_TOO_SMALL": _WEAK,
    "CA_KEY_TOO_SMALL": _WEAK,
    "CA_MD_TOO_WEAK": _WEAK,
}

ADVICE = (
    "the service has a user of its own: pass it what others must not read by LoadCredential= and "
    "credential:NAME, or by a group (SupplementaryGroups=)"
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate: its *pem*, the hosts it is for, and when it is valid.

    *chain* is the certificate itself and the issuers' certificates that follow it in the file.
    """

    pem: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    chain: "tuple[x509.Certificate, ...]"

    @classmethod
    def read(cls, path: str) -> "Certificate":
        """Read a PEM file; raises ConfigError."""
        text = read_pem(path, "CERTIFICATE")
        _find_cryptography(path)
        from cryptography.x509 import load_pem_x509_certificates

        try:
            chain = load_pem_x509_certificates(text.encode())
        except ValueError as error:
            raise ConfigError(
                f"{path} has no certificate that can be read: {error}",
                hint="it takes PEM blocks '-----BEGIN CERTIFICATE-----', the server's own first",
            ) from None
        return cls._of(path, tuple(chain))

    @classmethod
    def _of(cls, path: str, chain: "tuple[x509.Certificate, ...]") -> "Certificate":
        from cryptography.hazmat.primitives.serialization import Encoding

        own = chain[0]
        names = _names(path, own)
        pem = own.public_bytes(Encoding.PEM).decode()
        return cls(pem, names, own.not_valid_before_utc, own.not_valid_after_utc, chain)

    def covers(self, host: str) -> bool:
        """Whether it is for *host*: a wildcard stands for one label (RFC 9525 section 6.3)."""
        return bool({host, wildcard(host)} & set(self.names))


class ByName(Generic[T]):
    """One of several things for each host, by the names of the certificate that each belongs to."""

    def __init__(self, things: Sequence[tuple[Certificate, T]]) -> None:
        self._first = things[0][1]
        self._by_name: dict[str, T] = {}
        for certificate, thing in things:
            for name in certificate.names:
                self._by_name.setdefault(name, thing)

    def find(self, host: str | None) -> T:
        """Choose for *host*, a client's server_name; the first where no certificate is for it."""
        name = (host or "").lower()
        return self._by_name.get(name) or self._by_name.get(wildcard(name)) or self._first


def wildcard(host: str) -> str:
    """The only name with a wildcard that can be *host*'s."""
    return f"*.{host.partition('.')[2]}"


def read_pem(path: str, what: str) -> str:
    """The text of a PEM file that has a block whose label ends in *what*; raises ConfigError."""
    try:
        text = Path(path).read_text("ascii", "ignore")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}",
            hint=f"under systemd {ADVICE}",
        ) from None
    if f"{what}-----" not in text:
        raise ConfigError(f"{path} has no PEM block '-----BEGIN {what}-----'")
    return text


def load_chain(context: ssl.SSLContext, certificate: str, key: str) -> str:
    """Have *context* use the files *certificate* and *key*; the key's text. Raises ConfigError."""
    read_pem(certificate, "CERTIFICATE")
    text = read_pem(key, "PRIVATE KEY")
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except ssl.SSLError as error:
        raise unusable(certificate, key, error.reason, error) from None
    except _PasswordWantedError:
        raise ConfigError(
            f"the key {key} is protected by a password, which nobody is there to type",
            hint="store it without one (openssl pkey), readable for the service alone",
        ) from None
    return text


def unusable(certificate: str, key: str, reason: str, error: object = "") -> ConfigError:
    """Say why a pair of files cannot be used; *reason* is OpenSSL's name for that."""
    text = _REASONS.get(reason, f"OpenSSL cannot load it ({reason or error})")
    return ConfigError(
        f"certificate {certificate}, key {key}: {text}", hint=_ADVICE.get(reason, "")
    )


class _PasswordWantedError(Exception):
    """A key cannot be read without a password."""


def _refuse_password() -> str:
    raise _PasswordWantedError


def _find_cryptography(path: str) -> None:
    """Import it; raises ConfigError where the application's environment has none, or an old one."""
    try:
        from cryptography import x509

        _ = x509.Certificate.not_valid_before_utc
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{path} cannot be read without cryptography 42 or later: {error}",
            hint="install python3-cryptography, or cryptography in the application's environment",
        ) from None


def _names(path: str, certificate: "x509.Certificate") -> tuple[str, ...]:
    """The hosts among the subject's alternative names (RFC 5280 section 4.2.1.6)."""
    from cryptography import x509

    try:
        extensions = certificate.extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ConfigError(
            f"{path}: the certificate's extensions, which say its names, are not as RFC 5280 has "
            f"them: {error}",
            hint="have a new one issued",
        ) from None
    kinds = (x509.DNSName, x509.IPAddress)
    return tuple(str(name.value).lower() for name in names if isinstance(name, kinds))
