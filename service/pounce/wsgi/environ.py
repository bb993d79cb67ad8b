"""The environ of a request (PEP 3333; names and values are CGI's, RFC 3875)."""

import sys
from typing import Any
from urllib.parse import unquote_to_bytes

from pounce.application.types import Scope
from pounce.asgi.scope import is_in
from pounce.wsgi.file_wrapper import FileWrapper

Environ = dict[str, Any]

_PROTOCOLS = {version: f"HTTP/{version}" for version in ("1.0", "1.1", "3")}
_PORTS = {"http": "80", "https": "443"}

# The server's own: the content was read, and has no transfer coding any more.
_OWN = frozenset((b"content-length", b"transfer-encoding"))

# Clients choose the names: what they make up is not remembered for ever.
_REMEMBERED = 512

_MADE = "pounce.environ"


class EnvironMaker:
    """Makes environs. Threads share one: what it remembers is the same whoever puts it there.

    *multithread* and *multiprocess* are what the application is told (PEP 3333); what is *own*
    is in every environ as well, with "pounce." before its name.
    """

    def __init__(self, *, multithread: bool, multiprocess: bool, **own: object) -> None:
        self._keys: dict[bytes, str] = {}
        self._base: Environ = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SCRIPT_NAME": "",
            "SERVER_SOFTWARE": "pounce",
            "wsgi.version": (1, 0),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": multithread,
            "wsgi.multiprocess": multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            # The input ends where the content does, however that was sent.
            "wsgi.input_terminated": True,
            **{f"pounce.{name}": value for name, value in own.items()},
        }

    def make(self, scope: Scope) -> Environ:
        """The environ of the request that *scope* describes, but for what is about its content."""
        made: Environ | None = scope.get(_MADE)
        return self._make_first(scope) if made is None else made.copy()

    def _make_first(self, scope: Scope) -> Environ:
        """The environ of a request whose scope carries none yet for later ones that are alike.

        It may carry one, for no WSGI application sees it; it gets a copy only when it comes a
        second time, for few do.
        """
        environ = self._make(scope)
        scope[_MADE] = environ.copy() if _MADE in scope else None
        return environ

    def _make(self, scope: Scope) -> Environ:
        raw_path, query, client = scope["raw_path"], scope["query_string"], scope["client"]
        path = raw_path
        if path == b"*":
            path = b"/"
        if b"%" in path:
            path = unquote_to_bytes(path)
        # One display of all: this is made for every request.
        environ: Environ = {
            **self._base,
            "REQUEST_METHOD": scope["method"],
            "PATH_INFO": path.decode("latin-1"),
            "QUERY_STRING": query.decode("latin-1"),
            "REQUEST_URI": (raw_path + b"?" + query if query else raw_path).decode("latin-1"),
            "SERVER_PROTOCOL": _PROTOCOLS[scope["http_version"]],
            "REMOTE_ADDR": client[0] if client else "",
            "REMOTE_PORT": str(client[1]) if client else "",
            "wsgi.url_scheme": scope["scheme"],
        }
        if scope["root_path"]:
            _mount(environ, scope["root_path"])
        self._add_fields(environ, scope["headers"])
        server = scope["server"]
        environ["SERVER_NAME"], environ["SERVER_PORT"] = (
            (server[0], str(server[1])) if server and server[1] is not None else _own_name(environ)
        )
        return environ

    def _add_fields(self, environ: Environ, fields: list[tuple[bytes, bytes]]) -> None:
        keys = self._keys
        for name, value in fields:
            key = keys.get(name)
            if key is None:
                key = self._key(name)
            if not key:
                continue
            if key not in environ:
                environ[key] = value.decode("latin-1")
            else:
                # RFC 9110 section 5.3; RFC 6265 section 5.4 has cookies in one line, separated so.
                separator = "; " if key == "HTTP_COOKIE" else ","
                environ[key] += separator + value.decode("latin-1")

    def _key(self, name: bytes) -> str:
        """The variable of the field *name*; empty if it is not passed on."""
        if name in _OWN or b"_" in name:
            # A name with "_" would become the variable of one with "-": a client could pass for
            # the proxy that sets that. nginx drops such fields as well.
            key = "CONTENT_LENGTH" if name == b"content-length" else ""
        else:
            key = name.decode("latin-1").upper().replace("-", "_")
            key = key if key == "CONTENT_TYPE" else "HTTP_" + key
        if len(self._keys) < _REMEMBERED:
            self._keys[name] = key
        return key


def _mount(environ: Environ, root_path: str) -> None:
    """Split the path after *root_path*, unless the proxy in front has taken that off already."""
    root = root_path.encode().decode("latin-1")
    environ["SCRIPT_NAME"] = root
    if is_in(environ["PATH_INFO"], root):
        environ["PATH_INFO"] = environ["PATH_INFO"][len(root) :]


def _own_name(environ: Environ) -> tuple[str, str]:
    """What the client calls this server, where a unix socket has neither name nor port."""
    host, _, port = environ.get("HTTP_HOST", "").rpartition(":")
    if not port.isdigit():
        host, port = environ.get("HTTP_HOST", ""), ""
    return host or "localhost", port or _PORTS[environ["wsgi.url_scheme"]]
