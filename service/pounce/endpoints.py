"""What each listener is served with: its entry and, where that has a certificate, TLS."""

import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from ssl import SSLContext

from pounce.config import Listen
from pounce.errors import ConfigError
from pounce.net.address import Address
from pounce.net.certificate import Certificate
from pounce.net.tls import Certificates, ListenerTLS, TLSFiles

_EXPIRES_SOON = timedelta(days=14)


class Endpoints:
    """Entries and TLS contexts by descriptor. Raises ConfigError for unusable certificates.

    Both dictionaries are kept up to date; a generation of workers gets what they say when it
    starts.
    """

    def __init__(self, entries: dict[int, Listen]) -> None:
        self.entries = entries
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
            if entry.address in self._tls:
                self.contexts[descriptor] = self._tls[entry.address].context

    def doubts(self) -> Iterator[str]:
        """What will keep clients from trusting the certificates in use, now or soon."""
        for entry in dict.fromkeys(self.entries.values()):
            if entry.address in self._tls:
                yield from doubts(entry, self._tls[entry.address].certificates)

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
    keys = entry.key or entry.certificate
    pairs = list(zip(entry.certificate, keys, strict=True))
    try:
        return Certificates(TLSFiles(pairs, entry.client_certificates, entry.client_ca))
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


def closed_files(entry: Listen) -> Iterator[str]:
    """Those files of *entry* that root alone can read, which the service's own user is not."""
    for path in filter(None, {*entry.certificate, *entry.key, entry.client_ca}):
        status = Path(path).stat()
        if not status.st_mode & stat.S_IROTH and status.st_uid == 0 and status.st_gid == 0:
            yield path


def _doubt(certificate: Certificate, now: datetime) -> str:
    ends = f"{certificate.not_after:%Y-%m-%d %H:%M} UTC"
    if now > certificate.not_after:
        return f"has expired on {ends}"
    if now < certificate.not_before:
        return f"is valid only from {certificate.not_before:%Y-%m-%d %H:%M} UTC on"
    if now > certificate.not_after - _EXPIRES_SOON:
        return f"expires soon, on {ends}"
    if not certificate.names:
        return "names no host (subjectAltName), so that no client accepts it"
    return ""


def _is_name(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return host not in ("", "localhost")
    return False
