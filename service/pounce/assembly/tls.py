"""What each listener is served with: its entry and, where that has a certificate, TLS."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import chain
from ssl import SSLContext
from typing import Literal, NamedTuple

from pounce.config.kinds import CREDENTIAL
from pounce.config.service import Listen
from pounce.errors import ConfigError
from pounce.net.address import Address
from pounce.net.certificate import Certificate
from pounce.net.tls import Certificates, ListenerTLS, TLSFiles

_EXPIRES_SOON = timedelta(days=14)

# Hosts that a warning names; some certificates are for a hundred.
_FEW = 3


class Endpoints:
    """Entries and TLS contexts by descriptor. Raises ConfigError for unusable certificates.

    Both dictionaries are kept up to date; a generation of workers gets what they say when it
    starts. Where an entry has no certificate, *default* is its context.
    """

    def __init__(self, entries: dict[int, Listen], default: SSLContext | None = None) -> None:
        self.entries = entries
        self._default = default
        self.contexts: dict[int, SSLContext] = {}
        self._tls: dict[Address, ListenerTLS] = {}
        self.renew(list(entries.values()))

    def renew(self, listen: Iterable[Listen]) -> None:
        """Serve every address that is still in *listen* as it says there.

        Where ConfigError is raised, all is as it was.
        """
        listed = {entry.address: entry for entry in listen}
        loaded = {address: load_certificates(entry) for address, entry in listed.items()}
        for address, certificates in loaded.items():
            self._secure(address, certificates)
        for descriptor, entry in self.entries.items():
            self.entries[descriptor] = listed.get(entry.address, entry)
        self.contexts.clear()
        for descriptor, entry in self.entries.items():
            tls = self._tls.get(entry.address)
            context = tls.context if tls else self._default
            if context is not None:
                self.contexts[descriptor] = context

    def doubts(self) -> Iterator[str]:
        """What will keep clients from trusting the certificates in use, now or soon.

        Each text comes once, however many sockets of TLS and QUIC show the certificate.
        """
        entries = [each for each in self.entries.values() if each.address in self._tls]
        texts = (doubts(each, self._tls[each.address].certificates) for each in entries)
        yield from dict.fromkeys(chain.from_iterable(texts))

    def _secure(self, address: Address, certificates: Certificates | None) -> None:
        if certificates is None:
            self._tls.pop(address, None)
        elif address in self._tls:
            self._tls[address].use(certificates)
        else:
            self._tls[address] = ListenerTLS(certificates)


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
