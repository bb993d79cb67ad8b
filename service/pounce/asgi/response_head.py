"""The head of a response, and what a connection may remember of it."""

from collections.abc import Iterable

Fields = Iterable[tuple[bytes, bytes]]


class ResponseHead:
    """A *status* and *fields*. Who sends the same again does best to keep it.

    `text` is for the connection that sends it: the lines of HTTP/1.1 that are the same each time.
    It is None before the first time, and empty where these are not known. They promise `length`
    bytes of content, where that is not None. Only the loop looks at these two.
    """

    __slots__ = ("fields", "length", "status", "text")

    def __init__(self, status: int, fields: Fields) -> None:
        self.status = status
        self.fields = fields
        self.text: bytes | None = None
        self.length: int | None = None
