"""What a scope says of its connection's TLS (ASGI TLS extension, version 0.2)."""

import ssl
from typing import Any

from pounce.net.tls import CertificateContext

_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

# The attribute types that have a short name in RFC 4514 section 3, as OpenSSL calls them.
_SHORT_NAMES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}


def tls_extension(connection: ssl.SSLObject) -> dict[str, Any]:
    """The extension's value for a *connection* whose handshake is complete."""
    # A client that shows no certificate, and one that is not asked for any, has {} or None.
    about_client: Any = connection.getpeercert()
    return {
        "server_cert": _server_certificate(connection.context),
        "client_cert_chain": _client_chain(connection) if about_client else [],
        "client_cert_name": distinguished_name(about_client["subject"]) if about_client else None,
        # A certificate that is not trusted ends the handshake.
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(connection.version() or ""),
        "cipher_suite": _cipher_suite(connection),
    }


def distinguished_name(subject: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """Write a name as RFC 4514 has it; *subject* is as SSLObject.getpeercert() gives it."""
    return ",".join("+".join(_attribute(*each) for each in part) for part in reversed(subject))


def _attribute(kind: str, value: str) -> str:
    """Section 2.4: what would be read as syntax is escaped."""
    text = "".join(f"\\{each}" if each in '"+,;<>\\' else each for each in value)
    text = text.replace("\0", "\\00")
    if text.startswith(("#", " ")):
        text = "\\" + text
    if value.endswith(" ") and len(value) > 1:
        text = text[:-1] + "\\ "
    return f"{_SHORT_NAMES.get(kind, kind)}={text}"


def _server_certificate(context: ssl.SSLContext) -> str | None:
    """Of a context that an embedder has made, nobody can tell."""
    return context.certificate.pem if isinstance(context, CertificateContext) else None


def _client_chain(connection: ssl.SSLObject) -> list[str]:
    """The client's certificate; those of its issuers the standard library does not show."""
    der = connection.getpeercert(binary_form=True)
    return [ssl.DER_cert_to_PEM_cert(der)] if der else []


def _cipher_suite(connection: ssl.SSLObject) -> int | None:
    """The number of the suite; OpenSSL puts the protocol's above its 16 bits."""
    used = connection.cipher()
    name = used[0] if used else ""
    suites = connection.context.get_ciphers()
    return next((each["id"] & 0xFFFF for each in suites if each["name"] == name), None)
