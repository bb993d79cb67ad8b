"""Restarts under load, one upon the other."""

import json
import math
from contextlib import ExitStack

import pytest

from pounce.net.address import Address
from tests.load import Background, Echo, Plan, Slow, Stream, Upload
from tests.modes import both_modes
from tests.proxy_header import CLIENT, SERVER, line
from tests.service import Wire
from tests.systemd.instance import Instance
from tests.systemd.machine import Machine

PAIRS = 2


@pytest.mark.systemd_since(254, "a descriptor store that outlives a restart")
@both_modes
def test_restarts_upon_each_other_lose_nothing(
    machine: Machine, instance: Instance, mode: str
) -> None:
    instance.configure("load:app", workers=2, worker_mode=mode)
    instance.start()
    address = Address(kind="unix", path=str(machine.path(instance.path)))
    busy = [
        Plan(address=address, work=work, connections=8, duration=150)
        for work in (Echo(), Slow(), Stream(), Upload())
    ]
    idle = Plan(address=address, connections=32, think=math.inf, duration=150)
    with ExitStack() as stack:
        requests = [stack.enter_context(Background(plan)) for plan in busy]
        connections = stack.enter_context(Background(idle))
        for _ in range(PAIRS):
            for each in requests:
                each.wait_for_more(8)
            # The second comes while the first one still stops, or starts.
            machine.systemctl("restart", "--no-block", instance.service)
            machine.systemctl("restart", instance.service)
    for load in (*requests, connections):
        load.result().assert_nothing_lost()


@pytest.mark.systemd_since(254, "a descriptor store that outlives a restart")
def test_a_kept_connection_is_still_the_client_that_its_proxy_named(
    machine: Machine, instance: Instance
) -> None:
    entry = {"address": f"unix:{instance.path}", "proxy_protocol": True}
    instance.configure("mirror:app", listen=[entry])
    instance.start()
    with Wire(Address(kind="unix", path=str(machine.path(instance.path)))) as wire:
        wire.sock.sendall(line(CLIENT, SERVER))
        for _ in range(2):
            told = json.loads(wire.get("/").body)
            assert (told["client"], told["server"]) == (list(CLIENT), list(SERVER))
            machine.systemctl("restart", instance.service)
