"""What an application leaves unread must not shorten the connection's life."""

import time
from pathlib import Path

from tests.service import serving

SHORT = 0.5


def test_a_connection_is_idle_once_unread_content_has_come(tmp_path: Path) -> None:
    flags = ("--body-timeout", str(SHORT), "--keep-alive-timeout", "30", "--workers", "1")
    with serving(tmp_path, *flags) as service, service.connect() as wire:
        wire.sock.sendall(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n")
        first = wire.receive()
        assert first is not None
        assert first.status == 200
        wire.sock.sendall(b"late")
        # Well past the timeout for content, a sweep or two included, the connection is there.
        wire.sock.settimeout(SHORT + 2)
        began = time.monotonic()
        try:
            closed = wire.sock.recv(1)
        except TimeoutError:
            closed = None
        assert closed is None, f"closed after {time.monotonic() - began:.1f} s"
        wire.sock.settimeout(25)
        assert wire.get("/").status == 200
