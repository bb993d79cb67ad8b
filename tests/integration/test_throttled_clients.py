"""Clients that read slowly get all of what they asked for, whatever happens meanwhile."""

import asyncio
import importlib.util
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from pounce.net.address import Address
from tests.certificates import Authority
from tests.control import Controlled
from tests.live import until
from tests.modes import both_modes
from tests.service import APPS, PYTHON, Service, free_port, running
from tests.throttled import SHAPES, Download, OverHTTP3, OverTCP, OverWebSocket

# There is no aioquic for a free-threaded Python.
HAS_HTTP3 = importlib.util.find_spec("aioquic") is not None
needs_http3 = pytest.mark.skipif(not HAS_HTTP3, reason="there is no aioquic")
PATIENCE = 30.0
KEEP_ALIVE = "0.5"

VARIANTS = {
    "processes": ("--worker-mode", "process", "--loop", "uvloop"),
    "threads": ("--worker-mode", "thread", "--loop", "asyncio"),
    "sync": ("--worker-mode", "process", "--execution", "sync", "--threads", "8"),
}

Reader = Callable[[Download], Awaitable[None]]
Trouble = Callable[[Service], Awaitable[None]]


@contextmanager
def serving(directory: Path, *flags: str) -> Iterator[tuple[Service, Address]]:
    """A service with an address for HTTP/1.1 and WebSockets, and one for TLS and HTTP/3."""
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1").write(directory, "server")
    plain, secure = (Address.parse(f"127.0.0.1:{free_port()}") for _ in range(2))
    file = directory / "service.toml"
    file.write_text(
        f'[[listen]]\naddress = "{plain}"\n'
        f'[[listen]]\naddress = "{secure}"\nhttp3 = {"true" if HAS_HTTP3 else "false"}\n'
        f'certificate = "{certificate}"\nkey = "{key}"\n'
    )
    arguments = ["throttled:app", "--directory", str(APPS), "--config", str(file), *flags]
    log = directory / "log"
    with running([str(PYTHON), "-m", "pounce", "serve", *arguments], log) as process:
        service = Service(process, secure, log, authority.write(directory))
        service.wait_for_start()
        yield service, plain


def readers(service: Service, plain: Address, *protocols: str) -> dict[str, Reader]:
    """The readers over *protocols*, of every shape, by name."""
    tcp, tls = (plain.host, plain.port), (service.address.host, service.address.port)
    found: dict[str, Reader] = {}
    for shape in SHAPES:
        found[f"http1 {shape}"] = OverTCP(tcp, shape)
        found[f"tls {shape}"] = OverTCP(tls, shape, service.trust)
        found[f"http3 {shape}"] = OverHTTP3(tls, shape)
    found["websocket"] = OverWebSocket(tcp, "chunks")
    return {name: each for name, each in found.items() if name.split()[0] in protocols}


async def read_through(
    service: Service, readers: Mapping[str, Reader], trouble: Trouble
) -> list[str]:
    """Have all read at once, and *trouble* come when all have begun; what became of which."""
    downloads = {Download(name): read for name, read in readers.items()}
    await read_during(service, downloads, trouble)
    return [each.verdict() for each in downloads if each.verdict()]


async def read_during(
    service: Service, downloads: Mapping[Download, Reader], trouble: Trouble
) -> None:
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for download, read in downloads.items():
            group.create_task(download.run(read))
        await until(lambda: all(each.begun for each in downloads))
        for download in downloads:
            download.go_on()
        await trouble(service)


async def nothing(service: Service) -> None:
    """The keep-alive timeout passes by itself: a response takes several times as long."""


async def reload(service: Service) -> None:
    await asyncio.to_thread(service.reload, 2)


async def stop(service: Service) -> None:
    service.send_signal(signal.SIGTERM)


def protocols(variant: str) -> list[str]:
    http3 = ["http3"] if HAS_HTTP3 else []
    return ["http1", "tls", *http3, *(["websocket"] if variant != "sync" else [])]


@pytest.mark.parametrize("variant", VARIANTS)
def test_past_the_keep_alive_timeout(tmp_path: Path, variant: str) -> None:
    flags = (*VARIANTS[variant], "--keep-alive-timeout", KEEP_ALIVE)
    with serving(tmp_path, "--workers", "1", *flags) as (service, plain):
        all_ = readers(service, plain, *protocols(variant))
        assert asyncio.run(read_through(service, all_, nothing)) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_through_a_reload(tmp_path: Path, variant: str) -> None:
    with serving(tmp_path, "--workers", "2", *VARIANTS[variant]) as (service, plain):
        all_ = readers(service, plain, *protocols(variant))
        assert asyncio.run(read_through(service, all_, reload)) == []
        service.expect("generation 1 is retired")


