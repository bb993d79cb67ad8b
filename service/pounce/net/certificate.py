"""Certificate files: what a certificate says about itself, and what is wrong with its files.

OpenSSL reads and judges the files when a context loads them. What the standard library does not
tell of a server's own certificate, its names and its time, is read from its DER here; so that
serving TLS needs no other library.
"""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from pounce.errors import ConfigError

# Tags of DER (X.690) and of a certificate's fields (RFC 5280 section 4.1).
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_OCTET_STRING, _UTC_TIME = 0x04, 0x17
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87
_SUBJECT_ALT_NAME = b"\x55\x1d\x11"  # 2.5.29.17

_REASONS = {
    "KEY_VALUES_MISMATCH": "the key is not this certificate's",
    "EE_KEY_TOO_SMALL": "its key is too short to be safe",
    "CA_KEY_TOO_SMALL": "an issuer's key is too short to be safe",
    "CA_MD_TOO_WEAK": "it is signed with a hash that is not safe any more",
}
_WEAK = "have a new one issued: RSA of 2048 bits or more, or ECDSA, and SHA-256"
_ADVICE = {
    "KEY_VALUES_MISMATCH": "key and certificate of one pair are needed, in the same order",
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
    """A server's certificate: its *pem*, the hosts it is for, and when it is valid."""

    pem: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime

    @classmethod
    def read(cls, path: str) -> "Certificate":
        """Read the first certificate of a PEM file; raises ConfigError."""
        pem = _first_certificate(path, read_pem(path, "CERTIFICATE"))
        try:
            return cls._parse(pem)
        except (IndexError, ValueError) as error:
            raise ConfigError(
                f"{path}: the certificate does not say its names and its time as RFC 5280 has it: "
                f"{error}",
                hint="have a new one issued",
            ) from None

    @classmethod
    def _parse(cls, pem: str) -> "Certificate":
        tbs = _items(_items(_items(ssl.PEM_cert_to_DER_cert(pem))[0][1])[0][1])
        if tbs[0][0] == _VERSION:
            tbs = tbs[1:]
        _, _, _, (_, validity), *rest = tbs
        not_before, not_after = (_time(*each) for each in _items(validity))
        extensions = [_items(value)[0][1] for tag, value in rest if tag == _EXTENSIONS]
        names = tuple(_names(extensions[0])) if extensions else ()
        return cls(pem, names, not_before, not_after)

    def covers(self, host: str) -> bool:
        """Whether it is for *host*: a wildcard stands for one label (RFC 9525 section 6.3)."""
        return bool({host, wildcard(host)} & set(self.names))


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


def load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Have *context* use the files *certificate* and *key*; raises ConfigError."""
    read_pem(certificate, "CERTIFICATE")
    read_pem(key, "PRIVATE KEY")
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except ssl.SSLError as error:
        reason = _REASONS.get(error.reason, f"OpenSSL cannot load it ({error.reason or error})")
        raise ConfigError(
            f"certificate {certificate}, key {key}: {reason}", hint=_ADVICE.get(error.reason, "")
        ) from None
    except _PasswordWantedError:
        raise ConfigError(
            f"the key {key} is protected by a password, which nobody is there to type",
            hint="store it without one (openssl pkey), readable for the service alone",
        ) from None


class _PasswordWantedError(Exception):
    """A key cannot be read without a password."""


def _refuse_password() -> str:
    raise _PasswordWantedError


def _first_certificate(path: str, text: str) -> str:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    _, found, rest = text.partition(begin)
    content, ended, _ = rest.partition(end)
    if not (found and ended):
        raise ConfigError(f"{path} has no whole PEM block '{begin}'")
    return f"{begin}{content}{end}\n"


def _names(extensions: bytes) -> Iterator[str]:
    """The hosts among the subject's alternative names (RFC 5280 section 4.2.1.6)."""
    for _, extension in _items(extensions):
        (_, identifier), *_, (_, value) = _items(extension)
        if identifier == _SUBJECT_ALT_NAME:
            for tag, name in _items(_items(value)[0][1]):
                if tag == _DNS_NAME:
                    yield name.decode("ascii", "replace").lower()
                elif tag == _IP_ADDRESS:
                    yield str(ip_address(name))


def _time(tag: int, value: bytes) -> datetime:
    """A moment, in UTC (RFC 5280 section 4.1.2.5)."""
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _items(data: bytes) -> list[tuple[int, bytes]]:
    """The elements that follow each other in DER, as tag and content."""
    items, at = [], 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length > 127:  # the length's own length
            size = length - 128
            length = int.from_bytes(data[at : at + size])
            at += size
        items.append((tag, data[at : at + length]))
        at += length
    return items
