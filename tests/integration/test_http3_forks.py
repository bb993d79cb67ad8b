"""A child that the application forks over HTTP/3: it sends no datagram, and takes none."""

import asyncio
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.http3 import connected
from tests.integration.test_forks import EVERYTHING
from tests.service import PATIENCE, Service, binding


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_worker_alone_answers(tmp_path: Path, loop: str) -> None:
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1").write(tmp_path, "server")
    files = ("--certificate", str(certificate), "--key", str(key))
    flags = ("--http3", *files, "--workers", "1", "--loop", loop)
    pem = authority.write(tmp_path)
    with binding(tmp_path, *flags, app="forking:app", authority=pem) as service:
        asyncio.run(asyncio.wait_for(_ask(service), 2 * PATIENCE))


async def _ask(service: Service) -> None:
    async with connected((service.address.host, service.address.port)) as client:
        worker = service.workers["h3-0"]
        for path, status in {**EVERYTHING, "/waits": "70", "/": "none"}.items():
            answer = await client.get(path)
            assert answer.body.decode() == f"{worker} {status}", service.log
    for _ in range(8):
        async with connected((service.address.host, service.address.port)) as client:
            assert (await client.get("/")).body.decode() == f"{worker} none"
