"""Accepting, when accept(2) fails: no listener is ever left for good."""

import asyncio
import errno
import socket
from contextlib import ExitStack

import pytest

from pounce.workers import acceptor as module
from pounce.workers.acceptor import Acceptor
from tests.live import live, until


class Listener(socket.socket):
    """A listener on the loopback; accept(2) fails with each of *errors* first."""

    def __init__(self, *errors: int) -> None:
        super().__init__()
        self.errors = list(errors)
        self.tries = 0
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.setblocking(False)

    def accept(self) -> tuple[socket.socket, object]:
        self.tries += 1
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, "as told")
        return super().accept()


async def accepts(listener: Listener, *, room: bool = False) -> None:
    """One client comes, and is accepted after all; with *room*, others can be closed for it."""
    taken: list[socket.socket] = []
    made: list[int] = []

    def free(places: int) -> bool:
        made.append(places)
        return room

    loop = asyncio.get_running_loop()
    acceptor = Acceptor(loop, listener, lambda: True, taken.append, free, closes=False)
    with ExitStack() as stack:
        stack.enter_context(listener)
        stack.enter_context(socket.create_connection(listener.getsockname()))
        acceptor.open()
        stack.callback(acceptor.close)
        await until(lambda: bool(taken))
        taken[0].close()
    assert bool(made) == room


@live
@pytest.mark.parametrize(
    "number",
    [
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
        errno.EPERM,
    ],
)
async def test_a_connection_that_failed_in_the_queue_is_passed_over(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    # None of these makes it pause.
    await accepts(Listener(*[number] * 50))
    assert not caplog.messages


@live
@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM, errno.EINVAL, errno.EIO])
async def test_after_any_other_error_it_comes_back(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.05)
    listener = Listener(*[number] * 3)
    await accepts(listener)
    assert listener.tries == 4
    [message] = caplog.messages
    assert message == "a connection cannot be accepted: as told; the next try is in 0.05 s"


@live
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_without_descriptors_others_free(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_PAUSE", 1000)
    await accepts(Listener(*[number] * 3), room=True)
    [message] = caplog.messages
    assert "connections without a request make room, and new ones wait; raise" in message
