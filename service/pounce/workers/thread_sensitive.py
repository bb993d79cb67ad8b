"""The threads in which asgiref runs thread-sensitive calls: one for each worker.

asgiref (Django, Channels) has one such thread for the whole process. Workers that are threads of
one process would queue there for one another's calls, and a call that hangs would stop them all.
"""

import sys
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, ParamSpec, TypeVar

from pounce.loggers import identity
from pounce.workers.executor import Executor

P = ParamSpec("P")
T = TypeVar("T")


class _Mine(threading.local):
    """What the current thread's worker has; all of the worker's threads have the same."""

    executor: futures.Executor | None = None


_mine = _Mine()


class WorkersOwn(futures.Executor):
    """Has each call run by the executor of the calling thread's worker.

    Calls from threads that are no worker's (a program that embeds the server, the application's
    own loops) go to *common*.
    """

    def __init__(self, common: futures.Executor) -> None:
        self._common = common

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> futures.Future[T]:
        """Have a thread call *fn*."""
        return (_mine.executor or self._common).submit(fn, *args, **kwargs)


def begin() -> None:
    """The current thread runs a worker: give that worker a thread of its own.

    The thread starts with the first call, and ends with the last thread of its worker.
    """
    worker = map(str, (identity.get() or {}).values())
    _mine.executor = Executor(1, "-".join(("pounce", *worker, "sensitive")))


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
