"""What the HTTP/3 workers of a service share: mailboxes and a secret."""

import os
from collections.abc import Callable

from pounce.config.service import ServerConfig
from pounce.events.loggers import get_logger
from pounce.ipc.handover import QUIC, Keeper
from pounce.ipc.mailboxes import Mailboxes
from pounce.workers import SECRET_SIZE, Mail

logger = get_logger("pounce.supervisor")


class H3:
    """Connection ids are made with *secret*; a generation has at most *most* workers for HTTP/3.

    That is how many UDP sockets have one address: a worker reads sockets of its own, since the
    kernel chooses the socket by the client's address (SO_REUSEPORT, socket(7)).
    """

    def __init__(self, most: int, secret: bytes, config: ServerConfig) -> None:
        self._secret = secret
        self._most = most
        # For those that serve, start, and drain; and for one that takes over from another.
        # Those that do not end in time hold theirs for longer, so there may be need of more.
        self._mailboxes = Mailboxes(self._most * (config.max_draining + 2) + 2)
        self._tell: Callable[[], None] | None = None

    def prepare(self, config: ServerConfig) -> None:
        """Have mailboxes for one more generation, and for those that take over from its workers.

        Raises OSError where descriptors run out.
        """
        self._mailboxes.provide(2 * min(config.worker_count, self._most) + 2)

    def open_mailbox(self) -> Mail:
        """A mailbox for a new worker; raises IndexError when all are in use."""
        return Mail(self._mailboxes, self._mailboxes.acquire(), self._secret)

    def abandon_mailbox(self, number: int) -> None:
        """Its worker hangs: the others are not to wait until it has finished."""
        self._mailboxes.rest(number)

    def close_mailbox(self, number: int) -> None:
        """Its worker is gone."""
        self._mailboxes.release(number)
        self._tell_if_unread()

    def when_unread(self, tell: Callable[[], None]) -> None:
        """Call *tell* once no worker is left; no other may be started from now on."""
        self._tell = tell
        self._tell_if_unread()

    def _tell_if_unread(self) -> None:
        if self._tell is not None and not self._mailboxes.in_use:
            self._tell()

    def close(self) -> None:
        """Give back the descriptors."""
        self._mailboxes.close()


def recall_secret(keeper: Keeper | None) -> bytes:
    """The secret of the run before, where that was kept; else a new one, kept for the next.

    With the same one this run can tell the clients of the last that their connections are gone.
    """
    descriptor = keeper.recall(QUIC) if keeper else None
    if descriptor is not None:
        secret = os.pread(descriptor, SECRET_SIZE, 0)
        os.close(descriptor)
        if len(secret) == SECRET_SIZE:
            return secret
        logger.warning("the descriptor store has no secret of %d bytes for QUIC", SECRET_SIZE)
    secret = os.urandom(SECRET_SIZE)
    if keeper:
        memory = os.memfd_create(QUIC)
        os.write(memory, secret)
        keeper.remember(QUIC, memory)
        os.close(memory)
    return secret
