"""The event loop of a worker."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from pounce.application.executor import Executor
from pounce.application.interpreter import patched_by
from pounce.config.service import LoopName
from pounce.errors import ConfigError
from pounce.events.loggers import get_logger

logger = get_logger("pounce.worker")

_LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}

with contextlib.suppress(ImportError):
    import uvloop

    _LOOPS["uvloop"] = uvloop.new_event_loop


def check_event_loop(name: LoopName) -> None:
    """Raise ConfigError where the loop *name* is not to be had."""
    if name != "auto" and name not in _LOOPS:
        raise ConfigError(
            f"loop: {name} is not installed",
            hint="install it for the interpreter that runs the application, or use auto",
        )


def check_unpatched() -> None:
    """Raise ConfigError where gevent or eventlet has replaced what a loop waits with."""
    library = patched_by()
    if library:
        raise ConfigError(
            f"{library} has replaced Python's socket, select and threading modules "
            "(monkey patching), and event loops and threads do not work with its own",
            hint="remove the call of gevent.monkey.patch_all() or eventlet.monkey_patch(); pounce "
            "runs blocking code in threads: see `threads`, and `execution` for ASGI applications",
        )


def new_event_loop(name: LoopName) -> asyncio.AbstractEventLoop:
    """Make the loop *name*, which `check_event_loop` has let pass."""
    if name == "auto":
        name = "uvloop" if "uvloop" in _LOOPS else "asyncio"
    loop = _LOOPS[name]()
    loop.set_exception_handler(_tell)
    loop.set_default_executor(Executor())
    return loop


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error where asyncio does, or here if the application has silenced that logger.

    `dictConfig` and `fileConfig` disable it unless they are told otherwise.
    """
    if logging.getLogger("asyncio").isEnabledFor(logging.ERROR):
        loop.default_exception_handler(context)
    else:
        logger.error("%s", context["message"], exc_info=context.get("exception"))
