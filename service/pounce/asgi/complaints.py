"""What the log says of applications that fail, for HTTP and WebSockets alike."""

import logging

from pounce.application.types import Scope
from pounce.asgi.departure import in_a_line, severity
from pounce.events.loggers import get_logger

logger = get_logger("pounce.error")


def account(
    error: BaseException, what: str, scope: Scope, *, excused: bool, cancelled: bool = False
) -> None:
    """Tell of *error*, which *scope*'s application has raised: *what* has happened.

    *excused* is whether the client may have left, and *cancelled* whether pounce has cancelled the
    application.
    """
    level = severity(error, cancelled=cancelled) if excused else logging.ERROR
    if level == logging.INFO:
        report(in_a_line(error), scope, level=level)
    elif level:
        report(what, scope, error)


def report(
    what: str, scope: Scope, error: BaseException | None = None, level: int = logging.ERROR
) -> None:
    """Log *what* has happened, with the traceback of *error*."""
    kind, path, client = scope.get("method", "WebSocket"), scope["path"], client_of(scope)
    logger.log(
        level,
        "%s on %s %r from %s",
        what,
        kind,
        path,
        client,
        exc_info=error,
        extra={"pounce": {"POUNCE_REQUEST": f"{kind} {path}", "POUNCE_CLIENT": client}},
    )


def client_of(scope: Scope) -> str:
    """Who has sent the request, for a person; an application may have changed its *scope*."""
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if isinstance(client, tuple) else "a local peer"


def path_of(scope: Scope) -> str:
    """What the request is for, for a person, as far as the application has left it there."""
    # Unlike the path, the raw one has no character that could end a line.
    path = scope.get("raw_path")
    return path.decode(errors="replace") if isinstance(path, bytes) else "?"
