"""An application that tells what it was given, and remembers it until somebody asks."""

import json
from typing import Any

from pounce.application.types import Receive, Scope, Send

SEEN = "/-/seen"
"""Asking for this path returns what was seen since it was last asked for."""

_seen: list[dict[str, Any]] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["path"] == SEEN:
        answer = list(_seen)
        _seen.clear()
        await _respond(send, answer)
    else:
        record = _describe(scope)
        _seen.append(record)
        body = await _read(receive)
        if body is not None:
            record.update(body=body.decode("latin-1"), complete=True)
            await _respond(send, record)


async def _lifespan(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def _describe(scope: Scope) -> dict[str, Any]:
    """The request, octets as Latin-1 since JSON has none."""
    return {
        "method": scope["method"],
        "version": scope["http_version"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "headers": [[part.decode("latin-1") for part in field] for field in scope["headers"]],
        "complete": False,
    }


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None when the client or the server gave it up."""
    body: bytes = b""
    while True:
        message: dict[str, Any] = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


async def _respond(send: Send, answer: object) -> None:
    body = json.dumps(answer).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
