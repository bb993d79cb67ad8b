"""A Flask application with what such have: forms, uploads, sessions, streams, files."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Flask, abort, jsonify, redirect, request, send_file, session, stream_with_context

app = Flask(__name__)
app.secret_key = "not a secret"


@app.get("/json")
def some_json() -> Any:
    return jsonify(id=1, name=request.args.get("name", ""), host=request.host, url=request.url)


@app.post("/login")
def login() -> Any:
    session["user"] = request.form["user"]
    return redirect("/whoami")


@app.get("/whoami")
def who_am_i() -> Any:
    return session.get("user") or abort(401)


@app.post("/upload")
def upload() -> Any:
    file = request.files["file"]
    content = file.read()
    return jsonify(
        name=file.filename, size=len(content), digest=hashlib.sha256(content).hexdigest()
    )


@app.post("/raw")
def raw() -> Any:
    return request.get_data()


@app.get("/stream")
def stream() -> Any:
    def pieces() -> Iterator[str]:
        for number in range(3):
            yield f"{request.args['what']} {number}\n"

    return app.response_class(stream_with_context(pieces()), mimetype="text/plain")


@app.get("/file")
def file() -> Any:
    return send_file(Path(__file__), conditional=True)


@app.get("/fail")
def fail() -> Any:
    raise RuntimeError("this request was asked to fail")
