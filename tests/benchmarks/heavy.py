"""An application that takes 100 MB, and 1 ms of computing for a response."""

from collections.abc import Awaitable, Callable
from typing import Any

SIZE = 100 * 1024 * 1024
TURNS = 20_000  # of an empty loop

DATA = bytearray(b"x") * SIZE  # written to, so that every page is really there


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"] == "/compute":
        compute(TURNS)
    headers = [(b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, world!"})


def compute(turns: int) -> None:
    for _ in range(turns):
        pass
