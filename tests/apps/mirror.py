"""Tells every client what the server said of its request, and remembers it.

any path    the scope and the content, as JSON; a WebSocket gets the scope, then its messages
/-/seen     what came since this was last asked for
"""

import hashlib
import json
from typing import Any

seen: list[dict[str, Any]] = []


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await converse(describe(scope), receive, send)
    elif scope["path"] == "/-/seen":
        answer = list(seen)
        seen.clear()
        await respond(send, answer)
    elif scope["path"] == "/-/flood":
        await flood(send)
    else:
        record = describe(scope)
        seen.append(record)
        await read(record, receive)
        if record["complete"]:
            await respond(send, record)


def describe(scope: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": scope["type"],
        "method": scope.get("method", "GET"),
        "target": target(scope),
        "client": scope["client"],
        "server": scope["server"],
        "scheme": scope["scheme"],
        "root_path": scope["root_path"],
        "headers": {name.decode(): value.decode("latin-1") for name, value in scope["headers"]},
        "generation": scope["extensions"].get("pounce", {}).get("generation"),
        "complete": False,
    }


def target(scope: dict[str, Any]) -> str:
    query = scope["query_string"]
    raw: bytes = scope["raw_path"] + (b"?" + query if query else b"")
    return raw.decode("latin-1")


async def read(record: dict[str, Any], receive: Any) -> None:
    digest, length, more = hashlib.sha256(), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        digest.update(message["body"])
        length += len(message["body"])
        more = message["more_body"]
    record.update(complete=True, length=length, sha256=digest.hexdigest())


async def respond(send: Any, answer: object) -> None:
    body = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def flood(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(256):
        body = bytes([number]) * 65_536
        await send({"type": "http.response.body", "body": body, "more_body": number < 255})


async def converse(record: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": json.dumps(record)})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
