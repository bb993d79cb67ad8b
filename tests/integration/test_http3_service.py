"""HTTP/3 as a service: workers of two kinds under one supervisor."""

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aioquic.quic.packet import QuicErrorCode

from tests.certificates import Authority
from tests.control import Controlled
from tests.http3 import Client, ConnectionGone, connected
from tests.live import until
from tests.modes import both_modes
from tests.service import PATIENCE, Service, binding, wait_until

STEP = 0.05


@contextmanager
def serving(directory: Path, workers: int, *flags: str) -> Iterator[Service]:
    """A service that listens on TCP and UDP."""
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1").write(directory, "server")
    files = ("--certificate", str(certificate), "--key", str(key))
    flags = ("--http3", *files, "--workers", str(workers), *flags)
    with binding(directory, *flags, authority=authority.write(directory)) as service:
        yield service


def test_a_certificate_that_has_expired_is_served_with_a_warning(tmp_path: Path) -> None:
    certificate, key = Authority().issue("127.0.0.1", days=3, starts_in=-4).write(tmp_path, "old")
    files = ("--certificate", str(certificate), "--key", str(key))

    async def main(service: Service) -> None:
        async with connected((service.address.host, service.address.port)) as client:
            assert (await client.get()).status == 200

    with binding(tmp_path, "--http3", *files) as service:
        doubt = rf"the certificate {certificate} has expired on 20\S+ \S+ UTC; it is for 127.0.0.1$"
        assert len(re.findall(doubt, service.log, re.MULTILINE)) == 1
        asyncio.run(main(service))


class Roamer:
    """A client that asks again and again, on a new connection when it is told to leave."""

    def __init__(self, service: Service) -> None:
        self.address = (service.address.host, service.address.port)
        self.answered = self.connections = 0
        self.failures: list[object] = []
        self.generations: set[bytes] = set()

    async def run(self, over: asyncio.Event) -> None:
        while not over.is_set():
            async with connected(self.address) as client:
                self.connections += 1
                while not (over.is_set() or client.goaways or client.ended):
                    await self._ask(client)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(over.wait(), STEP)

    async def _ask(self, client: Client) -> None:
        try:
            response = await asyncio.wait_for(client.get(), PATIENCE)
        except Exception as error:
            self.failures.append(error)
            return
        if response.status == 200:
            self.answered += 1
            self.generations.add((response.header(b"x-served-by") or b"").split()[0])
        else:
            self.failures.append(response)


async def wait_for_more(roamers: list[Roamer], answers: int = 40) -> None:
    """Return once so many more requests have been answered."""
    before = answered(roamers)
    await until(lambda: answered(roamers) >= before + answers)


def answered(roamers: list[Roamer]) -> int:
    return sum(each.answered for each in roamers)


def test_reloads_lose_no_request(tmp_path: Path) -> None:
    async def main() -> list[Roamer]:
        over = asyncio.Event()
        roamers = [Roamer(service) for _ in range(8)]
        async with asyncio.TaskGroup() as group:
            for each in roamers:
                group.create_task(each.run(over))
            for generation in range(2, 5):
                await wait_for_more(roamers)
                await asyncio.to_thread(service.reload, generation)
            await wait_for_more(roamers)
            over.set()
        return roamers

    with serving(tmp_path, 2) as service:
        roamers = asyncio.run(asyncio.wait_for(main(), 50))
        assert [each.failures for each in roamers] == [[]] * 8
        assert set().union(*(each.generations for each in roamers)) == {b"1", b"2", b"3", b"4"}
        service.expect("generation 1 is retired")


