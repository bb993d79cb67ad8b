"""What ends a stream or a connection (RFC 9114 section 8.1, RFC 9204 section 6)."""

from enum import IntEnum


class Code(IntEnum):
    """Error codes as they go on the wire."""

    NO_ERROR = 0x100
    GENERAL_PROTOCOL_ERROR = 0x101
    INTERNAL_ERROR = 0x102
    STREAM_CREATION_ERROR = 0x103
    CLOSED_CRITICAL_STREAM = 0x104
    FRAME_UNEXPECTED = 0x105
    FRAME_ERROR = 0x106
    EXCESSIVE_LOAD = 0x107
    ID_ERROR = 0x108
    SETTINGS_ERROR = 0x109
    MISSING_SETTINGS = 0x10A
    REQUEST_REJECTED = 0x10B
    REQUEST_CANCELLED = 0x10C
    REQUEST_INCOMPLETE = 0x10D
    MESSAGE_ERROR = 0x10E
    QPACK_DECOMPRESSION_FAILED = 0x200
    QPACK_ENCODER_STREAM_ERROR = 0x201


class ConnectionFailed(Exception):
    """The client has broken the protocol: the connection is closed with *code*."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class RequestFailed(Exception):
    """One request cannot be served: it is answered *status*, where that is still possible.

    Its stream is read no further, which *code* explains to the client. `line` is the request's for
    the access log, where that is known.
    """

    def __init__(self, status: int, reason: str, code: Code = Code.MESSAGE_ERROR) -> None:
        super().__init__(reason)
        self.line = b""
        self.status = status
        self.reason = reason
        self.code = code
