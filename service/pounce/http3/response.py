"""Responses as fields and content, kept to what their head promised."""

from collections.abc import Iterable

from pounce.application.types import MessageError
from pounce.http.defaults import DefaultHeaders
from pounce.http.headers import LENGTH_DIGITS, OF_CONNECTIONS, checked_fields, is_event_stream
from pounce.http.response_head import NO_CONTENT
from pounce.http3.qpack import Fields


class Response:
    """One response, as far as HTTP's semantics go; does no I/O."""

    __slots__ = (
        "_declared",
        "_defaults",
        "_fields",
        "_has_no_content",
        "_is_head",
        "_left",
        "_status",
        "head_sent",
    )

    def __init__(self, defaults: DefaultHeaders, method: str) -> None:
        self._defaults = defaults
        self._is_head = method == "HEAD"
        self._fields: Fields = []
        self.head_sent = False

    def start(self, status: int, headers: Iterable[Iterable[bytes]]) -> None:
        """Take a head; raises MessageError if it could not be sent as it is."""
        if not 200 <= status <= 999:
            raise MessageError(f"{status} is not the status of a final response (200 to 999)")
        fields = [
            (name, value.strip(b" \t"))  # which a value here must not have around it
            for name, value in checked_fields(headers)
            if name not in OF_CONNECTIONS  # an application that sends them means HTTP/1.1
        ]
        self._declared = self._left = _length(fields)
        self._status = status
        self._has_no_content = self._is_head or status in NO_CONTENT
        self._fields = fields

    @property
    def event_stream(self) -> bool:
        """Whether the content is server-sent events."""
        return any(name == b"content-type" and is_event_stream(v) for name, v in self._fields)

    @property
    def whole(self) -> bool:
        """Whether nothing follows what was sent, whatever the application still sends."""
        return self._has_no_content or self._left == 0

    def head(self, size: int, more: bool) -> Fields:
        """The fields to send before the first content, of *size* bytes."""
        self.head_sent = True
        names = {name for name, _ in self._fields}
        return [
            (b":status", b"%d" % self._status),
            *(field for field in self._fields if field[0] != b"content-length"),
            *self._length_field(size, more),
            *(field for field in self._defaults.fields if field[0] not in names),
        ]

    def _length_field(self, size: int, more: bool) -> Fields:
        if self._status == 204:
            return []  # RFC 9110 section 8.6 forbids it here
        if self._status == 205:
            return [(b"content-length", b"0")]  # RFC 9110 section 15.3.6
        length = self._declared
        # Of a response without content, what a GET would have had, if that is known.
        if length is None and not more and (size or not self._has_no_content):
            length = size
        return [] if length is None else [(b"content-length", b"%d" % length)]

    def content(self, data: bytes, more: bool) -> bytes:
        """What to send of *data*; raises MessageError when it breaks the Content-Length."""
        if self._has_no_content:
            return b""
        if self._left is not None:
            left = self._left - len(data)
            if left < 0:
                raise MessageError(f"the body is {-left} bytes longer than its content-length")
            if left and not more:
                raise MessageError(f"the body is {left} bytes shorter than its content-length")
            self._left = left
        return data


def _length(fields: Fields) -> int | None:
    values = [value for name, value in fields if name == b"content-length"]
    if not values:
        return None
    if len(values) > 1:
        raise MessageError("there is more than one content-length")
    if not values[0].isdigit() or len(values[0]) > LENGTH_DIGITS:
        raise MessageError(f"content-length {values[0]!r} is not one number")
    return int(values[0])
