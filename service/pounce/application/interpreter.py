"""The interpreter's global lock, and who has switched it on; who has replaced its modules."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# What the interpreter says when it meets a module that does not declare itself safe
# (https://docs.python.org/3/howto/free-threading-extensions.html).
_SWITCHED_ON = "The global interpreter lock"


# What a worker waits with. A library that makes one thread of many replaces these.
_WAITS_WITH = ("socket", "select", "thread")


def patched_by() -> str:
    """Which library has replaced what event loops and threads wait with; "" where none has."""
    gevent, eventlet = map(sys.modules.get, ("gevent.monkey", "eventlet.patcher"))
    if gevent is not None and any(map(gevent.is_module_patched, (*_WAITS_WITH, "threading"))):
        return "gevent"
    if eventlet is not None and any(map(eventlet.is_monkey_patched, _WAITS_WITH)):
        return "eventlet"
    return ""


def has_global_lock() -> bool:
    """Whether threads run one at a time, as far as it has come."""
    is_gil_enabled = getattr(sys, "_is_gil_enabled", None)
    return is_gil_enabled is None or bool(is_gil_enabled())


@contextmanager
def noticing_the_lock() -> Iterator[list[str]]:
    """Gives a list which has what the interpreter said, if meanwhile it switched its lock on.

    Other warnings are shown as ever. For a free-threaded interpreter, where what is changed here
    is of this thread alone (sys.flags.context_aware_warnings).
    """
    said: list[str] = []
    if has_global_lock():
        yield said
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", _SWITCHED_ON, RuntimeWarning)
        try:
            yield said
        finally:
            said += [str(each.message) for each in caught if _tells_of_the_lock(each)]
    for each in caught:
        if not _tells_of_the_lock(each):
            warnings.showwarning(each.message, each.category, each.filename, each.lineno)


def _tells_of_the_lock(warning: warnings.WarningMessage) -> bool:
    return str(warning.message).startswith(_SWITCHED_ON)
