"""Reloads behind proxies that keep connections to pounce: their clients notice nothing."""

import itertools
from contextlib import ExitStack
from pathlib import Path

from tests.fronts.proxies import Front, haproxy, nginx
from tests.fronts.upstream import running
from tests.load import Background, Echo, Plan, Slow, Stream, Upload
from tests.load.plan import Request, Work
from tests.modes import both_modes

RELOADS = 2
WORKS: tuple[Work, ...] = (
    Echo(),
    Slow(100),
    Upload(pieces=5, ms=20),
    Upload(pieces=5, ms=20, chunked=True),
    Stream(chunks=5, ms=20),
)
# Kept connections with many clients' requests on each, one for each request or each client.
PORTS = ("tcp", "unix", "old", "bare", "stream", "v1", "http-v2")


class Mixed:
    """Every kind of request in turn."""

    def __init__(self) -> None:
        self._works = itertools.cycle(WORKS)

    def request(self, nonce: bytes) -> Request:
        return next(self._works).request(nonce)


def put_load(stack: ExitStack, fronts: list[Front]) -> dict[str, Background]:
    return {
        f"{front.name} {port}": stack.enter_context(
            Background(Plan(address=front[port], work=Mixed(), connections=8, duration=60))
        )
        for front in fronts
        for port in front.ports
        if port in PORTS
    }


@both_modes
def test_a_reload_behind_both(tmp_path: Path, mode: str) -> None:
    flags = ("--worker-mode", mode, "--workers", "2")
    with running(tmp_path, *flags, app="load:app") as upstream, ExitStack() as stack:
        service = upstream.service
        fronts = [
            stack.enter_context(nginx(tmp_path / "nginx", upstream)),
            stack.enter_context(haproxy(tmp_path / "haproxy", upstream)),
        ]
        with ExitStack() as loading:
            loads = put_load(loading, fronts)
            for generation in range(2, RELOADS + 2):
                for load in loads.values():
                    load.wait_for_more(20)
                service.reload(generation)
                service.expect(f"generation {generation - 1} is retired")
            for load in loads.values():
                load.wait_for_more(20)
    for name, load in loads.items():
        result = load.result()
        result.assert_nothing_lost()
        assert len(result.generations) == RELOADS + 1, name
