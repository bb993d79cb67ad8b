"""Restarts under load, one upon the other."""

import math
from contextlib import ExitStack

import pytest

from pounce.net.address import Address
from tests.load import Background, Echo, Plan, Slow, Stream, Upload
from tests.systemd.instance import Instance
from tests.systemd.machine import Machine

PAIRS = 2


@pytest.mark.parametrize("mode", ["process", "thread"])
def test_restarts_upon_each_other_lose_nothing(
    machine: Machine, instance: Instance, mode: str
) -> None:
    instance.configure("load:app", workers=2, worker_mode=mode)
    instance.amend(instance.service, "[Unit]\nStartLimitIntervalSec=0\n")
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
