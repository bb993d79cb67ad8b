"""The threads in which asgiref runs thread-sensitive calls: one for each worker.

asgiref (Django, Channels) has one such thread for the whole process. Workers that are threads of
one process would queue there for one another's calls, and a call that hangs would stop them all.
"""

import asyncio
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent import futures
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from pounce.application.executor import Executor
from pounce.events.loggers import identity

P = ParamSpec("P")
T = TypeVar("T")


class _Mine(threading.local):
    """What the current thread's worker has; all of the worker's threads have the same."""

    executor: futures.Executor | None = None


_mine = _Mine()

# The same for threads that run code in the context of a worker's: asyncio.to_thread and anyio (the
# `def` endpoints of FastAPI) copy it into theirs. It must not keep the executor: that one's own
# thread may have begun with a copy (sys.flags.thread_inherit_context), and would never end.
_of_context: ContextVar[Callable[[], futures.Executor | None]] = ContextVar("pounce_sensitive")


class WorkersOwn(futures.Executor):
    """Has each call run by the executor of the worker that the call comes from.

    Where neither the calling thread nor its context is of a worker (a program that embeds the
    server, a thread that the application has started without a context) it goes to *common*.
    """

    def __init__(self, common: futures.Executor) -> None:
        self._common = common

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> futures.Future[T]:
        """Have a thread call *fn*."""
        executor = _mine.executor or _of_context.get(_nobodys)() or self._common
        return executor.submit(fn, *args, **kwargs)


def _nobodys() -> None:
    return None


def begin() -> None:
    """The current thread runs a worker: give that worker a thread of its own.

    The thread starts with the first call, and ends with the last thread of its worker.
    """
    worker = map(str, (identity.get() or {}).values())
    _mine.executor = Executor(1, "-".join(("pounce", *worker, "sensitive")))


def mark_context() -> None:
    """Have what runs in the current context, in whatever thread, be of the current thread's worker.

    A thread that has a worker stays with it all the same.
    """
    if _mine.executor is not None:
        _of_context.set(weakref.ref(_mine.executor))


def mark_contexts(loop: asyncio.AbstractEventLoop) -> None:
    """Do so for what the current task starts on *loop*, and for calls in the executor of that."""
    if _mine.executor is not None:
        mark_context()
        loop.set_default_executor(Executor())  # which gives its calls the context it is made in


def joining() -> Callable[[], None]:
    """What another thread calls to become one of the current thread's worker."""
    fields, executor = identity.get(), _mine.executor

    def join() -> None:
        identity.set(fields)
        _mine.executor = executor

    return join


def divert() -> None:
    """Have asgiref use `WorkersOwn`, if the application has imported asgiref.

    Cheap, and to be called now and then: a handler may import asgiref. If the application has put
    an executor of its own or several threads in the place of asgiref's thread, they stay.
    """
    kind: Any = getattr(sys.modules.get("asgiref.sync"), "SyncToAsync", None)
    found = getattr(kind, "single_thread_executor", None)
    # asgiref has no public way to replace it.
    if type(found) is futures.ThreadPoolExecutor and found._max_workers == 1:  # noqa: SLF001
        kind.single_thread_executor = WorkersOwn(found)
