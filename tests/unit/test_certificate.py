"""What is read from a certificate, and what is said of files that cannot be used."""

import ssl
import sys
from datetime import UTC
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pounce.errors import ConfigError
from pounce.net.certificate import Certificate, load_chain
from tests.certificates import Authority, rsa_key

AUTHORITY = Authority()


def read(directory: Path, pem: bytes) -> Certificate:
    path = directory / "some.pem"
    path.write_bytes(pem)
    return Certificate.read(str(path))


@pytest.mark.parametrize("days", [1, 90, 365 * 40])  # from 2050 on, years have four digits
def test_what_a_certificate_says(tmp_path: Path, days: int) -> None:
    hosts = ("a.example", "*.B.example", "127.0.0.1", "::1", *(f"{i}.example" for i in range(99)))
    issued = AUTHORITY.issue(*hosts, days=days)
    certificate = read(tmp_path, issued.pem + AUTHORITY.pem)
    assert certificate.pem == issued.pem.decode()
    assert certificate.names == (hosts[0], "*.b.example", *hosts[2:])
    assert certificate.not_before == issued.certificate.not_valid_before_utc.astimezone(UTC)
    assert certificate.not_after == issued.certificate.not_valid_after_utc
    assert certificate.chain == (issued.certificate, AUTHORITY.certificate)


def test_a_certificate_that_names_no_host(tmp_path: Path) -> None:
    assert read(tmp_path, AUTHORITY.issue().pem).names == ()


def with_name(tag: int, name: bytes) -> bytes:
    """A certificate whose one name has this *tag* and these five bytes."""
    der = ssl.PEM_cert_to_DER_cert(AUTHORITY.issue("abcde").pem.decode())
    der = der.replace(b"\x82\x05abcde", bytes((tag, 5)) + name)
    return ssl.DER_cert_to_PEM_cert(der).encode()


@pytest.mark.parametrize(("tag", "name"), [(0x87, b"abcde"), (0xA3, b"\x30\x03abc")])
def test_a_certificate_with_a_malformed_name(tmp_path: Path, tag: int, name: bytes) -> None:
    """OpenSSL does not mind that an address has five bytes, or a name of no use to servers."""
    with pytest.raises(ConfigError, match=r"some\.pem: the certificate's extensions, which say"):
        read(tmp_path, with_name(tag, name))


def test_a_certificate_with_an_international_name(tmp_path: Path) -> None:
    """Clients ask for the A-label (RFC 9525 section 6.3); what is none is for no client."""
    assert read(tmp_path, AUTHORITY.issue("XN--Mnchen-3ya.example").pem).names == (
        "xn--mnchen-3ya.example",
    )
    assert not read(tmp_path, with_name(0x82, "abüc".encode())).covers("xn--abc-hoa")


def test_names_that_are_no_hosts_are_left_out(tmp_path: Path) -> None:
    assert read(tmp_path, with_name(0x81, b"a@b.c")).names == ()


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("a.example", True),
        ("b.example", False),
        ("x.b.example", True),
        ("y.x.b.example", False),
        ("example", False),
        ("", False),
    ],
)
def test_a_wildcard_is_one_label(tmp_path: Path, host: str, covered: bool) -> None:
    certificate = read(tmp_path, AUTHORITY.issue("a.example", "*.b.example").pem)
    assert certificate.covers(host) is covered


def refusal(certificate: Path, key: Path) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("@SECLEVEL=2:ECDHE+AESGCM")
    with pytest.raises(ConfigError) as caught:
        load_chain(context, str(certificate), str(key))
    assert caught.value.hint or "has no PEM block" in caught.value.message
    return caught.value.message


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    certificate, key = AUTHORITY.issue("a.example").write(tmp_path, "good")
    _, other = AUTHORITY.issue("a.example").write(tmp_path, "other")
    _, locked = AUTHORITY.issue("a.example", password=b"secret").write(tmp_path, "locked")
    short = AUTHORITY.issue("a.example", key=rsa_key(1024)).write(tmp_path, "short")
    empty, missing = tmp_path / "empty", tmp_path / "missing"
    empty.touch()
    assert refusal(missing, key) == f"{missing} cannot be read: No such file or directory"
    assert refusal(certificate, tmp_path) == f"{tmp_path} cannot be read: Is a directory"
    assert refusal(empty, key) == f"{empty} has no PEM block '-----BEGIN CERTIFICATE-----'"
    assert refusal(certificate, empty) == f"{empty} has no PEM block '-----BEGIN PRIVATE KEY-----'"
    assert refusal(certificate, other) == (
        f"certificate {certificate}, key {other}: the key is not this certificate's"
    )
    assert refusal(certificate, locked) == (
        f"the key {locked} is protected by a password, which nobody is there to type"
    )
    assert refusal(*short) == (
        f"certificate {short[0]}, key {short[1]}: its key is too short to be safe"
    )


def test_a_file_that_only_looks_like_a_certificate(tmp_path: Path) -> None:
    _, key = AUTHORITY.issue("a.example").write(tmp_path, "good")
    broken = tmp_path / "broken.pem"
    for text in (
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ):
        broken.write_text(text)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with pytest.raises(ConfigError, match="OpenSSL cannot load it"):
            load_chain(context, str(broken), str(key))


def test_a_certificate_of_another_label(tmp_path: Path) -> None:
    """OpenSSL takes its own form of a certificate, with what it is trusted for; others do not."""
    pem = AUTHORITY.issue("a.example").pem.replace(b" CERTIFICATE-", b" TRUSTED CERTIFICATE-")
    with pytest.raises(ConfigError, match=r"some\.pem has no certificate that can be read"):
        read(tmp_path, pem)


@pytest.mark.parametrize("found", ["", "x509 = type('x509', (), {'Certificate': object})"])
def test_cryptography_is_missing_or_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    (tmp_path / "cryptography.py").write_text(found)
    for name in [each for each in sys.modules if each.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="without cryptography 42 or later: ") as caught:
        read(tmp_path, AUTHORITY.pem)
    assert "install python3-cryptography" in caught.value.hint


def test_key_and_certificate_in_one_file(tmp_path: Path) -> None:
    issued = AUTHORITY.issue("a.example", key=ec.generate_private_key(ec.SECP384R1()))
    both = tmp_path / "both.pem"
    both.write_bytes("# für den Laden\n".encode() + issued.key_pem + issued.pem)
    load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), str(both), str(both))
    assert Certificate.read(str(both)).names == ("a.example",)