@pytest.mark.parametrize("variant", VARIANTS)
def test_through_a_stop(tmp_path: Path, variant: str) -> None:
    with serving(tmp_path, "--workers", "2", *VARIANTS[variant]) as (service, plain):
        all_ = readers(service, plain, *protocols("sync"))
        assert asyncio.run(read_through(service, all_, stop)) == []
        assert service.wait() == 0
        assert "was still" not in service.log


def test_a_stop_tells_a_reader_of_messages_to_connect_anew(tmp_path: Path) -> None:
    """What was sent until then arrives, and then the close frame."""
    with serving(tmp_path, "--workers", "1") as (service, plain):
        download = Download("endless", rate=3_000_000)
        reader = OverWebSocket((plain.host, plain.port), "endless")
        asyncio.run(read_during(service, {download: reader}, stop))
        assert download.ended == "closed 1012"
        assert download.is_a_beginning
        assert service.wait() == 0


RECYCLED = [
    ("http1", "processes"),
    ("http1", "sync"),
    ("tls", "threads"),
    ("websocket", "processes"),
    *(("http3", variant) for variant in VARIANTS if HAS_HTTP3),
]


@pytest.mark.parametrize(("protocol", "variant"), RECYCLED)
def test_while_workers_are_recycled(tmp_path: Path, protocol: str, variant: str) -> None:
    kind = "h3-0" if protocol == "http3" else "0"
    flags = (*VARIANTS[variant], "--workers", "1", "--max-requests", "1")

    async def replaced(service: Service) -> None:
        await asyncio.to_thread(service.expect_worker, kind, first)

    with serving(tmp_path, *flags) as (service, plain):
        first = service.workers[kind]
        all_ = readers(service, plain, protocol)
        assert asyncio.run(read_through(service, all_, replaced)) == []


async def reload_and_stop(service: Service) -> None:
    """The workers of generation 2 have nobody to wait for, and may end first."""
    await reload(service)
    await stop(service)


async def end_a_worker(service: Service) -> None:
    """Not by the supervisor, which starts another only when this one has ended."""
    os.kill(service.workers["h3-0"], signal.SIGTERM)


@needs_http3
@pytest.mark.parametrize("trouble", [reload_and_stop, end_a_worker])
def test_while_nobody_else_reads_the_socket(tmp_path: Path, trouble: Trouble) -> None:
    with serving(tmp_path, "--workers", "1") as (service, plain):
        all_ = readers(service, plain, "http3")
        assert asyncio.run(read_through(service, all_, trouble)) == []


@needs_http3
@both_modes
def test_past_the_reload_timeout_when_a_stop_comes(tmp_path: Path, mode: str) -> None:
    """The worker that reads the socket for the retired one dies, and no other is started."""
    control = tmp_path / "control"
    flags = ("--worker-mode", mode, "--reload-timeout", "0.1", "--control", str(control))

    async def stop_past_the_timeout(service: Service) -> None:
        await reload(service)
        controlled = Controlled(service, control)
        await until(lambda: "expired" in {each["state"] for each in controlled.workers()})
        await stop(service)
        await asyncio.to_thread(service.expect, "stopping")
        if mode == "process":
            os.kill(service.workers["h3-0"], signal.SIGKILL)

    with serving(tmp_path, "--workers", "1", *flags) as (service, plain):
        all_ = readers(service, plain, "http3")
        assert asyncio.run(read_through(service, all_, stop_past_the_timeout)) == []


@needs_http3
def test_reloads_on_a_lossy_path(tmp_path: Path) -> None:
    """One datagram of twenty is lost, in either direction."""
    chance = random.Random(0)

    async def reloads(service: Service) -> None:
        for generation in range(2, 5):
            await asyncio.to_thread(service.reload, generation)

    with serving(tmp_path, "--workers", "2") as (service, _):
        address = (service.address.host, service.address.port)
        options = {"loses": lambda: chance.random() < 0.05}
        all_ = {
            f"{shape} {n}": OverHTTP3(address, shape, options) for shape in SHAPES for n in (1, 2)
        }
        assert asyncio.run(read_through(service, all_, reloads)) == []
