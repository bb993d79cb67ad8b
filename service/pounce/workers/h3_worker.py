"""The worker that serves an application over HTTP/3."""

import logging
from collections.abc import Callable

from pounce.application.interface import Served
from pounce.config.plan import Listener
from pounce.http.connections import ServerContext
from pounce.http3.certificates import QuicCertificates, quic_configuration
from pounce.net.tls import ListenerTLS
from pounce.workers.base import Assignment
from pounce.workers.serving import ServingWorker
from pounce.workers.switchboard import QuicListener, Switchboard

# Seconds between two looks whether the other workers have finished as well.
_LOOK = 0.05


class H3Worker(ServingWorker):
    """Serves on the UDP sockets of its assignment, and what others find there for it."""

    def __init__(self, assignment: Assignment, load: Callable[[], Served]) -> None:
        super().__init__(assignment, load)
        self._switchboard: Switchboard | None = None

    def load(self) -> None:
        """Import the application, and give QUIC the certificates."""
        # What aioquic says of each malformed packet is for its developers: anybody can send
        # some, and nobody could act on it.
        # An application's dictConfig() may enable a disabled logger, but leaves the level alone.
        logging.getLogger("quic").setLevel(logging.CRITICAL + 1)
        self._listeners = [self._quic(each) for each in self.assignment.listeners]
        super().load()

    def attach(self, context: ServerContext) -> None:
        """Prepare to read the sockets; mail may come from now on."""
        mail = self.assignment.mail
        assert mail is not None  # noqa: S101 - the supervisor gives it to a worker of this kind
        self._switchboard = Switchboard(context, self._listeners, mail)

    def serve(self) -> None:
        """Read the sockets, unless a drain came first."""
        if not self.draining and self._switchboard is not None:
            self._switchboard.open()

    def drain(self, *, hand_over: bool) -> None:
        """Let every connection finish, and leave the sockets to others if there are any.

        Where nobody takes over, only this worker's sockets bring what its clients send.
        """
        if self._switchboard is not None:
            if hand_over and not self.stopping:
                self._switchboard.close()
            else:
                self._switchboard.stay(stopping=self.stopping)
        super().drain(hand_over=hand_over)
        if self.stopping:
            self._look()

    def check_drained(self) -> None:
        """End, when draining and nobody is left here; at a stop, when nobody is left anywhere."""
        if self.stopping and self.is_idle() and self._switchboard and self._switchboard.is_needed():
            return
        super().check_drained()

    async def finish(self) -> None:
        """Read no mail any longer, and run the lifespan's shutdown."""
        if self._switchboard is not None:
            self._switchboard.end()
        await super().finish()

    def tick(self, now: float) -> None:
        """Sweep the connections' timeouts and publish the counters."""
        if self._switchboard is not None:
            self._switchboard.sweep()
        super().tick(now)

    def _look(self) -> None:
        """Call `check_drained` until this worker ends: other workers do not tell this one."""
        self.check_drained()
        self.loop.call_later(_LOOK, self._look)

    def _quic(self, listener: Listener) -> QuicListener:
        tls = listener.tls
        assert isinstance(tls, ListenerTLS)  # noqa: S101 - an entry with http3 has a certificate
        certificates = QuicCertificates(tls.certificates)
        configuration = quic_configuration(self.config, certificates)
        return QuicListener(listener.sock, configuration, certificates.choose, listener.closes)