def test_a_reload_may_let_more_generations_drain_than_there_was_room_for(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text("max_draining = 1\n")

    async def main() -> None:
        file.write_text("max_draining = 10\n")
        async with contextlib.AsyncExitStack() as stack:
            for generation in range(2, 8):
                client = await stack.enter_async_context(connected(address))
                await client.start("/stream?chunks=100000&ms=50").head()
                await asyncio.to_thread(service.reload, generation)
            assert "is retired" not in service.log

    with serving(tmp_path, 1, "--config", str(file), "--shutdown-timeout", "0.1") as service:
        address = (service.address.host, service.address.port)
        asyncio.run(asyncio.wait_for(main(), 40))


def test_a_worker_that_dies_is_replaced_and_its_clients_learn_it(tmp_path: Path) -> None:
    async def main() -> None:
        address = (service.address.host, service.address.port)
        async with connected(address) as client:
            await client.get()
            pid = service.workers["h3-0"]
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(service.expect_worker, "h3-0", pid)
            with pytest.raises(ConnectionGone, match="stateless reset"):
                await asyncio.wait_for(client.get(), PATIENCE)
        async with connected(address) as client:
            assert (await client.get()).status == 200

    with serving(tmp_path, 1) as service:
        asyncio.run(asyncio.wait_for(main(), 40))


def test_the_status_tells_the_kinds_apart(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with serving(tmp_path, 2, "--control", str(control)) as service:
        told = Controlled(service, control).workers()
        assert [(each["kind"], each["slot"], each["state"]) for each in told] == [
            ("http", 0, "ready"),
            ("http", 1, "ready"),
            ("http3", 0, "ready"),
            ("http3", 1, "ready"),
        ]
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0


def test_responses_over_tls_tell_of_it(tmp_path: Path) -> None:
    with serving(tmp_path, 1) as service, service.connect() as wire:
        offered = wire.get("/").headers[b"alt-svc"]
        assert offered == b'h3=":%d"; ma=86400' % service.address.port


def test_threads(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected((service.address.host, service.address.port)) as client:
            assert (await client.get()).status == 200
            service.send_signal(signal.SIGHUP)
            await client.until(lambda: client.goaways)
            assert (await client.get()).status == 200

    with serving(tmp_path, 1, "--worker-mode", "thread") as service:
        asyncio.run(asyncio.wait_for(main(), 40))


@both_modes
def test_a_stop_refuses_new_clients_and_answers_the_others(tmp_path: Path, mode: str) -> None:
    async def main() -> None:
        address = (service.address.host, service.address.port)
        async with connected(address) as client:
            slow = asyncio.create_task(client.get("/slow?ms=1500"))
            assert (await client.get()).status == 200
            service.send_signal(signal.SIGTERM)
            await client.until(lambda: client.goaways)
            async with connected(address) as late:
                assert late.ended is not None
                assert late.ended.error_code == QuicErrorCode.CONNECTION_REFUSED
            assert (await slow).status == 200

    with serving(tmp_path, 2, "--worker-mode", mode) as service:
        asyncio.run(asyncio.wait_for(main(), 40))
        assert service.wait() == 0


@both_modes
def test_a_stop_refuses_datagrams_that_nobody_reads(tmp_path: Path, mode: str) -> None:
    """A worker for HTTP/1.1 may have more to finish than those for HTTP/3 have."""
    with (
        serving(tmp_path, 2, "--worker-mode", mode) as service,
        service.connect() as wire,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        wire.sock.sendall(b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n12")
        stranger.connect((service.address.host, service.address.port))
        stranger.settimeout(0.1)
        assert not is_refused(stranger)
        service.send_signal(signal.SIGTERM)
        wait_until(lambda: is_refused(stranger), "a refusal")
        wire.sock.sendall(b"34")
        response = wire.receive()
        assert response is not None
        assert response.status == 200
        assert service.wait() == 0


def is_refused(stranger: socket.socket) -> bool:
    """Whether the kernel says that nobody listens there, as it does a moment later (udp(7))."""
    try:
        stranger.send(b"?")
        stranger.recv(1500)
    except ConnectionRefusedError:
        return True
    except TimeoutError:
        return False
    return False
