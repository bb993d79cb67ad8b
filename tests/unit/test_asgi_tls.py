"""Distinguished names as RFC 4514 writes them, compared with another library's."""

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from pounce.asgi.extensions import distinguished_name
from tests.certificates import Authority

LONG_NAMES = {
    NameOID.COMMON_NAME: "commonName",
    NameOID.ORGANIZATION_NAME: "organizationName",
    NameOID.COUNTRY_NAME: "countryName",
    NameOID.DOMAIN_COMPONENT: "domainComponent",
    NameOID.USER_ID: "userId",
}

SUBJECTS = [
    [[(NameOID.COMMON_NAME, "client")]],
    [[(NameOID.COUNTRY_NAME, "DE")], [(NameOID.ORGANIZATION_NAME, "Shop, Inc.")]],
    [[(NameOID.DOMAIN_COMPONENT, "example"), (NameOID.USER_ID, "1+1=2")]],
    [[(NameOID.COMMON_NAME, 'a"b\\c<d>e;f,g+h')]],
    [[(NameOID.COMMON_NAME, " # ")], [(NameOID.COMMON_NAME, "#x")]],
    [[(NameOID.COMMON_NAME, "Jürgen 猫")]],
]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_distinguished_names(subject: list[list[tuple[x509.ObjectIdentifier, str]]]) -> None:
    name = x509.Name(
        x509.RelativeDistinguishedName([x509.NameAttribute(kind, text) for kind, text in part])
        for part in subject
    )
    certificate = Authority().issue("a.example", subject=name).certificate
    as_ssl = tuple(
        tuple((LONG_NAMES[each.oid], str(each.value)) for each in part)
        for part in certificate.subject.rdns
    )
    assert distinguished_name(as_ssl) == certificate.subject.rfc4514_string()


def test_a_name_that_is_a_space() -> None:
    """Where cryptography 43, Debian 13's, escapes the escape as well."""
    assert distinguished_name(((("commonName", " "),),)) == "CN=\\ "


def test_a_type_without_a_short_name() -> None:
    assert distinguished_name(((("emailAddress", "a@b.example"),),)) == "emailAddress=a@b.example"
