"""What an exchange needs of others: the connection, the threads, and what runs it in one."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pounce.asgi.cycle import Cycle
from pounce.asgi.stream import Stream
from pounce.http.response_head import ResponseHead
from pounce.threads.outbox import Outbox
from pounce.threads.storage import Storage

if TYPE_CHECKING:
    from pounce.threads.exchange import Exchange

Interrupt: TypeAlias = Callable[["Exchange"], object]
"""Ends an exchange's application where it waits for something, and says so in its `listens`.

It can be called more than once, and from any thread.
"""


class ExchangeStream(Stream, Protocol):
    """What an exchange needs of the connection besides."""

    def respond(self, head: ResponseHead, data: bytes) -> None:
        """Send a whole response. Raises MessageError."""

    @property
    def sends_files(self) -> bool:
        """Whether `send_file` can be called."""

    async def send_file(self, file: int, offset: int, count: int) -> bool:
        """Send *count* bytes of descriptor *file* as the whole content; false if it fails."""

    def go_on_with(self, cycle: Cycle) -> None:
        """Start *cycle* for the same request, in place of the exchange."""


class Threads(Protocol):
    """Where exchanges find a thread."""

    outbox: Outbox

    storage: Storage
    """What contents take room of until a thread has them."""

    ending: bool
    """Whether responses that are not complete are to be broken off."""

    def put(self, exchange: "Exchange") -> None:
        """Have the first free thread call `Exchange.run`."""

    def forsake(self, exchange: "Exchange") -> None:
        """*exchange* has lost its response: wait for its thread, but not for long."""


class Runner(Protocol):
    """The thread that runs an exchange."""

    name: str

    def step_aside(self) -> None:
        """It is going to wait for a client: have another thread take its place."""


class Handler(ABC):
    """What answers exchanges, each in a thread; one is shared by all threads."""

    @abstractmethod
    def answer(self, exchange: "Exchange") -> None:
        """Call the application; what it raises is the exchange's failure."""

    def of_thread(self) -> "Handler":
        """What answers in one thread: itself, or what has a memory of its own."""
        return self

    def leave(self) -> None:  # noqa: B027 - most have nothing to do
        """The calling thread will answer no more."""
