"""The service under test: what is deployed, what is done to it, and how it is killed."""

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL

from pounce.cli import control
from pounce.errors import PounceError
from pounce.net.address import Address
from tests.service import Wire
from tests.soak import free_threaded
from tests.soak.account import Accountant, stopped
from tests.systemd.instance import Instance
from tests.systemd.machine import APPLICATIONS, Machine

NAME = "soak"
PORT = 8080
DIRECTORY = "/srv/soak"
PATIENCE = 60.0
"""Seconds within which the service must serve again after a kill, on a busy machine."""

MODES = {
    "process": {"worker_mode": "process"},
    "thread": {"worker_mode": "thread"},
    "free-threaded": {"worker_mode": "thread", "virtualenv": free_threaded.VIRTUALENV},
}

_BROKEN = {
    "a syntax error": "def app(:\n",
    "an exception at its import": "raise RuntimeError('this release is broken')\n",
    "a lifespan that fails": (
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    ),
}

# Kills follow each other faster here than the restarts of a real service.
_UNIT = """\
[Service]
RestartSteps=0
RestartMaxDelaySec=infinity
"""


class Broken(Exception):
    """A promise that was not kept."""


class Service:
    """An instance with *workers* workers; `version` is the code that must be serving."""

    def __init__(self, machine: Machine, workers: int, rng: random.Random) -> None:
        self.instance = Instance(machine, NAME)
        self.accountant = Accountant(self.instance, self.instance.path, PORT)
        self.version = 0
        self._machine = machine
        self._workers = workers
        self._random = rng

    @property
    def addresses(self) -> dict[str, Address]:
        """Where clients outside the machine's file system, but in its network, connect."""
        path = self._machine.path(self.instance.path)
        return {"unix": Address.parse(f"unix:{path}"), "tcp": Address.parse(f"127.0.0.1:{PORT}")}

    def start(self, mode: str) -> None:
        """Start it in one of MODES, or change to that."""
        shutil.copytree(
            self._machine.path(APPLICATIONS), self._machine.path(DIRECTORY), dirs_exist_ok=True
        )
        self._deploy()
        self.instance.configure(
            "soak:app",
            directory=DIRECTORY,
            workers=self._workers,
            **MODES[mode],
            # Idle clients stay for as long as a phase lasts.
            keep_alive_timeout=86400,
            max_restarts=1_000_000,
        )
        self.instance.listen(self.instance.path, f"127.0.0.1:{PORT}")
        self.instance.amend(self.instance.service, _UNIT)
        self.instance.stop()
        self.instance.start()
        self._expect_version()

    # What is done to it, one at a time; each raises Broken, or tells what it did

    def reload(self) -> str:
        """Deploy new code: it serves when the command returns."""
        self._deploy()
        self._systemctl("reload")
        self._expect_version()
        return f"reload to version {self.version}"

    def failing_reload(self) -> str:
        """Deploy code that does not start: the command fails, the old code serves. Mend it."""
        what = self._random.choice(list(_BROKEN))
        self._write(_BROKEN[what])
        done = self._machine.systemctl("reload", self.instance.service, check=False)
        if done.returncode != 1:
            raise Broken(f"a reload with {what} ended with status {done.returncode}")
        self._expect_version()
        return f"reload with {what}; then {self.reload()}"

    def restart(self) -> str:
        """A new supervisor."""
        before, _ = self.accountant.pids()
        self._systemctl("restart")
        if self.accountant.pids()[0] == before:
            raise Broken("a restart kept the supervisor")
        self._expect_version()
        return "restart"

    def kill_worker(self) -> tuple[str, int]:
        """SIGKILL a random worker process; tells how many connections it held."""
        _, workers = self.accountant.pids()
        victim = self._random.choice(workers)
        return self._kill("worker", victim, [victim])

    def kill_supervisor(self) -> tuple[str, int]:
        """SIGKILL the supervisor, which no worker outlives."""
        supervisor, workers = self.accountant.pids()
        return self._kill("supervisor", supervisor, [supervisor, *workers])

    def _kill(self, what: str, victim: int, doomed: list[int]) -> tuple[str, int]:
        with stopped(doomed):
            held = self.accountant.held_by(doomed)
            os.kill(victim, SIGKILL)
            began = time.monotonic()
        self._wait(lambda: not any(map(_exists, doomed)), "what was killed to be gone")
        self._wait(self._serves, "all workers to serve again")
        self._expect_version()
        taken = time.monotonic() - began
        return f"SIGKILL of a {what} with {held} connections; whole after {taken:.1f} s", held

    def _serves(self) -> bool:
        path = self._machine.path(f"/run/pounce/{NAME}/control")
        try:
            [generation] = control.call(None, path, "Status")["generations"]
        except (PounceError, ValueError):  # it is not there yet, or an old generation still is
            return False
        ready = [worker for worker in generation["workers"] if worker["state"] == "ready"]
        return len(ready) == self._workers

    # Deploying

    def _deploy(self) -> None:
        self.version += 1
        self._write(f'from load import Load\n\napp = Load("{self.version}")\n')

    def _write(self, code: str) -> None:
        self._machine.write(f"{DIRECTORY}/soak.py", code)

    def _systemctl(self, verb: str) -> None:
        done = self._machine.systemctl(verb, self.instance.service, check=False)
        if done.returncode:
            raise Broken(f"systemctl {verb}: status {done.returncode}: {done.stderr.strip()}")

    def _expect_version(self) -> None:
        with Wire(self.addresses["unix"]) as wire:
            version = wire.get("/").headers[b"x-served-by"].split()[3].decode()
        if version != str(self.version):
            raise Broken(f"version {version} serves, and {self.version} is deployed")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        try:
            self._machine.wait_until(condition, PATIENCE, what)
        except AssertionError as error:
            raise Broken(str(error)) from None


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
