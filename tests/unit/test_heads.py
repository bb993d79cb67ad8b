"""Heads that wait for content: which ones are sent without it, and what costs nothing."""

import asyncio

import pytest

from pounce.http.heads import Heads
from tests.live import until


class Response:
    """What takes its head when it is made."""

    def __init__(self, heads: Heads) -> None:
        self.sent_at = 0.0
        self.started = True
        self._loop = asyncio.get_running_loop()
        self.began = self._loop.time()
        last = heads.last
        if last is None or last.started:
            heads.keep(last)
        heads.last = self

    def send_head(self) -> None:
        if self.started:
            self.sent_at = self._loop.time()
            self.started = False


def test_every_head_that_waits_is_sent_and_no_other() -> None:
    async def main() -> None:
        heads = Heads(asyncio.get_running_loop())
        waiting, done = [], []
        for _ in range(3):
            waiting.append(Response(heads))
            done.append(Response(heads))
            done[-1].started = False
            await asyncio.sleep(0.02)
        await until(lambda: all(each.sent_at for each in waiting))
        assert not any(each.sent_at for each in done)
        # The least is promised; how much more there is depends on the machine.
        assert all(each.sent_at - each.began >= 0.045 for each in waiting)

    asyncio.run(main())


@pytest.mark.parametrize("started", [True, False])
def test_the_clock_stops_when_nobody_waits(*, started: bool) -> None:
    async def main() -> None:
        heads = Heads(asyncio.get_running_loop())
        for _ in range(2):
            response = Response(heads)
            response.started = started
            assert heads._ticking
            await until(lambda: not heads._ticking)
            assert heads.last is None
            assert bool(response.sent_at) is started

    asyncio.run(main())
