"""A request's content, collected before a thread sees the request."""

import asyncio

from pounce.http.response_head import PHRASES
from pounce.http.stream import Stream
from pounce.threads.storage import NotStored, Storage, StoredContent

_REFUSAL_HEADERS = (
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"retry-after", b"10"),
    (b"connection", b"close"),  # the rest of the content will not be read
)


async def collect(
    stream: Stream, piece: tuple[bytes, bool] | None, storage: Storage
) -> tuple[StoredContent | None, int] | None:
    """The whole content, of which *piece* was read already; None if the client ends before.

    It stands at its beginning, and comes with its size; an empty one is None. Raises NotStored.
    """
    content = StoredContent(storage)
    size = 0
    try:
        if not await _fill(content, stream, piece):
            return None
        size = content.finish()
    finally:
        if not size:
            content.close()
    return content if size else None, size


async def _fill(content: StoredContent, stream: Stream, piece: tuple[bytes, bool] | None) -> bool:
    while not stream.gone:
        # Asked again before any wait: more may have come since a task that calls this was made.
        piece = piece or stream.read_body()
        if piece is not None:
            content.add(piece[0])
            if not piece[1]:
                return True
            # A piece may be as many chunks as one turn of the loop allows (pounce.http1.body).
            await asyncio.sleep(0)
        elif stream.input_ended:
            stream.reset()
        elif not stream.gone:
            await stream.wait_input()
        piece = None
    return False


def refuse(stream: Stream, refusal: NotStored) -> None:
    """Answer in the application's place."""
    if not stream.gone:
        status = refusal.status
        text = f"{status} {PHRASES[status]}: {refusal.reason}\n"
        stream.start_response(status, _REFUSAL_HEADERS)
        stream.send_body(text.encode("ascii"), False)
