"""A SyncApp for pounce and for bengal-pounce, which have records of the same fields."""

from typing import Any

try:
    from pounce import RawResponse
except ImportError:  # bengal-pounce has it elsewhere
    from pounce.sync_protocol import RawResponse  # type: ignore[import-not-found, no-redef]

_FIELDS = ((b"content-type", b"text/plain"), (b"content-length", b"13"))
_HELLO = b"Hello, world!"


class Hello:
    """Answers everything with 13 bytes, by whichever interface it is asked."""

    def handle_sync(self, request: Any) -> Any:
        return RawResponse(200, _FIELDS, _HELLO)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": list(_FIELDS)})
        await send({"type": "http.response.body", "body": _HELLO})


app = Hello()
