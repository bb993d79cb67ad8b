"""The groups that TLS agrees on keys in, as clients find them."""

import ssl

import pytest

from pounce.net import tls_groups
from pounce.net.tls import TLS, Certificates, ListenerTLS, TLSFiles
from tests.certificates import Authority, rsa_key

OFFERED = ("X25519", "prime256v1", "secp384r1")
NOT_OFFERED = ("X448", "secp521r1")
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> ListenerTLS:
    """A listener's TLS, with one certificate behind it."""
    # With TLS 1.2 the curve of an ECDSA certificate would have to be one of the client's groups.
    issued = Authority().issue("a.example", key=rsa_key(2048))
    certificate, key = issued.write(tmp_path_factory.mktemp("tls"), "a")
    return ListenerTLS(Certificates(TLSFiles([(str(certificate), str(key))])))


def client(group: str, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client's context that offers one *group*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_ecdh_curve(group)
    return context


def shake_hands(ours: TLS, theirs: ssl.SSLContext) -> None:
    """A handshake of a client with a server, in memory; raises ssl.SSLError."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        theirs.wrap_bio(down, up, server_hostname="a.example"),
        ours.wrap_bio(up, down, server_side=True),
    ]
    while sides:
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("group", OFFERED)
def test_a_group_of_the_profile(
    server: ssl.SSLContext, group: str, version: ssl.TLSVersion
) -> None:
    shake_hands(server, client(group, version))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("group", NOT_OFFERED)
def test_another_group(server: ListenerTLS, group: str, version: ssl.TLSVersion) -> None:
    theirs = client(group, version)
    shake_hands(ssl_as_it_is(server), theirs)
    with pytest.raises(ssl.SSLError):
        shake_hands(server, theirs)


def ssl_as_it_is(server: ListenerTLS) -> ssl.SSLContext:
    """A context that offers OpenSSL's own groups, with the same certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server.certificates.contexts[0].files)
    return context


def test_a_group_that_openssl_does_not_know_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_groups, "_WITH_POST_QUANTUM", "no-such-group")
    assert tls_groups.choose_groups(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    monkeypatch.setattr(tls_groups, "_GROUPS", "no-such-group")
    assert not tls_groups.choose_groups(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


@pytest.mark.skipif(hasattr(ssl.SSLContext, "set_groups"), reason="nothing has to be known")
def test_without_knowing_how_python_stores_a_context_openssls_groups_stay(
    monkeypatch: pytest.MonkeyPatch, server: ListenerTLS
) -> None:
    tls_groups._openssl.cache_clear()
    monkeypatch.setattr(tls_groups, "_KNOWN_LAYOUT", False)
    context = ssl_as_it_is(server)
    assert not tls_groups.choose_groups(context)
    tls_groups._openssl.cache_clear()
    shake_hands(context, client("X448", ssl.TLSVersion.TLSv1_3))
