"""A stream whose content has been read once already."""

from pounce.http.stream import Stream


class Replay:
    """*stream*, whose content is *body*."""

    def __init__(self, stream: Stream, body: bytes) -> None:
        self._body: bytes | None = body
        self.wait_input = stream.wait_input
        self.wait_writable = stream.wait_writable
        self.start_response = stream.start_response
        self.send_body = stream.send_body
        self.end_response = stream.end_response
        self.wake_input = stream.wake_input
        self.reset = stream.reset
        self.break_off = stream.break_off
        self.disconnect = stream.disconnect
        self._stream = stream

    @property
    def gone(self) -> bool:
        """Whether nothing can be sent or received any more."""
        return self._stream.gone

    @property
    def write_paused(self) -> bool:
        """Whether as much is waiting to be sent as should."""
        return self._stream.write_paused

    @property
    def input_ended(self) -> bool:
        """Whether the client will send nothing more."""
        return self._stream.input_ended

    @property
    def event_stream(self) -> bool:
        """Whether the content is server-sent events."""
        return self._stream.event_stream

    def read_body(self) -> tuple[bytes, bool] | None:
        """The content, once."""
        body, self._body = self._body, None
        return (b"" if body is None else body), False
