"""Carrying out plans: to the end, or in a thread while something else goes on."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Self

from tests.load.client import Run
from tests.load.plan import Plan
from tests.load.result import Result

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    import uvloop
except ImportError:
    new_event_loop = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop


def run(plan: Plan) -> Result:
    """Carry out *plan*."""
    return _carry_out(plan, lambda _: None)


def _carry_out(plan: Plan, began: Callable[[Run], None]) -> Result:
    async def complete() -> Result:
        running = Run(plan)
        began(running)
        return await running.complete()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(complete())


class Background:
    """Carries out *plan* in a thread; leaving the ``with`` block ends it early and waits."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._run: Future[Run] = Future()
        self._result: Future[Result] = Future()
        self._thread = threading.Thread(target=self._main, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()

    def so_far(self) -> Result:
        """The figures until now."""
        run = self._run.result()
        figures: Future[Result] = Future()
        try:
            run.loop.call_soon_threadsafe(lambda: figures.set_result(run.tally.result()))
            return figures.result(timeout=1.0)
        except (RuntimeError, TimeoutError):  # the loop is closed, or will not turn again
            return self.result()

    def wait_until(self, condition: Callable[[Result], bool], timeout: float = 25.0) -> Result:
        """Wait until the figures satisfy *condition*; TimeoutError tells them if they do not."""
        deadline = time.monotonic() + timeout
        while not condition(result := self.so_far()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {timeout} s\n{result.table()}")
            time.sleep(0.01)
        return result

    def wait_for_more(self, answers: int, timeout: float = 25.0) -> Result:
        """Wait until *answers* more requests have been answered."""
        enough = self.so_far().answered + answers
        return self.wait_until(lambda result: result.answered >= enough, timeout)

    def stop(self) -> None:
        """End the load early; requests in flight are still awaited."""
        run = self._run.result()
        if not self._result.done():
            try:
                run.loop.call_soon_threadsafe(run.stop)
            except RuntimeError:  # it has ended in this moment
                return

    def result(self) -> Result:
        """Wait for the end; the figures."""
        return self._result.result()

    def _main(self) -> None:
        try:
            self._result.set_result(_carry_out(self._plan, self._run.set_result))
        except BaseException as error:
            self._result.set_exception(error)
            raise
