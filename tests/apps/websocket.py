"""Sends every WebSocket message back."""

from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Accept on any path; other scopes are not supported."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
