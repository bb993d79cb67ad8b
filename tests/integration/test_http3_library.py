"""HTTP/3 by the supervisor as a library."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

import pounce
from tests.apps.load import app
from tests.certificates import Authority
from tests.http3 import connected
from tests.modes import both_modes
from tests.service import PATIENCE, free_port
from tests.supervised import supervised


async def asked(address: tuple[str, int]) -> int:
    async with connected(address) as client:
        return (await asyncio.wait_for(client.get(), PATIENCE)).status


@both_modes
@pytest.mark.parametrize("together", [True, False], ids=["one list", "udp_sockets"])
def test_udp_sockets_are_served_as_their_entry_says(
    tmp_path: Path, mode: Any, together: bool
) -> None:
    certificate, key = Authority().issue("127.0.0.1").write(tmp_path, "site")
    address = pounce.Address.parse(f"127.0.0.1:{free_port()}")
    entry = pounce.Listen(address, certificate=(str(certificate),), key=(str(key),), http3=True)
    config = pounce.ServerConfig(listen=(entry,), workers=2)
    sockets = pounce.create_listeners(config)
    stream = [sock for sock in sockets if together or sock.type == socket.SOCK_STREAM]
    udp = [sock for sock in sockets if sock not in stream]
    supervisor = pounce.Supervisor(config, app, mode=mode)
    with supervised(supervisor, *stream, udp_sockets=udp):
        assert asyncio.run(asked((address.host, address.port))) == 200
    for sock in sockets:
        sock.close()
