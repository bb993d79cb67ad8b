"""Which certificate a listener shows, and what a reload changes."""

import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pounce.assembly.tls import doubts, doubts_about, equip, inspect, load_certificates
from pounce.config.plan import Listener
from pounce.config.service import Listen
from pounce.errors import ConfigError
from pounce.net import tls
from pounce.net.address import Address
from pounce.net.tls import ListenerTLS
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


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        yield sock


def test_a_renewed_certificate_keeps_the_ticket_keys(tmp_path: Path, sock: socket.socket) -> None:
    listen = entry(AUTHORITY.issue("a.example").write(tmp_path, "a"))
    [listener] = equip([Listener(sock, listen)], [listen])
    AUTHORITY.issue("a.example").write(tmp_path, "a")
    [renewed] = equip([listener], [listen])
    before, after = listener.tls, renewed.tls
    assert isinstance(before, ListenerTLS)
    assert isinstance(after, ListenerTLS)
    assert after.front is before.front
    found = [each.certificates.find("a.example").certificate for each in (before, after)]
    assert found[0] != found[1]


def test_a_bad_certificate(tmp_path: Path, sock: socket.socket) -> None:
    listen = entry(AUTHORITY.issue("a.example").write(tmp_path, "a"))
    other = entry(
        AUTHORITY.issue("b.example").write(tmp_path, "b"), address=Address.parse("127.0.0.1:444")
    )
    (tmp_path / "b.pem").unlink()
    with pytest.raises(ConfigError, match=rf"^listen 127.0.0.1:444: {tmp_path}/b.pem cannot be"):
        equip([Listener(sock, listen)], [listen, other])


def test_an_entry_that_changes(tmp_path: Path, sock: socket.socket) -> None:
    plain = Listen(address=ADDRESS)
    secure = entry(AUTHORITY.issue("a.example").write(tmp_path, "a"))
    listeners = equip([Listener(sock, plain), Listener(sock, plain)], [plain])
    assert [each.tls for each in listeners] == [None, None]
    one, other = listeners = equip(listeners, [secure])
    assert one.entry == other.entry == secure
    assert one.tls is other.tls is not None
    # The address is still there until the next restart.
    assert equip(listeners, []) == listeners
    assert [each.tls for each in equip(listeners, [plain])] == [None, None]


def test_http3_ends_with_a_reload_and_needs_a_udp_socket(tmp_path: Path) -> None:
    secure = entry(AUTHORITY.issue("a.example").write(tmp_path, "a"))
    quic = replace(secure, http3=True)
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        alone = equip([Listener(tcp, quic)], [quic])
        assert [each.entry.http3 for each in alone] == [False]
        both = equip([Listener(tcp, quic), Listener(udp, quic)], [quic])
        assert both[0].tls is both[1].tls is not None
        assert [each.is_quic for each in both] == [False, True]
        ended = equip(both, [secure])
        assert [each.is_quic for each in ended] == [False, False]
        assert [each.is_quic for each in equip(ended, [quic])] == [False, True]


def test_who_is_asked_for_a_certificate_now_cannot_resume_a_session_without(
    tmp_path: Path, sock: socket.socket
) -> None:
    files = AUTHORITY.issue("a.example").write(tmp_path, "a")
    asking = entry(
        files, client_certificates="required", client_ca=str(AUTHORITY.write(tmp_path, "ca"))
    )
    listeners = equip([Listener(sock, entry(files))], [entry(files)])
    fronts = [front_of(listeners)]
    for listen in (asking, asking, entry(files)):
        listeners = equip(listeners, [listen])
        fronts.append(front_of(listeners))
    assert fronts[1] is fronts[2]
    assert len({id(front) for front in fronts}) == 3
    Authority("Another").write(tmp_path, "ca")
    listeners = equip(listeners, [asking])
    AUTHORITY.write(tmp_path, "ca")
    assert front_of(equip(listeners, [asking])) is not front_of(listeners)


def front_of(listeners: Sequence[Listener]) -> tls.Front:
    [listener] = listeners
    assert isinstance(listener.tls, ListenerTLS)
    return listener.tls.front


def test_old_ticket_keys_are_changed(
    tmp_path: Path, sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = entry(AUTHORITY.issue("a.example").write(tmp_path, "a"))
    listeners = equip([Listener(sock, listen)], [listen])
    monkeypatch.setattr(tls, "_TICKET_KEYS_AGE", 0.0)
    assert front_of(equip(listeners, [listen])) is not front_of(listeners)


def test_an_authority_that_cannot_be_loaded(tmp_path: Path, sock: socket.socket) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    files = AUTHORITY.issue("a.example").write(tmp_path, "a")
    asking = entry(files, client_certificates="optional", client_ca=str(ca))
    with pytest.raises(ConfigError, match=f"OpenSSL cannot load client_ca {ca}"):
        equip([Listener(sock, asking)], [asking])


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


def test_a_certificate_of_several_listeners_is_doubted_once(
    tmp_path: Path, sock: socket.socket
) -> None:
    hosts = [f"{letter}.example" for letter in "abcd"]
    files = AUTHORITY.issue(*hosts, days=3, starts_in=-4).write(tmp_path, "a")
    other = entry(files, address=Address.parse("127.0.0.2:443"))
    entries = [entry(files), other]
    listeners = [Listener(sock, each) for each in (entries[0], entries[0], other)]
    [doubt] = doubts_about(equip(listeners, entries))
    assert doubt.startswith(f"the certificate {files[0]} has expired on 20")
    assert doubt.endswith(" UTC; it is for a.example, b.example, c.example, others")


def test_files_that_could_be_read_are_not_doubted(tmp_path: Path) -> None:
    certificate, key = AUTHORITY.issue("a.example").write(tmp_path, "a")
    key.chmod(0o400)
    assert [each.kind for each in inspect(entry((certificate, key)))] == ["certificate"]


def test_credentials_are_not_looked_at() -> None:
    [finding] = inspect(Listen(address=ADDRESS, certificate=("credential:a", "/b")))
    assert finding == ("warning", f"{ADDRESS}: credential:a: only the service itself can read this")
