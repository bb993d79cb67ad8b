"""What each listener is served with: its entry and, where that has a certificate, TLS."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import chain
from ssl import SSLContext
from typing import Literal, NamedTuple

from pounce.config.kinds import CREDENTIAL
from pounce.config.plan import Listener
from pounce.config.service import Listen
from pounce.errors import ConfigError
from pounce.net.address import Address
from pounce.net.certificate import Certificate
from pounce.net.tls import Certificates, ListenerTLS, TLSFiles

_EXPIRES_SOON = timedelta(days=14)

# Hosts that a warning names; some certificates are for a hundred.
_FEW = 3


def equip(
    listeners: Iterable[Listener], entries: Iterable[Listen], default: SSLContext | None = None
) -> tuple[Listener, ...]:
    """*listeners* for a generation that begins now: as *entries* say, with their certificates.

    An address that is in no entry any more is served as before, until the next restart. *default*
    is for connections to addresses without a certificate. Raises ConfigError.
    """
    known = list(listeners)
    listed = {each.address: each for each in entries}
    tls = {each.entry.address: _own(each) for each in known if each.is_stream}
    for address, entry in listed.items():
        certificates = load_certificates(entry)
        tls[address] = ListenerTLS(certificates, tls.get(address)) if certificates else None
    with_quic = addresses_of_quic(known)

    def equipped(each: Listener) -> Listener:
        entry = listed.get(each.entry.address, each.entry)
        own = tls[entry.address]
        if each.is_stream:
            return replace(each, entry=_told_of(entry, with_quic), tls=own or default)
        return replace(each, entry=entry, tls=own if entry.http3 else None)

    return tuple(map(equipped, known))


def addresses_of_quic(listeners: Iterable[Listener]) -> set[Address]:
    """Those at which HTTP/3 can be served."""
    return {each.entry.address for each in listeners if not each.is_stream}


def _own(listener: Listener) -> ListenerTLS | None:
    return listener.tls if isinstance(listener.tls, ListenerTLS) else None


def _told_of(entry: Listen, with_quic: Container[Address]) -> Listen:
    # Clients must not be told of HTTP/3 (Alt-Svc) where no UDP socket serves it.
    tells = entry.http3 and entry.address in with_quic
    return entry if tells == entry.http3 else replace(entry, http3=False)


def doubts_about(listeners: Iterable[Listener]) -> Iterator[str]:
    """What will keep clients from trusting the certificates in use, now or soon.

    Each text comes once, however many sockets of TLS and QUIC show the certificate.
    """
    secure = ((each.entry, tls) for each in listeners if (tls := _own(each)))
    texts = (doubts(entry, tls.certificates) for entry, tls in secure)
    yield from dict.fromkeys(chain.from_iterable(texts))


def load_certificates(entry: Listen) -> Certificates | None:
    """The certificates of *entry*, if it has any; raises ConfigError, which names the address."""
    if not entry.certificate:
        return None
    try:
        return Certificates(TLSFiles(entry.pairs, entry.client_certificates, entry.client_ca))
    except ConfigError as error:
        raise ConfigError(f"listen {entry.address}: {error.message}", hint=error.hint) from None


def doubts(entry: Listen, certificates: Certificates) -> Iterator[str]:
    """What will keep clients from trusting the *certificates* of *entry*, now or soon."""
    now = datetime.now(UTC)
    for path, certificate in zip(entry.certificate, certificates.all, strict=True):
        doubt = _doubt(certificate, now)
        if doubt:
            yield f"the certificate {path} {doubt}"
    host = entry.address.host
    if _is_name(host) and not any(each.covers(host) for each in certificates.all):
        yield f"no certificate of {entry.address} is for the name {host}"


class Finding(NamedTuple):
    """What an inspection has to tell."""

    kind: Literal["certificate", "warning"]
    text: str


def inspect(entry: Listen) -> Iterator[Finding]:
    """Load the certificates of *entry* as a service would; raises ConfigError if it could not.

    Credentials are there for the service alone: with one of them, nothing can be loaded.
    """
    files = _files(entry)
    hidden = [path for path in files if path.startswith(CREDENTIAL)]
    if hidden:
        text = f"{entry.address}: {', '.join(hidden)}: only the service itself can read this"
        yield Finding("warning", text)
        return
    certificates = load_certificates(entry)
    if certificates is None:
        return
    for path, each in zip(entry.certificate, certificates.all, strict=True):
        names = ", ".join(each.names) or "no host"
        yield Finding("certificate", f"{path} is for {names}, until {_moment(each.not_after)}")
    for text in doubts(entry, certificates):
        yield Finding("warning", text)


def _files(entry: Listen) -> list[str]:
    return [each for each in (*entry.certificate, *entry.key, entry.client_ca) if each]


def _doubt(certificate: Certificate, now: datetime) -> str:
    doubt = _doubt_about_time(certificate, now)
    if doubt:
        return f"{doubt}; it is for {_some_hosts(certificate)}"
    if not certificate.names:
        return "names no host (subjectAltName), so that no client accepts it"
    return ""


def _doubt_about_time(certificate: Certificate, now: datetime) -> str:
    if now > certificate.not_after:
        return f"has expired on {_moment(certificate.not_after)}"
    if now < certificate.not_before:
        return f"is valid only from {_moment(certificate.not_before)} on"
    if now > certificate.not_after - _EXPIRES_SOON:
        return f"expires soon, on {_moment(certificate.not_after)}"
    return ""


def _some_hosts(certificate: Certificate) -> str:
    hosts = list(certificate.names[:_FEW]) or ["no host"]
    if len(certificate.names) > _FEW:
        hosts.append("others")
    return ", ".join(hosts)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _is_name(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return host not in ("", "localhost")
    return False
