"""The event loop of a worker."""

import asyncio
import contextlib
from collections.abc import Callable

from pounce.config import LoopName
from pounce.errors import ConfigError

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


def new_event_loop(name: LoopName) -> asyncio.AbstractEventLoop:
    """Make the loop *name*, which `check_event_loop` has let pass."""
    if name == "auto":
        name = "uvloop" if "uvloop" in _LOOPS else "asyncio"
    return _LOOPS[name]()
