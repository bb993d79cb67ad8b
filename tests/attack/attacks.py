"""The attacks: who attacks what, how much, and how much memory that may take."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from pounce.net.address import Address
from tests.attack import attackers

Command = Callable[[Address, int], list[str]]

# Long enough for whoever is honest, and short enough to see everything recover.
TIMEOUTS = ("--header-timeout", "2", "--body-timeout", "2", "--write-timeout", "2")
PATIENCE = 1800.0
"""Seconds that an attack may take, in full."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_UNAVAILABLE = re.compile(r"service available:\s+NO")  # slowhttptest asks for itself, too


@dataclass(frozen=True, slots=True)
class Attack:
    """*amount* is the full one, *short* that of the tests; *growth* in MiB is what a worker's
    resident memory may grow by meanwhile, whatever the amount.

    Where *crowded*, there is no place for new connections while it lasts.
    """

    name: str
    command: Command
    amount: int
    short: int
    growth: int
    flags: tuple[str, ...] = TIMEOUTS
    crowded: bool = False

    def carry_out(self, address: Address, amount: int) -> str:
        """What the attackers have seen; raises AssertionError if they saw something wrong."""
        command = self.command(address, amount)
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False
        )
        said = _COLOUR.sub("", done.stdout.decode()).strip()
        assert done.returncode == 0, f"{' '.join(command)}\n{said}"
        assert not _UNAVAILABLE.search(said), said
        return said.splitlines()[-1] if said else ""


def ours(attacker: attackers.Attacker) -> Command:
    """One of our own attackers."""

    def command(address: Address, amount: int) -> list[str]:
        module = [sys.executable, "-m", "tests.attack.attackers"]
        return [*module, attacker.__name__, str(address), str(amount)]

    return command


def slowhttptest(*options: str, path: str = "/") -> Command:
    """slowhttptest(1) with as many connections, for a few seconds and more for many."""

    def command(address: Address, amount: int) -> list[str]:
        url = f"http://{address.host}:{address.port}{path}"
        rate = ["-c", str(amount), "-r", str(amount), "-l", str(3 + amount // 500)]
        return ["slowhttptest", *options, *rate, "-i", "1", "-p", "5", "-u", url]

    return command


def nobody(address: Address, amount: int) -> list[str]:
    """No attack: what the others are compared with."""
    return ["sleep", str(amount)]


ATTACKS = (
    Attack("peace", nobody, amount=10, short=2, growth=8),
    Attack("slow-heads", slowhttptest("-H"), amount=4000, short=400, growth=64),
    Attack("slow-bodies", slowhttptest("-B", path="/upload"), amount=4000, short=400, growth=64),
    Attack(
        "slow-readers",
        slowhttptest("-X", "-k", "3", "-n", "1", "-z", "32", path="/large?size=100000"),
        amount=1000,
        short=200,
        growth=256,
    ),
    Attack("endless-heads", ours(attackers.header_flood), amount=4000, short=400, growth=32),
    Attack("dropped", ours(attackers.connect_and_drop), amount=100_000, short=8000, growth=32),
    Attack("pipelined", ours(attackers.pipeline), amount=1_000_000, short=50_000, growth=32),
    Attack("unread", ours(attackers.pipeline_unread), amount=100, short=20, growth=256),
    Attack("tiny-chunks", ours(attackers.chunk_flood), amount=4_000_000, short=400_000, growth=32),
    Attack("downloads", ours(attackers.download), amount=10, short=2, growth=32),
    Attack(
        "crowd",
        ours(attackers.crowd),
        amount=20_000,
        short=2000,
        growth=32,
        flags=(*TIMEOUTS, "--max-connections", "200"),
        crowded=True,
    ),
)
