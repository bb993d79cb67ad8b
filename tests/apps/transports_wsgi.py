"""A WSGI application for what carries requests: ``/file``, ``/stream``, ``/scheme``, and echoes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILE = b"0123456789" * 20_000


def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
    start("200 OK", [("content-type", "text/plain")])
    match environ["PATH_INFO"]:
        case "/file":
            path = Path(environ["HTTP_X_FILE"])
            return environ["wsgi.file_wrapper"](path.open("rb"))  # type: ignore[no-any-return]
        case "/stream":
            return (b"piece %d\n" % number for number in range(3))
        case "/scheme":
            return [environ["wsgi.url_scheme"].encode(), environ["SERVER_PROTOCOL"].encode()]
        case _:
            return [environ["wsgi.input"].read()]
