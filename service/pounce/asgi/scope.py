"""The scope of an HTTP request (ASGI HTTP specification, version 2.3).

It is not 2.4, though all of that is there but one thing: since 2.4 a framework may rely on send()
to raise OSError when the client has left. Starlette does, and then no longer listens for
http.disconnect beside a stream: a generator that waits for its next event would never end, and
each client that leaves would reach the application's exception handlers and error reporters.
"""

from typing import Any
from urllib.parse import unquote_to_bytes

from pounce.application.types import Scope


def build_scope(
    method: str,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    http_version: str,
    scheme: str,
    client: tuple[str, int] | None,
    server: tuple[str, int | None] | None,
    root_path: str,
    state: dict[str, Any],
    extensions: dict[str, Any],
) -> Scope:
    """Describe one request; *target* is ``/path?query`` or ``*``, and *headers* are lower-case.

    *state* is copied, shallowly, as the lifespan specification asks; so are *extensions*.

    The path begins with *root_path*, as the specification has it since version 2.3, whether the
    proxy in front has taken that off or not; the raw path is as it was sent.
    """
    raw_path, _, query_string = target.partition(b"?")
    path = raw_path.decode("ascii") if raw_path.find(b"%") < 0 else decode_path(raw_path)
    if root_path and raw_path != b"*" and not is_in(path, root_path):
        path = root_path + path
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": http_version,
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": raw_path,
        "query_string": query_string,
        "root_path": root_path,
        "headers": headers.copy(),
        "client": client,
        "server": server,
        "state": state.copy(),
        "extensions": extensions.copy(),
    }


def renew_scope(scope: Scope, state: dict[str, Any]) -> Scope:
    """What `build_scope` would make again; *scope* is one that no application has seen."""
    fresh = scope.copy()
    fresh["asgi"] = scope["asgi"].copy()
    fresh["headers"] = scope["headers"].copy()
    fresh["state"] = state.copy()
    fresh["extensions"] = scope["extensions"].copy()
    return fresh


def is_in(path: str, root_path: str) -> bool:
    """Whether *path* is *root_path*, or in it."""
    return path.startswith(root_path) and path[len(root_path) : len(root_path) + 1] in ("", "/")


def decode_path(raw_path: bytes) -> str:
    """Percent-decode *raw_path* as UTF-8.

    What is not UTF-8 becomes U+FFFD: the specification promises text, text that cannot be
    encoded again would break the application far from the cause, and raw_path has the bytes.
    """
    return unquote_to_bytes(raw_path).decode("utf-8", "replace")
