"""A WSGI application for what carries requests: what each path does is in `app`; others echo."""

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILE = b"0123456789" * 20_000


def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"].startswith("/more"):
        return more(environ, start)
    start("200 OK", [("content-type", "text/plain")])
    match environ["PATH_INFO"]:
        case "/file":
            path = Path(environ["HTTP_X_FILE"])
            return environ["wsgi.file_wrapper"](path.open("rb"))  # type: ignore[no-any-return]
        case "/compressed":
            path = environ["HTTP_X_FILE"]
            return environ["wsgi.file_wrapper"](gzip.open(path))  # type: ignore[no-any-return]
        case "/stream":
            return (b"piece %d\n" % number for number in range(3))
        case "/scheme":
            return [environ["wsgi.url_scheme"].encode(), environ["SERVER_PROTOCOL"].encode()]
        case _:
            return [environ["wsgi.input"].read()]


def more(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    """Give more content than the length, which has blanks around it, in one of three ways."""
    write = start("999 Odd", [("content-length", " 5 ")])
    match environ["PATH_INFO"]:
        case "/more/list":
            return [b"hello", b" and more"]
        case "/more/pieces":
            return iter([b"he", b"llo, too", b" and more"])
        case _:
            write(b"hel")
            return [b"lo and more"]
