"""A FastAPI application with a WebSocket of each kind that the framework knows."""

from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect, WebSocketException
from fastapi.responses import JSONResponse

app = FastAPI()
app.state.left = []


async def member(websocket: WebSocket) -> str:
    """Who it is, or a refusal."""
    name = websocket.query_params.get("name")
    if name is None:
        raise WebSocketException(1008, "a name is required")
    return name


@app.websocket("/rooms/{room}")
async def chat(websocket: WebSocket, room: str, name: Annotated[str, Depends(member)]) -> None:
    """Say to each what it says, until it leaves."""
    await websocket.accept(subprotocol=next(iter(websocket.scope["subprotocols"]), None))
    try:
        while True:
            said = await websocket.receive_json()
            await websocket.send_json({"room": room, "name": name, "said": said})
    except WebSocketDisconnect as disconnect:
        app.state.left.append([name, disconnect.code, disconnect.reason])


@app.websocket("/private")
async def private(websocket: WebSocket) -> None:
    """Deny, with a response."""
    await websocket.send_denial_response(JSONResponse({"error": "no key"}, 401))


@app.websocket("/kick")
async def kick(websocket: WebSocket) -> None:
    """Accept, and find that it was wrong."""
    await websocket.accept()
    raise WebSocketException(4003, "kicked")


@app.websocket("/count")
async def count(websocket: WebSocket) -> None:
    """Send without end, to find out that nobody is there."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_bytes(bytes(10_000))
    except WebSocketDisconnect as disconnect:
        app.state.left.append(["count", disconnect.code, ""])


@app.get("/left")
async def left() -> list[list[str | int]]:
    """Who has left, and why."""
    gone: list[list[str | int]] = app.state.left
    return gone
