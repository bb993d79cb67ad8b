"""Whether the lifespan's startup keeps things outside the lifespan's state.

Where workers are threads, each has an event loop, and what one loop has made seldom works in
another (asyncio.Queue, a database pool). The state is made for each loop. Anything else is
shared: a second loop's startup would overwrite what the first one has made.
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from types import FrameType, FunctionType, ModuleType
from typing import Any, cast

from pounce.application.types import ASGIApp, Message, Receive, Scope, Send

# Packages that make calls although the application gave them nothing to do at startup. A call by
# anybody else may make something. Calls to loggers are frequent, and make nothing.
_IDLE_CALLERS = sys.stdlib_module_names | {"pounce", "starlette", "fastapi"}
_HARMLESS = frozenset({"pounce", "logging"})

# What belongs to no loop, however it came to be set.
_PLAIN = (type(None), int, float, complex, str, bytes, ModuleType, FunctionType)


class Startup:
    """*app*, watched from the time when it receives lifespan.startup until it answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._before: dict[str, dict[str, Any]] = {}
        self._suspended: asyncio.Handle | None = None
        self._profiler: Any = None
        self._begun = self._ended = False
        self.busy = False
        """Whether it did anything by which something can have been made."""
        self.kept: list[str] = []
        """The names of globals, and of attributes of the framework's application, it has set."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application."""

        async def watched_receive() -> Message:
            message = await receive()
            if not self._begun:
                self._begin(scope)
            return message

        async def watched_send(message: Message) -> None:
            if self._begun and not self._ended:
                self._end(scope)
            await send(message)

        await self._app(scope, watched_receive, watched_send)

    def _begin(self, scope: Scope) -> None:
        self._begun = True
        self._before = {name: dict(place) for name, place in self._places(scope)}
        # The next turn of the loop comes before the answer only where the application awaits.
        self._suspended = asyncio.get_running_loop().call_soon(self._suspend)
        self._profiler = sys.getprofile()
        sys.setprofile(self._see)

    def _suspend(self) -> None:
        sys.setprofile(self._profiler)
        self._suspended = None
        self.busy = True

    def _end(self, scope: Scope) -> None:
        self._ended = True
        if self._suspended is not None:
            self._suspended.cancel()
            sys.setprofile(self._profiler)
        for name, place in self._places(scope):
            before = self._before.get(name)
            # A module that was imported meanwhile has just become complete.
            if before is not None:
                self.kept += [f"{name}.{key}" for key in _changed(before, dict(place))]

    def _places(self, scope: Scope) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Where applications keep things: in themselves, their framework's part, and globals."""
        yield "the application", getattr(self._app, "__dict__", {})
        app = scope.get("app")
        yield "app", _attributes(app)
        yield "app.state", _attributes(_attributes(getattr(app, "state", None)).get("_state"))
        yield from _globals()

    def _see(self, frame: FrameType, event: str, _: object) -> None:
        """Take note of a call (sys.setprofile)."""
        caller = frame.f_back if event == "call" else frame
        if event not in ("call", "c_call") or caller is None:
            return
        if event == "call" and _package(frame) in _HARMLESS:
            return
        if _package(caller) not in _IDLE_CALLERS:
            self.busy = True


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _globals() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The globals of modules that are not installed, and what those refer to."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file and not _is_installed(name, file):
            yield name, vars(module)
            for key, value in list(vars(module).items()):
                if not key.startswith("__") and not issubclass(type(value), ModuleType):
                    yield f"{name}.{key}", _attributes(value)


def _attributes(value: object) -> Mapping[str, Any]:
    """The items of a dict, or the attributes of a class or an object."""
    # Of a proxy (werkzeug's LocalProxy), isinstance() and vars() would ask what it stands for.
    kind = type(value)
    if kind is dict:
        return cast("dict[str, Any]", value)
    if issubclass(kind, type):
        return vars(value)
    if not kind.__dictoffset__ or issubclass(kind, _PLAIN):
        return {}
    try:
        found = object.__getattribute__(value, "__dict__")
    except Exception:  # some types show none (typing.TypeVar), others have a property of that name
        return {}
    return found if isinstance(found, dict) else {}


def _is_installed(name: str, file: str) -> bool:
    installed = "/site-packages/" in file or "/dist-packages/" in file
    return installed or name.partition(".")[0] in sys.stdlib_module_names | {"pounce"}


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [
        key
        for key, value in after.items()
        if before.get(key) is not value and not issubclass(type(value), _PLAIN)
    ]
