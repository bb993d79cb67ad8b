"""What an exchange needs of others: the threads, and what runs it in one."""

from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar

from pounce.threads.outbox import Outbox
from pounce.threads.storage import Storage

Job = TypeVar("Job")
"""An exchange, which these are for."""
_Job = TypeVar("_Job", contravariant=True)

Interrupt: TypeAlias = Callable[[Job], object]
"""Ends an exchange's application where it waits for something, and says so in its `listens`.

It can be called more than once, and from any thread.
"""


class Threads(Protocol[_Job]):
    """Where exchanges find a thread."""

    outbox: Outbox

    storage: Storage
    """What contents take room of until a thread has them."""

    ending: bool
    """Whether responses that are not complete are to be broken off."""

    def put(self, exchange: _Job) -> None:
        """Have the first free thread call `Exchange.run`."""

    def forsake(self, exchange: _Job) -> None:
        """*exchange* has lost its response: wait for its thread, but not for long."""


class Runner(Protocol):
    """The thread that runs an exchange."""

    name: str

    def step_aside(self) -> None:
        """It is going to wait for a client: have another thread take its place."""
