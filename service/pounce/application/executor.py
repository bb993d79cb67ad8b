"""The threads in which an event loop runs what blocks (asyncio.to_thread, run_in_executor)."""

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from pounce.application import forks

P = ParamSpec("P")
T = TypeVar("T")


class Executor(ThreadPoolExecutor):
    """Runs each call as if its thread were new.

    Otherwise a thread would keep the context variables that one request's call has set for the next
    request's, and without a global lock even begin with those of whoever caused it to start
    (sys.flags.thread_inherit_context). A child that the call forks ends where the call does.
    """

    def __init__(self, max_workers: int | None = None, name: str = "asyncio") -> None:
        super().__init__(max_workers, name)
        self._new_context = contextvars.copy_context().copy

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a thread call *fn*."""
        return super().submit(_run, self._new_context(), fn, *args, **kwargs)


def _run(context: contextvars.Context, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    with forks.confined():
        return context.run(fn, *args, **kwargs)
