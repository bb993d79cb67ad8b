"""Attacks through real proxies: nobody's request ends elsewhere for the proxy than for pounce.

What a proxy logs is how it read its client. The application must have been given nothing else,
and a client that shares the proxy's connections to pounce with the attacker must be served as if
there were none.
"""

import itertools
import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from pounce.net.address import Address
from tests.fronts.attacks import attacks
from tests.fronts.proxies import Front
from tests.fronts.upstream import Upstream
from tests.service import Service, Wire, wait_until

ATTACKS = attacks()

QUIET = 0.03
"""Seconds that a proxy may take to refuse or pass on what it has got completely."""

# HAProxy writes unusual octets as #HH.
_ESCAPE = re.compile(r"#([0-9A-F]{2})")


class Ledger:
    """What the application has been given, beside what the proxies have read."""

    def __init__(self, fronts: list[Front], service: Service) -> None:
        self._direct = service.connect()
        self._logs = [Log(front) for front in fronts]
        self._logged: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self._look()

    def close(self) -> None:
        self._direct.sock.close()
        for log in self._logs:
            log.file.close()

    def check(self, *tokens: str) -> None:
        """Each of *tokens* has come once, and nothing but what was logged."""
        self._look()
        assert all(self._seen[f"GET {token}"] == 1 for token in tokens)
        # A proxy logs a request when it is done with it.
        try:
            wait_until(self._is_logged, "logged")
        except TimeoutError:
            unread, self._seen = self._seen - self._logged, self._seen & self._logged
            pytest.fail(f"no proxy has read {unread}")
        # What is logged has been seen, or never will be: it excuses nothing later.
        self._look()
        self._logged &= self._seen

    def _look(self) -> None:
        records: list[dict[str, Any]] = json.loads(self._direct.get("/-/seen").body)
        self._seen.update(f"{each['method']} {each['target']}" for each in records)

    def _is_logged(self) -> bool:
        for log in self._logs:
            self._logged.update(as_seen(line) for line in log.news())
        return self._seen <= self._logged


class Log:
    """The whole lines that a proxy has added to its log."""

    def __init__(self, front: Front) -> None:
        self.file = front.log.open(encoding="latin-1")
        self._partial = ""

    def news(self) -> list[str]:
        *lines, self._partial = (self._partial + self.file.read()).split("\n")
        return lines


class Target:
    """A proxy's port, and two clients of it that nobody may disturb."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._victims = [Wire(address) for _ in range(2)]
        self._numbers = itertools.count()

    def close(self) -> None:
        for wire in self._victims:
            wire.sock.close()

    def visit(self) -> list[str]:
        """A request from each victim, which only its own answer may follow; their tokens."""
        tokens = []
        for victim in self._victims:
            tokens.append(f"/victim-{self.address.port}-{next(self._numbers)}")
            told = json.loads(victim.get(tokens[-1]).body)
            assert (told["target"], told["length"]) == (tokens[-1], 0)
            assert "x-inner" not in told["headers"]
        return tokens


@pytest.fixture(scope="module")
def ledger(fronts: dict[str, Front], upstream: Upstream) -> Iterator[Ledger]:
    with closing(Ledger(list(fronts.values()), upstream.service)) as ledger:
        yield ledger


@pytest.fixture(
    scope="module", params=["nginx-bare", "nginx-tcp", "haproxy-bare", "haproxy-strict"]
)
def target(request: pytest.FixtureRequest, fronts: dict[str, Front]) -> Iterator[Target]:
    front, _, port = request.param.partition("-")
    with closing(Target(fronts[front][port])) as target:
        yield target


def as_seen(line: str) -> str:
    """A line of a proxy's log as method and target, in the form that the application gets."""
    line = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), line)
    method, _, target = line.rpartition(" ")[0].partition(" ")
    path = re.sub("^https?://[^/?]*", "", target, flags=re.IGNORECASE).removesuffix("?")
    return f"{method} {path if path.startswith(('/', '*')) else '/' + path}"


def test_clients_share_a_connection(fronts: dict[str, Front]) -> None:
    for address in (fronts["nginx"]["bare"], fronts["haproxy"]["bare"]):
        found = set()
        for _ in range(5):
            with Wire(address) as wire:
                found.add(json.loads(wire.get("/").body)["client"][1])
        assert len(found) == 1


@pytest.mark.parametrize("group", ATTACKS)
def test_nothing_is_smuggled(target: Target, ledger: Ledger, group: str) -> None:
    for attack in ATTACKS[group]:
        try:
            nothing_is_smuggled(target, ledger, attack)
        except (AssertionError, TimeoutError, pytest.fail.Exception) as error:
            pytest.fail(f"{attack!r}: {error}")


def nothing_is_smuggled(target: Target, ledger: Ledger, attack: bytes) -> None:
    with Wire(target.address) as attacker:
        answers = provoke(attacker.sock, attack)
        tokens = target.visit()
        answers += rest(attacker.sock)
    assert not [token for token in tokens if token.encode() in answers]
    ledger.check(*tokens)


def provoke(sock: socket.socket, attack: bytes) -> bytes:
    """Send, and wait until there is an answer, an end, or silence."""
    sock.settimeout(QUIET)
    try:
        sock.sendall(attack)
        return sock.recv(65536)
    except (TimeoutError, ConnectionError):
        return b""


def rest(sock: socket.socket) -> bytes:
    """What has come meanwhile."""
    sock.setblocking(False)
    received = b""
    try:
        while data := sock.recv(65536):
            received += data
    except (BlockingIOError, ConnectionError):
        pass
    return received
