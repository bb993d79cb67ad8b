"""The end of a process that runs an application: it waits for threads, but not for long.

Python joins every thread that is no daemon, and every thread of an executor, without a limit. One
that waits for something that never comes would keep the process until somebody kills it.
"""

import asyncio
import atexit
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from typing import NoReturn

from pounce.events.loggers import get_logger

logger = get_logger("pounce.worker")

# Seconds. Whatever works on something has had the time of a drain before.
_PATIENCE = 3.0

_EXECUTORS = "those of an executor"

# From this version on, multiprocessing runs atexit callbacks at the end of a forked child.
_CHILDREN_RUN_CALLBACKS = sys.version_info >= (3, 13)


@contextmanager
def running(loop: asyncio.AbstractEventLoop) -> Iterator[asyncio.Runner]:
    """A runner of *loop*, whose end waits for no thread."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        try:
            yield runner
        finally:
            leave_threads(loop)


def leave_threads(loop: asyncio.AbstractEventLoop) -> None:
    """Have the end of *loop*, which is near, wait for no thread.

    asyncio waits for the calls in the loop's executor: up to Python 3.11 without a limit, and then
    for 5 minutes. Without its loop, an executor ends each of its threads when that is idle.
    """
    loop.set_default_executor(futures.ThreadPoolExecutor())


def await_threads() -> bool:
    """Wait for threads as Python does at its end, for a few seconds; whether all have ended.

    No call in an executor can be started afterwards. A warning names the threads that still run.
    """
    executors = threading.Thread(target=_end_executors, name=_EXECUTORS, daemon=True)
    try:
        executors.start()
    except RuntimeError:  # there are too many threads already
        return False
    deadline = time.monotonic() + _PATIENCE
    while running := _still_running(executors):
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            _warn([each for each in running if each is not executors] or running)
            return False
        running[0].join(seconds)
    return True


def _end_executors() -> None:
    """End the idle threads of executors, and wait for the others without a limit."""
    # Python calls these first at its end; there is no public way to.
    for call in reversed(threading._threading_atexits):  # type: ignore[attr-defined]  # noqa: SLF001
        call()


def _still_running(executors: threading.Thread) -> list[threading.Thread]:
    """The threads that Python would wait for; *executors* waits for those of executors."""
    running = [each for each in threading.enumerate() if _is_waited_for(each)]
    return [*running, executors] if executors.is_alive() else running


def _is_waited_for(thread: threading.Thread) -> bool:
    if thread in (threading.main_thread(), threading.current_thread()):
        return False
    # The threads of an executor may be daemons, and are joined nevertheless.
    return not thread.daemon or thread in futures.thread._threads_queues  # noqa: SLF001


def _warn(running: list[threading.Thread]) -> None:
    logger.warning(
        "the application has left threads that did not end within %g s, and the process ends "
        "without them: %s",
        _PATIENCE,
        ", ".join(sorted(each.name for each in running)),
    )


def end_at_once(status: int, *, forked: bool) -> NoReturn:
    """End this process as Python does, but for the threads that still run.

    *forked* is whether multiprocessing has forked it.
    """
    if _CHILDREN_RUN_CALLBACKS or not forked:
        atexit._run_exitfuncs()  # noqa: SLF001 - no public way, and multiprocessing calls it, too
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, None, or nobody reads
            stream.flush()
    os._exit(status)
