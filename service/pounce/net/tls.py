"""The TLS of a listener: contexts, and the choice among certificates.

A listener has one *front* context, which every connection begins with. It holds the keys that
session tickets are encrypted with, and no certificate: as soon as the client has named a host,
the connection goes on with the context of a certificate. OpenSSL looks at the front context's
ticket keys all the same, so a session is resumed by every worker and generation that has
inherited the front context, whatever became of the certificates. Generations share it, and a
connection chooses among the certificates of the generation that has accepted it.
"""

import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from pounce.errors import ConfigError
from pounce.net.certificate import ByName, Certificate, load_chain, read_pem
from pounce.net.tls_groups import choose_groups

# TLS 1.2 with forward secrecy and authenticated encryption, as Mozilla's intermediate profile
# has it, and keys and hashes of at least 112 bits' strength. All suites of TLS 1.3 are such.
_CIPHERS = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"

# Ticket keys should be changed once a week (RFC 9325 section 3.4).
_TICKET_KEYS_AGE = 7 * 86_400.0


_VERIFY_MODES = {"optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

Context = TypeVar("Context", bound=ssl.SSLContext)


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """What a listener's TLS is made of.

    *pairs* are the paths of each certificate and its key; *client_ca* those of whom clients'
    certificates must be from, unless *client_certificates* is off.
    """

    pairs: Sequence[tuple[str, str]]
    client_certificates: Literal["off", "optional", "required"] = "off"
    client_ca: str = ""


class TLS(Protocol):
    """What begins TLS on a connection: an `ssl.SSLContext`, or a `ListenerTLS`."""

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *, server_side: bool = False
    ) -> ssl.SSLObject:
        """A connection that reads records from *incoming*, and writes some to *outgoing*."""


class CertificateContext(ssl.SSLContext):
    """A context with a certificate; *files* are its path and that of its key, whose text is *key*.

    The text is kept because OpenSSL does not give the key to others (QUIC), and the file may be
    another one by the time a worker is started.
    """

    certificate: Certificate
    key: str
    files: tuple[str, str]


class Certificates:
    """The certificates of a listener, loaded. Raises ConfigError where they cannot be."""

    def __init__(self, files: TLSFiles) -> None:
        self.client_certificates = files.client_certificates
        self.client_ca = read_pem(files.client_ca, "CERTIFICATE") if files.client_ca else ""
        self._files = files
        self.contexts = [self._load(*pair) for pair in files.pairs]
        self.find = ByName([(each.certificate, each) for each in self.contexts]).find

    @property
    def all(self) -> list[Certificate]:
        """Each certificate."""
        return [context.certificate for context in self.contexts]

    def asks_as(self, other: "Certificates") -> bool:
        """Whether clients have to show the same as with *other*."""
        mine = (self.client_certificates, self.client_ca)
        return mine == (other.client_certificates, other.client_ca)

    def front(self) -> ssl.SSLContext:
        """A context without a certificate, which asks clients for theirs as the others do."""
        context = self._prepare(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        context.sslobject_class = _Connection
        # Called for every handshake, with None where the client names no host.
        context.sni_callback = _choose
        return context

    def _load(self, certificate: str, key: str) -> CertificateContext:
        context = self._prepare(CertificateContext(ssl.PROTOCOL_TLS_SERVER))
        context.key = load_chain(context, certificate, key)
        context.certificate, context.files = Certificate.read(certificate), (certificate, key)
        return context

    def _prepare(self, context: Context) -> Context:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        choose_groups(context)
        # All suites are good, and the client knows what its hardware is good at.
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        if self.client_ca:
            try:
                context.load_verify_locations(cadata=self.client_ca)
            except ssl.SSLError as error:
                path, reason = self._files.client_ca, error.reason or error
                raise ConfigError(f"OpenSSL cannot load client_ca {path}: {reason}") from None
            context.verify_mode = _VERIFY_MODES[self.client_certificates]
        return context


class _Connection(ssl.SSLObject):
    """A connection that began with a front context; *certificates* are those to choose among."""

    certificates: Certificates


def _choose(connection: ssl.SSLObject | ssl.SSLSocket, host: str | None, _: ssl.SSLContext) -> None:
    assert isinstance(connection, _Connection)  # noqa: S101 - a front context makes no others
    connection.context = connection.certificates.find(host)


@dataclass(frozen=True, slots=True)
class Front:
    """A front *context*, and when it was made: seconds of `time.monotonic`."""

    context: ssl.SSLContext
    made: float = field(default_factory=time.monotonic)

    @property
    def is_old(self) -> bool:
        """Whether its ticket keys should not be used any longer."""
        return time.monotonic() - self.made > _TICKET_KEYS_AGE


class ListenerTLS:
    """The TLS of one listener for one generation.

    *before* is that of the generation that serves. Its front context is used again, so that its
    sessions can be resumed, until the ticket keys are old or clients have to show something else
    than before: a session that is resumed shows nothing anew.
    """

    def __init__(self, certificates: Certificates, before: "ListenerTLS | None" = None) -> None:
        self.certificates = certificates
        self.front = before.front_for(certificates) if before else Front(certificates.front())
        quiet_unreadable_names()

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *, server_side: bool = True
    ) -> ssl.SSLObject:
        """A server's side of a connection, which chooses among these certificates."""
        connection = self.front.context.wrap_bio(incoming, outgoing, server_side=server_side)
        assert isinstance(connection, _Connection)  # noqa: S101 - its class is set
        connection.certificates = self.certificates
        return connection

    def front_for(self, certificates: Certificates) -> Front:
        """Where connections begin that choose among *certificates*, those of the next plan."""
        goes_on = not self.front.is_old and certificates.asks_as(self.certificates)
        return self.front if goes_on else Front(certificates.front())


def quiet_unreadable_names() -> None:
    """Let no client fill the log by asking for a host whose name is not ASCII.

    The ssl module ends such a handshake by an exception that nobody can catch, and that the
    interpreter reports (sys.unraisablehook). All others are reported as before.
    """
    report = sys.unraisablehook
    if getattr(report, "passes_names", False):
        return

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        # The name itself is reported, from Python 3.14 on a sentence.
        is_name = isinstance(unraisable.object, bytes) or "servername" in (unraisable.err_msg or "")
        if not (is_name and isinstance(unraisable.exc_value, UnicodeDecodeError)):
            report(unraisable)

    hook.passes_names = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook
