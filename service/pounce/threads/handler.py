"""What answers exchanges: an application, called as its kind wants it."""

from abc import ABC, abstractmethod

from pounce.threads.exchange import Exchange


class Handler(ABC):
    """What answers exchanges, each in a thread; one is shared by all threads."""

    @abstractmethod
    def answer(self, exchange: Exchange) -> None:
        """Call the application; what it raises is the exchange's failure."""

    def of_thread(self) -> "Handler":
        """What answers in one thread: itself, or what has a memory of its own."""
        return self

    def leave(self) -> None:  # noqa: B027 - most have nothing to do
        """The calling thread will answer no more."""
