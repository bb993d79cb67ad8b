"""HTTP/3 as a service: workers of two kinds under one supervisor."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pounce.net.address import Address
from tests.http3 import Client, ConnectionGone, connected, make_certificate
from tests.service import APPS, PATIENCE, PYTHON, Service, running, wait_until

STEP = 0.05


@contextmanager
def serving(directory: Path, workers: int, *flags: str) -> Iterator[Service]:
    """A service that listens on TCP and UDP."""
    certificate, key = make_certificate(directory, "a.example")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [str(PYTHON), "-m", "pounce"]
    command += ["serve", "load:app", "--directory", str(APPS), "--bind", f"127.0.0.1:{port}"]
    command += ["--http3", "--certificate", certificate, "--key", key]
    command += ["--workers", str(workers), "--control", str(directory / "control"), *flags]
    with running(command, directory / "log") as process:
        service = Service(process, Address.parse(f"127.0.0.1:{port}"), directory / "log")
        service.expect("generation 1 serves")
        yield service


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


def test_reloads_lose_no_request(tmp_path: Path) -> None:
    async def main() -> list[Roamer]:
        over = asyncio.Event()
        roamers = [Roamer(service) for _ in range(8)]
        async with asyncio.TaskGroup() as group:
            for each in roamers:
                group.create_task(each.run(over))
            for generation in range(2, 5):
                asked = sum(each.answered for each in roamers)
                while sum(each.answered for each in roamers) < asked + 40:
                    await asyncio.sleep(STEP)
                service.send_signal(signal.SIGHUP)
                await asyncio.to_thread(service.expect, f"generation {generation} has taken over")
            asked = sum(each.answered for each in roamers)
            while sum(each.answered for each in roamers) < asked + 40:
                await asyncio.sleep(STEP)
            over.set()
        return roamers

    with serving(tmp_path, 2) as service:
        roamers = asyncio.run(asyncio.wait_for(main(), 50))
        assert [each.failures for each in roamers] == [[]] * 8
        assert set().union(*(each.generations for each in roamers)) == {b"1", b"2", b"3", b"4"}
        service.expect("generation 1 is retired")


def test_a_worker_that_dies_is_replaced_and_its_clients_learn_it(tmp_path: Path) -> None:
    async def main() -> None:
        address = (service.address.host, service.address.port)
        async with connected(address) as client:
            await client.get()
            pid = workers()["h3-0"]
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(wait_until, lambda: workers()["h3-0"] != pid, "a replacement")
            with pytest.raises(ConnectionGone, match="stateless reset"):
                await asyncio.wait_for(client.get(), PATIENCE)
        async with connected(address) as client:
            assert (await client.get()).status == 200

    def workers() -> dict[str, int]:
        return service.workers

    with serving(tmp_path, 1) as service:
        asyncio.run(asyncio.wait_for(main(), 40))


def test_the_status_tells_the_kinds_apart(tmp_path: Path) -> None:
    with serving(tmp_path, 2) as service:
        control = f"{tmp_path}/control"
        command = [sys.executable, "-m", "pounce", "status", "--control", control]
        told = subprocess.run([*command, "--json"], capture_output=True, check=True).stdout
        [generation] = json.loads(told)["generations"]
        assert [(each["kind"], each["slot"], each["state"]) for each in generation["workers"]] == [
            ("http", 0, "ready"),
            ("http", 1, "ready"),
            ("http3", 0, "ready"),
            ("http3", 1, "ready"),
        ]
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0


def test_responses_over_tls_tell_of_it(tmp_path: Path) -> None:
    with serving(tmp_path, 1) as service:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        host, port = service.address.host, service.address.port
        with (
            socket.create_connection((host, port)) as sock,
            context.wrap_socket(sock, server_hostname="a.example") as wire,
        ):
            wire.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            head = wire.recv(65_536)
        assert f'\r\nalt-svc: h3=":{port}"; ma=86400\r\n'.encode() in head


def test_threads(tmp_path: Path) -> None:
    async def main() -> None:
        async with connected((service.address.host, service.address.port)) as client:
            assert (await client.get()).status == 200
            service.send_signal(signal.SIGHUP)
            await client.until(lambda: client.goaways)
            assert (await client.get()).status == 200

    with serving(tmp_path, 1, "--worker-mode", "thread") as service:
        asyncio.run(asyncio.wait_for(main(), 40))
