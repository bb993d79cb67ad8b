"""What servers of blocking code serve in the benchmarks. It imports nothing of pounce's."""

from collections.abc import Iterable
from typing import Any

HELLO = b"Hello, world!"
_FIELDS = [("content-type", "text/plain"), ("content-length", "13")]


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer everything with 13 bytes, by WSGI."""
    start_response("200 OK", _FIELDS)
    return [HELLO]


def make_flask() -> Any:
    """A Flask application that answers ``/json``."""
    from flask import Flask, jsonify

    flask = Flask(__name__)

    @flask.get("/json")
    def some_json() -> Any:
        return jsonify(id=1, name="a name", tags=["a", "b"], price=12.5)

    return flask
