"""What an application does after its response over HTTP/3 is finished, whatever ends meanwhile."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pounce.application.sync_app import RawRequest
from pounce.application.types import Receive, Scope, Send
from pounce.threads.raw import SyncAppHandler
from tests.certificates import Authority
from tests.http3 import connected, serve
from tests.live import live, respond, threads_for, until
from tests.service import Service, binding, wait_until

ROWS = [
    ("stop", "app", ("--worker-mode", "process", "--loop", "asyncio")),
    ("stop", "in_background", ("--worker-mode", "thread")),
    ("reload", "app", ("--worker-mode", "thread", "--loop", "asyncio")),
    ("reload", "in_background", ("--worker-mode", "process")),
    ("reload", "app", ("--execution", "sync")),
    ("recycling", "app", ("--max-requests", "1")),
    ("recycling", "in_background", ("--max-requests", "1", "--execution", "sync")),
]


@contextmanager
def serving(directory: Path, app: str, *flags: str) -> Iterator[Service]:
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1").write(directory, "server")
    files = ("--http3", "--certificate", str(certificate), "--key", str(key))
    with binding(directory, *files, "--workers", "1", *flags, app=f"afterwards:{app}") as service:
        yield service


@pytest.mark.parametrize(("ending", "app", "flags"), ROWS)
def test_a_service_finishes_it(
    tmp_path: Path, ending: str, app: str, flags: tuple[str, ...]
) -> None:
    """One client has left, and one is there still."""
    works = [tmp_path / "left", tmp_path / "there"]

    async def main() -> None:
        address = (service.address.host, service.address.port)
        async with connected(address) as client:
            assert (await client.get(f"/?{works[0]}")).body == b"hello"
        async with connected(address) as client:
            assert (await client.get(f"/?{works[1]}")).body == b"hello"
            await asyncio.to_thread(end)

    def end() -> None:
        wait_until(lambda: all(work.exists() for work in works), "the beginning of the work")
        if ending == "stop":
            service.send_signal(signal.SIGTERM)
            assert service.wait() == 0
        elif ending == "reload":
            service.reload(2)
            service.expect("generation 1 is retired")
        else:
            service.expect(r"worker h3-0 \(\d+\) stopped")

    with serving(tmp_path, app, *flags) as service:
        asyncio.run(asyncio.wait_for(main(), 30))
        assert [work.read_text() for work in works] == ["finished", "finished"]


class _FallsThrough:
    def handle_sync(self, request: RawRequest) -> None:
        """Leave every request to the ASGI application."""


@live
async def test_a_request_that_a_thread_has_left_to_the_loop(tmp_path: Path) -> None:
    """A drain waits for the work that follows the response."""
    released = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"hello")
        await released.wait()

    async with serve(app, tmp_path) as server:
        context = server.workers[0].context
        async with (
            threads_for(context, SyncAppHandler(_FallsThrough(), falls_through=True)),
            connected(server.address) as client,
        ):
            assert (await client.get()).body == b"hello"
            client.close()
            client.transmit()
            await until(lambda: not context.connections)
            assert not context.idle
            released.set()
            await until(lambda: context.idle)
