"""A supervisor in a thread of a test's own, as a program has it that embeds pounce."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pounce.supervisor import Supervisor

PATIENCE = 20.0


@contextmanager
def supervised(
    supervisor: Supervisor, *listeners: socket.socket, **options: Any
) -> Iterator[threading.Thread]:
    """Run *supervisor* on *listeners* until the block ends, in the thread that is given."""
    thread = threading.Thread(target=supervisor.run, args=[listeners], kwargs=options)
    thread.start()
    try:
        yield thread
    finally:
        supervisor.shutdown()
        thread.join(PATIENCE)
        assert not thread.is_alive()
