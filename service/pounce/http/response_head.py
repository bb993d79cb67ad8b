"""The head of a response, and what a connection may remember of it."""

from collections.abc import Iterable
from http import HTTPStatus

Fields = Iterable[tuple[bytes, bytes]]

# Before Python 3.13 the module http has those of older specifications.
PHRASES = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
"""Each status's usual reason phrase (RFC 9110 section 15)."""

NO_CONTENT = frozenset((204, 205, 304))
"""Statuses of responses without content: RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5."""


class ResponseHead:
    """A *status* and *fields*. Who sends the same again does best to keep it.

    *reason* is the status line's, where that is not the one that the status usually has.

    `text` is for the connection that sends it: the lines of HTTP/1.1 that are the same each time.
    It is None before the first time, and empty where these are not known. They promise `length`
    bytes of content, where that is not None. Only the loop looks at these two.
    """

    __slots__ = ("fields", "length", "reason", "status", "text")

    def __init__(self, status: int, fields: Fields, reason: bytes = b"") -> None:
        self.status = status
        self.fields = fields
        self.reason = reason
        self.text: bytes | None = None
        self.length: int | None = None
