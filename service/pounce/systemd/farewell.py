"""What systemd hears last of a service that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pounce.errors import PounceError

if TYPE_CHECKING:
    from pounce.systemd.notify import SystemdNotifier


@contextmanager
def saying_why(notifier: SystemdNotifier | None = None) -> Iterator[None]:
    """Have `systemctl status` show a PounceError that ends the context, and with it the service."""
    try:
        yield
    except PounceError as error:
        # Not needed, and not paid for, where nothing fails and another interpreter takes over.
        from pounce.systemd.notify import SystemdNotifier

        (notifier or SystemdNotifier()).say_why(error.message)
        raise
