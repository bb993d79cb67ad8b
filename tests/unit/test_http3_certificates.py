"""Which certificate QUIC gets for a host, and what is said of files that it cannot use."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

from pounce.errors import ConfigError
from pounce.http3.certificates import QuicCertificates
from pounce.net.tls import Certificates, TLSFiles
from tests.certificates import Authority, rsa_key

AUTHORITY = Authority()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with two pairs of files, whose names are those of their hosts."""
    for name in ("a.example", "b.example"):
        AUTHORITY.issue(name, f"*.{name}").write(tmp_path, name)
    return tmp_path


def loaded(directory: Path, *pairs: tuple[str, str]) -> QuicCertificates:
    paths = [(str(directory / certificate), str(directory / key)) for certificate, key in pairs]
    return QuicCertificates(Certificates(TLSFiles(paths)))


def test_the_first_is_for_hosts_without_one(files: Path) -> None:
    AUTHORITY.issue("127.0.0.1").write(files, "address")
    names = ("a.example", "b.example", "address")
    certificates = loaded(files, *((f"{name}.pem", f"{name}.key") for name in names))
    a, b = certificates.choose("a.example"), certificates.choose("B.example")
    assert a[0] != b[0]
    assert certificates.choose("www.b.example") is b
    assert certificates.choose("c.example") is certificates.choose(None) is a
    assert certificates.choose("x.www.b.example") is certificates.choose("") is a
    assert certificates.choose("127.0.0.1") not in (a, b)


def test_certificate_and_key_may_share_a_file(files: Path) -> None:
    parts = [(files / f"a.example.{kind}").read_bytes() for kind in ("key", "pem")]
    (files / "both.pem").write_bytes("# für den Laden\n".encode() + b"".join(parts))
    certificate, _, key = loaded(files, ("both.pem", "both.pem")).choose("a.example")
    assert certificate.public_key() == key.public_key()


def test_the_issuers_that_follow_a_certificate_are_its_chain(files: Path) -> None:
    with (files / "a.example.pem").open("ab") as file:
        file.write(AUTHORITY.pem)
    names = ("a.example", "b.example")
    certificates = loaded(files, *((f"{name}.pem", f"{name}.key") for name in names))
    assert certificates.choose("a.example")[1] == [AUTHORITY.certificate]
    assert certificates.choose("b.example")[1] == []


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        ed448.Ed448PrivateKey.generate(),
        rsa_key(2048),
    ],
    ids=["ec", "ed25519", "ed448", "rsa"],
)
def test_keys_of_every_kind(tmp_path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    AUTHORITY.issue("a.example", key=key).write(tmp_path, "a")
    _, _, found = loaded(tmp_path, ("a.pem", "a.key")).choose("a.example")
    assert found.public_key() == key.public_key()


def test_a_pair_that_is_renewed_later(files: Path) -> None:
    paths = (str(files / "a.example.pem"), str(files / "a.example.key"))
    certificates = Certificates(TLSFiles([paths]))
    AUTHORITY.issue("a.example").write(files, "a.example")
    own, _, key = QuicCertificates(certificates).choose("a.example")
    assert own.public_key() == key.public_key()


def test_a_key_that_was_renewed_meanwhile(files: Path) -> None:
    """OpenSSL takes paths alone, and keeps no key to be had: the file is read twice."""
    paths = (str(files / "a.example.pem"), str(files / "a.example.key"))
    certificates = Certificates(TLSFiles([paths]))
    [context] = certificates.contexts
    context.key = AUTHORITY.issue("a.example").key_pem.decode()
    with pytest.raises(ConfigError, match=f"key {paths[1]}: the key is not this certificate's"):
        QuicCertificates(certificates)
    context.key = AUTHORITY.issue("a.example", password=b"secret").key_pem.decode()
    with pytest.raises(ConfigError, match=f"the key {paths[1]} cannot be used for HTTP/3"):
        QuicCertificates(certificates)
