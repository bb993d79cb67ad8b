"""Heads that a connection reads in a turn of their own.

64 KiB take 1 or 2 ms, and heads of a thousand clients can become whole at the same time.
"""

LONG_HEAD = 4096


def is_long(buffer: bytearray, data: bytes) -> bool:
    """Whether the head in *buffer* and *data* is long; content behind the head does not count."""
    begun = bytes(buffer[:LONG_HEAD]) + data[:LONG_HEAD]
    return begun.find(b"\r\n\r\n", 0, LONG_HEAD) < 0
