"""A request's content, collected before a thread sees the request."""

import asyncio
import tempfile
from typing import IO

from pounce.asgi.cycle import Stream

MEMORY = 65_536
"""How much of a content is kept in memory; more goes to a temporary file."""


async def collect(stream: Stream, piece: tuple[bytes, bool] | None) -> tuple[IO[bytes], int] | None:
    """The whole content, of which *piece* was read already; None if the client ends before.

    It is a file that stands at its beginning, and its size. Raises OSError when there is no room
    for it.
    """
    file = tempfile.SpooledTemporaryFile(MEMORY)  # noqa: SIM115 - whoever gets it closes it
    whole = False
    try:
        whole = await _fill(file, stream, piece)
    finally:
        if not whole:
            file.close()
    if not whole:
        return None
    size = file.tell()
    file.seek(0)
    return file, size


async def _fill(file: IO[bytes], stream: Stream, piece: tuple[bytes, bool] | None) -> bool:
    while not stream.gone:
        # Asked again before any wait: more may have come since a task that calls this was made.
        piece = piece or stream.read_body()
        if piece is not None:
            file.write(piece[0])
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
