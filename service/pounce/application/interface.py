"""What kind of application was imported, and how it is therefore called."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast
from wsgiref.types import WSGIApplication

from pounce.application.sync_app import SyncApp
from pounce.application.types import ASGIApp, Receive, Scope, Send
from pounce.config.service import ServerConfig
from pounce.errors import ApplicationError, ConfigError

App: TypeAlias = ASGIApp | WSGIApplication | SyncApp
"""An application as an object."""

_SET_INTERFACE = 'set `interface` to "asgi" or "wsgi"'

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Served:
    """An application by the interfaces that it is called by; *asgi* may stand beside *sync*.

    *in_threads* is whether requests are answered by threads that run blocking code. *apart*
    stands for *asgi* on every loop but its own, where it has one loop for all workers.
    """

    asgi: ASGIApp | None = None
    wsgi: WSGIApplication | None = None
    sync: SyncApp | None = None
    in_threads: bool = False
    apart: ASGIApp | None = None

    @property
    def kind(self) -> str:
        """What it is, for a person."""
        if self.sync is not None:
            return "SyncApp"
        return "WSGI" if self.wsgi is not None else "ASGI"


async def no_asgi_application(scope: Scope, receive: Receive, send: Send) -> None:
    """What stands where there is none; nothing calls it."""
    raise NotImplementedError


def as_served(application: object, sync_app: SyncApp | None, config: ServerConfig) -> Served:
    """How *application* is called, as ``config.interface`` and ``config.execution`` want it.

    *sync_app* comes before it. Raises ApplicationError where the interface cannot be told, and
    ConfigError where the execution does not go with it.
    """
    own_sync = _as_sync_app(application) if config.interface == "auto" else None
    sync = sync_app or own_sync
    if (application is None and sync_app) or (own_sync and not callable(application)):
        asgi = wsgi = None
    else:
        asgi, wsgi = _by_interface(application, config)
    if sync is not None and wsgi is not None:
        raise ConfigError(
            "a SyncApp leaves requests to an ASGI application, but this one's is WSGI",
            hint="leave the WSGI application out, or the SyncApp",
        )
    blocks = wsgi is not None or sync is not None
    if config.execution == "async" and asgi is None:
        raise ConfigError(
            f"execution is async, but {config.app or 'the application'} blocks: it is "
            f"{'a WSGI application' if wsgi else 'a SyncApp'}",
            hint='set `execution` to "auto" or "sync"',
        )
    if config.lifespan == "on" and asgi is None:
        raise ConfigError(
            "lifespan is on, but only ASGI applications have one",
            hint='set `lifespan` to "auto"',
        )
    if config.execution == "async":
        return Served(asgi)
    return Served(asgi, wsgi, sync, in_threads=blocks or config.execution == "sync")


def _as_sync_app(application: object) -> SyncApp | None:
    # Not by isinstance(), which in Python 3.12.0 and 3.12.1 keeps the class for ever, and with it
    # the code of an old generation.
    is_one = callable(getattr(application, "handle_sync", None))
    return cast("SyncApp", application) if is_one else None


def _by_interface(
    application: object, config: ServerConfig
) -> tuple[ASGIApp | None, WSGIApplication | None]:
    name = repr(config.app) if config.app else "the application"
    if not callable(application):
        raise ApplicationError(
            f"{name} is {type(application).__name__}, not an ASGI or WSGI application",
            hint="an ASGI application is callable with (scope, receive, send), a WSGI "
            "application with (environ, start_response)",
        )
    interface = config.interface if config.interface != "auto" else _interface(application, name)
    if interface == "wsgi":
        return None, cast("WSGIApplication", application)
    return cast("ASGIApp", application), None


def _interface(application: Callable[..., Any], name: str) -> str:
    """Tell by how it can be called: a coroutine function is ASGI, two arguments are WSGI."""
    call = application if inspect.isroutine(application) else getattr(application, "__call__", None)  # noqa: B004 - the method is looked at
    if not inspect.isclass(application) and _is_coroutine_function(application, call):
        return "asgi"
    try:
        parameters = inspect.signature(application).parameters.values()
    except (TypeError, ValueError):
        raise _cannot_tell(name, "it has no signature") from None
    required = [
        each
        for each in parameters
        if each.kind in _POSITIONAL and each.default is inspect.Parameter.empty
    ]
    if any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters):
        raise _cannot_tell(name, "it takes any number of arguments")
    if len(required) == 1:
        raise ApplicationError(
            f"{name} takes one argument, as applications of ASGI 2 do",
            hint="wrap it: asgiref.compatibility.guarantee_single_callable(app); "
            f"if it is none, {_SET_INTERFACE}",
        )
    if len(required) not in (2, 3):
        raise _cannot_tell(name, f"it takes {len(required)} arguments")
    return "wsgi" if len(required) == 2 else "asgi"


def _is_coroutine_function(*calls: object) -> bool:
    return any(inspect.iscoroutinefunction(inspect.unwrap(call)) for call in calls if call)  # type: ignore[arg-type]


def _cannot_tell(name: str, why: str) -> ApplicationError:
    return ApplicationError(
        f"whether {name} is an ASGI or a WSGI application cannot be told: {why}",
        hint=_SET_INTERFACE,
    )
