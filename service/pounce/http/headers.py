"""Response header fields as applications send them, checked for every protocol alike."""

from collections.abc import Iterable

from pounce.application.types import MessageError

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# RFC 9110 section 5.5. What lets nobody end a field early is that CR, LF and NUL are not here.
_VALUE = bytes({0x09, *range(0x20, 0x7F), *range(0x80, 0x100)})


LENGTH_DIGITS = 18
"""The most digits of a Content-Length that is believed, either way: enough for an exabyte, and read
alike by everybody. Recipients have to anticipate longer ones (RFC 9110 section 8.6), and int() of
thousands of digits is quadratic."""

OF_CONNECTIONS = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
"""What concerns a connection of HTTP/1.1, and is in no message of HTTP/3 (RFC 9114 section 4.2)."""


def checked_field(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """The field with a lower-case name, such that no byte of it can end it early.

    Raises MessageError, or TypeError or AttributeError where they are not bytes.
    """
    if not name:
        raise MessageError("a header has an empty name")
    if name.translate(None, _TOKEN) or not is_value(value):
        raise MessageError(f"header {name!r}: {value!r} has a character that no header may have")
    return name.lower(), value


def is_value(value: bytes) -> bool:
    """Whether *value* can stand in a field, and in a status line: no byte of it can end that."""
    return not value.translate(None, _VALUE)


def checked_fields(headers: Iterable[Iterable[bytes]]) -> list[tuple[bytes, bytes]]:
    """All of an application's fields, checked; raises MessageError."""
    try:
        return [checked_field(name, value) for name, value in headers]
    except (TypeError, ValueError, AttributeError) as error:
        raise not_bytes(error) from error


def is_event_stream(value: bytes) -> bool:
    """Whether a Content-Type says that the content is server-sent events."""
    return value.partition(b";")[0].strip(b" \t").lower() == b"text/event-stream"


def announces_events(headers: Iterable[Iterable[bytes]]) -> bool:
    """Whether fields that nobody has checked say that the content is server-sent events."""
    try:
        fields = checked_fields(headers)
    except MessageError:
        return False
    return any(name == b"content-type" and is_event_stream(value) for name, value in fields)


def not_bytes(error: Exception) -> MessageError:
    """What to raise where looking at headers as pairs of bytes raised *error*."""
    return MessageError(f"headers are not pairs of bytes: {error}")
