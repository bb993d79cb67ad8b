"""The input of requests without content, which nearly all are."""

import io


class NoContent(io.BufferedIOBase):
    """An empty file. It has no state at all, not even an end: one serves any number of requests."""

    def readable(self) -> bool:
        """It can be read, as often as one likes."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Nothing."""
        return b""

    def read1(self, size: int = -1, /) -> bytes:
        """Nothing."""
        return b""

    def seekable(self) -> bool:
        """As the input of a request with content is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Wherever to, it is the beginning."""
        return 0

    def close(self) -> None:
        """Stay open for the next request."""
