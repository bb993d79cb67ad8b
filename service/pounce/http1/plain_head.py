"""The heads of plain responses, which is nearly all of them; the rest is left to the writer.

A head is plain if nothing in it is more than data for the client, but for its length: then nothing
has to be decided about it, and no object is needed for the response.
"""

from collections.abc import Iterable
from typing import TypeAlias

from pounce.http.defaults import FieldLines
from pounce.http.response_head import NO_CONTENT, PHRASES

STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode("ascii"))
    for status, phrase in PHRASES.items()
    if status >= 200
}


def status_line(status: int, reason: bytes = b"") -> bytes:
    """The line of *status*, with its usual reason phrase if *reason* is empty."""
    known = b"" if reason else STATUS_LINES.get(status)
    return known or b"HTTP/1.1 %d %b\r\n" % (status, reason)


_PLAIN = {status: line for status, line in STATUS_LINES.items() if status not in NO_CONTENT}


PlainHead: TypeAlias = tuple[int, list[bytes], int | None, bytes]
"""A head as an application gives it: its status, its lines, and the length of its content.

The lines begin with the status line. That of the length is not among them but the last member,
and empty where the length is None.
"""


def plain_head(
    status: int,
    headers: Iterable[tuple[bytes, bytes]],
    line_of: FieldLines,
    reason: bytes = b"",
) -> PlainHead | None:
    """The head of *status* and *headers*, or nothing where it is for the writer to judge.

    Raises MessageError if it could not be sent as it is.
    """
    # What is neither a list nor a tuple could perhaps not be looked at a second time.
    if status not in _PLAIN or (type(headers) is not list and type(headers) is not tuple):
        return None
    first = status_line(status, reason) if reason else _PLAIN[status]
    lines, length, length_line = [first], None, b""
    try:
        for field in headers:
            # A list, which the specification allows as well, cannot be looked up: a TypeError.
            concern, line = line_of[field]
            if concern is None:
                lines.append(line)
            elif type(concern) is int and length is None:
                length, length_line = concern, line
            else:
                return None
    except (TypeError, ValueError, AttributeError):
        return None
    return status, lines, length, length_line
