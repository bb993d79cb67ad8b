"""Children that the application forks (fork(2)): what they keep of the worker, and where they end.

A child has a copy of the worker's connections, listeners and event loops, and none of these is its
own. It must not answer a client, take what a client sends, or change what a loop waits for. So
every forked child loses these descriptors at once, whatever it was forked for. A child that goes
its own way (exec, os._exit(), multiprocessing) does not notice. A child that comes back to the
worker, because the application's call returns, raises or waits for the loop, ends there.
"""

import os
import re
import select
import signal
import sys
import threading
import traceback
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pounce.errors import EX_SOFTWARE

Descriptors = Callable[[], Iterable[int]]

# A pipe takes so much in one piece (PIPE_BUF, pipe(7)); the reason is at a traceback's end.
_LONGEST = 4096

_WATCHED = re.compile(r"^tfd: +(\d+) .* ino:([0-9a-f]+) ", re.MULTILINE)

births = 0
"""How many forks lie between this process and the one that imported this module.

Who calls the application compares it with what it was before the call, which costs no system call.
"""

_guarded: dict[AbstractEventLoop, Descriptors] = {}
_handlers: dict[int, Any] = {}


def guard(loop: AbstractEventLoop, descriptors: Descriptors = tuple) -> None:
    """Keep every forked child from *loop*, from what it watches, and from *descriptors*."""
    _guarded[loop] = descriptors


def unguard(loop: AbstractEventLoop) -> None:
    """*loop* has ended."""
    _guarded.pop(loop, None)


@contextmanager
def guarding(loop: AbstractEventLoop, descriptors: Descriptors = tuple) -> Iterator[None]:
    """`guard` *loop* while the block runs, and end a forked child that leaves the block."""
    guard(loop, descriptors)
    try:
        with confined():
            yield
    finally:
        unguard(loop)


def keep_handler(number: int) -> None:
    """The present handler of signal *number* is the worker's: a forked child gets the default."""
    _handlers[number] = signal.getsignal(number)


@contextmanager
def confined() -> Iterator[None]:
    """End a forked child that leaves the block, whichever way it does."""
    before = births
    try:
        yield
    except BaseException as error:
        if births != before:
            end(error)
        raise
    if births != before:
        end()


def end(error: BaseException | None = None) -> NoReturn:
    """End this forked child, in which the application's call returned or raised *error*."""
    if error is None:
        _exit(EX_SOFTWARE, "came back to the worker")
    if not isinstance(error, SystemExit):
        _exit(1, "raised an exception", "".join(traceback.format_exception(error)))
    if isinstance(error.code, int | None):
        _exit((error.code or 0) & 0xFF, "called sys.exit()")
    _exit(1, "called sys.exit()", f"{error.code}\n")


def _exit(status: int, what: str, text: str = "") -> NoReturn:
    if status:
        text += (
            f"pounce: process {os.getpid()}, which the application has forked, {what}; it ends "
            f"here, with status {status} (a forked child has to end by os._exit() or exec)\n"
        )
        data = text.encode(errors="replace")[-_LONGEST:]
        ready = select.poll()
        ready.register(2, select.POLLOUT)
        with suppress(OSError):
            if ready.poll(0):  # a full pipe must not keep the child alive
                os.write(2, data)
    os._exit(status)


# In the child, before os.fork() returns.


def _detach() -> None:
    """Take from this child what is the worker's."""
    global births
    births += 1
    guarded = dict(_guarded)
    _guarded.clear()
    if not guarded:  # a worker itself, or a program that does not serve
        return
    # Otherwise a signal that the child gets would be read, and obeyed, by the worker's loop.
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)
    for number, handler in _handlers.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, signal.SIG_DFL)
    forking = sys._getframe(1)  # noqa: SLF001 - documented
    loops = [loop for loop in guarded if not loop.is_closed()]
    selectors = [_selector(loop) for loop in loops]
    # First all are told: what has lost its descriptor cannot tell it.
    _take([each for descriptors in guarded.values() for each in descriptors()])
    for selector in selectors:
        with suppress(OSError):
            _take_selector(selector)
    for loop in loops:
        with suppress(RuntimeError):
            _end_in_loop(loop, forking)


def _take_selector(selector: int) -> None:
    """Put an empty epoll(7) instance in the place of a loop's, and take what that watches.

    The kernel's list of what is watched is one for both processes: what the child did to it would
    be done to the worker.
    """
    _take(list(_watched(selector)))
    with select.epoll() as fresh:
        os.dup2(fresh.fileno(), selector, inheritable=False)


def _take(descriptors: Iterable[int]) -> None:
    """Put the null device in the place of *descriptors*; the worker notices nothing.

    Closed, their numbers could become those of the child's own files, and the worker's objects
    that the child has copies of would close these.
    """
    with suppress(OSError), Path(os.devnull).open("r+b", buffering=0) as null:
        for descriptor in descriptors:
            if descriptor > 2:
                os.dup2(null.fileno(), descriptor, inheritable=False)


def _selector(loop: Any) -> int:
    """The descriptor of the epoll(7) instance by which *loop* waits."""
    own = getattr(loop, "_selector", None)
    descriptor: int = own.fileno() if own else loop._get_backend_id()  # noqa: SLF001 - uvloop's
    return descriptor


def _watched(selector: int) -> Iterator[int]:
    """What an epoll(7) instance watches (proc_pid_fdinfo(5))."""
    for descriptor, inode in _WATCHED.findall(Path(f"/proc/self/fdinfo/{selector}").read_text()):
        # The number may be another file's by now, if what was watched is open elsewhere.
        with suppress(OSError):
            if os.fstat(int(descriptor)).st_ino == int(inode, 16):
                yield int(descriptor)


def _end_in_loop(loop: AbstractEventLoop, forking: FrameType) -> None:
    """End this child where it goes back to *loop*, or a thread reports to *loop*."""
    loop.call_soon(_exit, EX_SOFTWARE, "went back to the worker's event loop")
    tell = loop.call_soon_threadsafe

    def told(*arguments: Any, **options: Any) -> Any:
        # Executors have a loop told what a call returned. Whoever else tells a loop something may
        # be a child that goes its own way; nobody will hear it.
        if not _runs(forking):
            end()
        return tell(*arguments, **options)

    vars(loop)["call_soon_threadsafe"] = told  # of this object alone


def _runs(frame: FrameType) -> bool:
    """Whether what *frame* belongs to has yet to return."""
    current: FrameType | None = sys._getframe()  # noqa: SLF001 - documented
    while current is not None and current is not frame:
        current = current.f_back
    return current is not None


# Around fork(2), in the thread that forks.

_held = threading.local()


def _hold_signals() -> None:
    """Have signals wait: one that comes before `_detach` would be the worker's, and lost."""
    if _guarded:
        _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _release_signals() -> None:
    mask = vars(_held).pop("mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_detach)
os.register_at_fork(after_in_child=_release_signals)
