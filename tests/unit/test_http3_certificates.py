"""Which certificate QUIC gets for a host, and what is said of files that are no pair."""

from pathlib import Path

import pytest

from pounce.errors import ConfigError
from pounce.http3.certificates import Certificates
from tests.certificates import Authority


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with two pairs of files, whose names are those of their hosts."""
    authority = Authority()
    for name in ("a.example", "b.example"):
        authority.issue(name, f"*.{name}").write(tmp_path, name)
    return tmp_path


def of(directory: Path, *names: str) -> list[str]:
    return [str(directory / name) for name in names]


def test_the_first_is_for_hosts_without_one(files: Path) -> None:
    certificates = Certificates(
        of(files, "a.example.pem", "b.example.pem"), of(files, "a.example.key", "b.example.key")
    )
    a, b = certificates.choose("a.example"), certificates.choose("B.example")
    assert a[0] != b[0]
    assert certificates.choose("www.b.example") == b
    assert certificates.choose("c.example") == certificates.choose(None) == a


def test_certificate_and_key_may_share_a_file(files: Path) -> None:
    parts = [(files / f"a.example.{kind}").read_bytes() for kind in ("key", "pem")]
    (files / "both.pem").write_bytes(b"".join(parts))
    certificate, _, key = Certificates(of(files, "both.pem"), []).choose("a.example")
    assert certificate.public_key() == key.public_key()


@pytest.mark.parametrize(
    ("certificate", "key", "reason"),
    [
        (
            "a.example.pem",
            "b.example.key",
            "key .*b.example.key: the key is not this certificate's",
        ),
        ("a.example.key", "a.example.key", "a.example.key has no certificate that can be read"),
        ("a.example.pem", "a.example.pem", "a.example.pem has no private key"),
        ("none.pem", "a.example.key", "none.pem cannot be read: No such file"),
    ],
)
def test_files_that_are_no_pair_are_refused(
    certificate: str, key: str, reason: str, files: Path
) -> None:
    with pytest.raises(ConfigError, match=reason):
        Certificates(of(files, certificate), of(files, key))
