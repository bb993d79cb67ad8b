"""Which certificate a listener shows, and what a reload changes."""

from pathlib import Path

import pytest

from pounce.assembly.tls import Endpoints, doubts, inspect, load_certificates
from pounce.config.service import Listen
from pounce.errors import ConfigError
from pounce.net import tls
from pounce.net.address import Address
from tests.certificates import Authority

AUTHORITY = Authority()
ADDRESS = Address.parse("127.0.0.1:443")


def entry(*files: tuple[Path, Path], address: Address = ADDRESS, **options: str) -> Listen:
    certificates = tuple(str(certificate) for certificate, _ in files)
    keys = tuple(str(key) for _, key in files)
    return Listen(address=address, certificate=certificates, key=keys, **options)  # type: ignore[arg-type]


def test_the_certificate_for_a_name(tmp_path: Path) -> None:
    hosts = [("a.example", "*.a.example"), ("b.example", "x.a.example"), ("*.b.example",)]
    files = [AUTHORITY.issue(*names).write(tmp_path, names[0]) for names in hosts]
    certificates = load_certificates(entry(*files))
    assert certificates is not None
    for host, index in {
        "a.example": 0,
        "A.Example": 0,
        "y.a.example": 0,
        "x.a.example": 1,
        "b.example": 1,
        "x.b.example": 2,
        "y.x.b.example": 0,
        "c.example": 0,
        "": 0,
        None: 0,
    }.items():
        assert certificates.find(host).certificate is certificates.all[index], host


def test_a_renewed_certificate_keeps_the_context(tmp_path: Path) -> None:
    listen = entry(AUTHORITY.issue("a.example").write(tmp_path, "a"))
    endpoints = Endpoints({7: listen})
    context, [tls] = endpoints.contexts[7], endpoints._tls.values()
    before = tls.certificates.find("a.example").certificate
    AUTHORITY.issue("a.example").write(tmp_path, "a")
    endpoints.renew([listen])
    assert endpoints.contexts == {7: context}
    assert tls.certificates.find("a.example").certificate != before


def test_a_bad_certificate_changes_nothing(tmp_path: Path) -> None:
    listen = entry(AUTHORITY.issue("a.example").write(tmp_path, "a"))
    other = entry(
        AUTHORITY.issue("b.example").write(tmp_path, "b"), address=Address.parse("127.0.0.1:444")
    )
    endpoints = Endpoints({7: listen, 8: other})
    before = [each.certificates for each in endpoints._tls.values()]
    AUTHORITY.issue("a.example").write(tmp_path, "a")
    (tmp_path / "b.pem").unlink()
    with pytest.raises(ConfigError, match=rf"^listen 127.0.0.1:444: {tmp_path}/b.pem cannot be"):
        endpoints.renew([listen, other])
    assert [each.certificates for each in endpoints._tls.values()] == before


def test_an_entry_that_changes(tmp_path: Path) -> None:
    plain = Listen(address=ADDRESS)
    secure = entry(AUTHORITY.issue("a.example").write(tmp_path, "a"))
    endpoints = Endpoints({7: plain, 8: plain})
    entries, contexts = endpoints.entries, endpoints.contexts
    assert contexts == {}
    endpoints.renew([secure])
    assert set(contexts) == {7, 8}
    assert contexts[7] is contexts[8]
    assert entries == {7: secure, 8: secure}
    endpoints.renew([])  # the address is still there until the next restart
    assert set(contexts) == {7, 8}
    endpoints.renew([plain])
    assert contexts == {}
    assert entries == {7: plain, 8: plain}


def test_who_is_asked_for_a_certificate_now_cannot_resume_a_session_without(
    tmp_path: Path,
) -> None:
    files = AUTHORITY.issue("a.example").write(tmp_path, "a")
    asking = entry(
        files, client_certificates="required", client_ca=str(AUTHORITY.write(tmp_path, "ca"))
    )
    endpoints = Endpoints({7: entry(files)})
    contexts = [endpoints.contexts[7]]
    for listen in (asking, asking, entry(files)):
        endpoints.renew([listen])
        contexts.append(endpoints.contexts[7])
    assert contexts[1] is contexts[2]
    assert len({id(context) for context in contexts}) == 3
    Authority("Another").write(tmp_path, "ca")
    endpoints.renew([asking])
    renewed = endpoints.contexts[7]
    AUTHORITY.write(tmp_path, "ca")
    endpoints.renew([asking])
    assert endpoints.contexts[7] is not renewed


def test_old_ticket_keys_are_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listen = entry(AUTHORITY.issue("a.example").write(tmp_path, "a"))
    endpoints = Endpoints({7: listen})
    context = endpoints.contexts[7]
    monkeypatch.setattr(tls, "_TICKET_KEYS_AGE", 0.0)
    endpoints.renew([listen])
    assert endpoints.contexts[7] is not context


def test_an_authority_that_cannot_be_loaded(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    files = AUTHORITY.issue("a.example").write(tmp_path, "a")
    with pytest.raises(ConfigError, match=f"OpenSSL cannot load client_ca {ca}"):
        Endpoints({7: entry(files, client_certificates="optional", client_ca=str(ca))})


@pytest.mark.parametrize(
    ("address", "hosts", "days", "starts_in", "doubt"),
    [
        ("127.0.0.1:443", ["a.example"], 90, -1, ""),
        ("a.example:443", ["a.example"], 90, -1, ""),
        ("127.0.0.1:443", ["a.example"], 16, -1, ""),
        ("127.0.0.1:443", ["a.example"], 14, -1, "expires soon, on "),
        ("127.0.0.1:443", ["a.example"], 3, -4, "has expired on "),
        ("127.0.0.1:443", ["a.example"], 90, 1, "is valid only from "),
        ("127.0.0.1:443", [], 90, -1, "names no host"),
        ("127.0.0.1:443", ["127.0.0.1"], 90, -1, ""),
        ("b.example:443", ["a.example"], 90, -1, "no certificate of b.example:443 is for the name"),
    ],
)
def test_doubts(
    tmp_path: Path, address: str, hosts: list[str], days: int, starts_in: int, doubt: str
) -> None:
    files = AUTHORITY.issue(*hosts, days=days, starts_in=starts_in).write(tmp_path, "a")
    listen = entry(files, address=Address.parse(address))
    certificates = load_certificates(listen)
    assert certificates is not None
    found = "".join(doubts(listen, certificates))
    assert doubt in found
    assert bool(doubt) == bool(found)


def test_a_certificate_of_several_listeners_is_doubted_once(tmp_path: Path) -> None:
    hosts = [f"{letter}.example" for letter in "abcd"]
    files = AUTHORITY.issue(*hosts, days=3, starts_in=-4).write(tmp_path, "a")
    other = entry(files, address=Address.parse("127.0.0.2:443"))
    [doubt] = Endpoints({7: entry(files), 8: entry(files), 9: other}).doubts()
    assert doubt.startswith(f"the certificate {files[0]} has expired on 20")
    assert doubt.endswith(" UTC; it is for a.example, b.example, c.example, others")


def test_files_that_could_be_read_are_not_doubted(tmp_path: Path) -> None:
    certificate, key = AUTHORITY.issue("a.example").write(tmp_path, "a")
    key.chmod(0o400)
    assert [each.kind for each in inspect(entry((certificate, key)))] == ["certificate"]


def test_credentials_are_not_looked_at() -> None:
    [finding] = inspect(Listen(address=ADDRESS, certificate=("credential:a", "/b")))
    assert finding == ("warning", f"{ADDRESS}: credential:a: only the service itself can read this")
