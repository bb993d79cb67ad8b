"""The load of all phases on one address: `python -m tests.soak.traffic ADDRESS IDLE`.

Prints a line when every client has been served, then the figures, as JSON, when its standard
input ends; so it ends with whoever started it.
"""

import asyncio
import json
import math
import sys
import time
from dataclasses import asdict

from pounce.net.address import Address
from tests.load import Echo, Plan, Slow, Stream, Upload
from tests.load.background import new_event_loop
from tests.load.client import Run
from tests.load.plan import Work

A_DAY = 86400.0
ESTABLISHED = 60.0
"""Seconds until every client must have been served."""

MIXTURE: dict[str, tuple[Work, int, float]] = {
    "echo": (Echo(), 8, 0.0),
    "think": (Echo(), 16, 0.2),
    "slow": (Slow(), 8, 0.0),
    "upload": (Upload(), 4, 0.0),
    "chunked upload": (Upload(chunked=True), 4, 0.0),
    "stream": (Stream(), 8, 0.0),
}
"""The kind of request, how many clients send it, the seconds they pause."""


def plans(address: Address, idle: int) -> dict[str, Plan]:
    """What the clients of *address* do, *idle* of them nothing between first and last request."""
    mixture = {**MIXTURE, "idle": (Echo(), idle, math.inf)}
    return {
        name: Plan(address=address, work=work, connections=clients, duration=A_DAY, think=think)
        for name, (work, clients, think) in mixture.items()
        if clients
    }


async def _carry_out(address: Address, idle: int) -> None:
    runs = {name: Run(plan) for name, plan in plans(address, idle).items()}
    began = time.monotonic()
    complete = asyncio.gather(*(run.complete() for run in runs.values()))
    async with asyncio.timeout(ESTABLISHED):
        while any(run.tally.answered < run.plan.connections for run in runs.values()):
            await asyncio.sleep(0.05)
    _print({"began": began})
    asyncio.get_running_loop().add_reader(0, lambda: _stop(list(runs.values())))
    results = await complete
    _print({name: asdict(result) for name, result in zip(runs, results, strict=True)})


def _stop(runs: list[Run]) -> None:
    asyncio.get_running_loop().remove_reader(0)
    for run in runs:
        run.stop()


def _print(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_carry_out(Address.parse(sys.argv[1]), int(sys.argv[2])))
