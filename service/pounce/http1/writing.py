"""Writing several pieces to a transport at once."""

import asyncio
import sys
from collections.abc import Sequence

# One system call sends all that writelines() is given. Before 3.12 asyncio's copies it first, and
# before 3.12.9 and 3.13.2 it tells nobody when it has buffered too much (CVE-2024-12254).
_SENDS_TOGETHER = sys.version_info >= (3, 13, 2) or (3, 12, 9) <= sys.version_info < (3, 13)


def write_all(transport: asyncio.Transport, pieces: Sequence[bytes]) -> None:
    """Write *pieces*, unless the connection has failed.

    A failure is told in the loop's next turn, and asyncio warns of those who write until then.
    """
    if transport.is_closing():
        return
    if _SENDS_TOGETHER:
        transport.writelines(pieces)
    else:
        for piece in pieces:
            transport.write(piece)
