"""Threads behind TLS: what a thread makes goes out as anything does."""

import ssl
from pathlib import Path

from pounce.net.tls import Certificates, ListenerTLS, TLSFiles
from tests.apps.transports_wsgi import FILE, app
from tests.certificates import Authority
from tests.live import live
from tests.wsgi import serving


@live
async def test_over_tls(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(FILE)
    authority = Authority()
    authority.issue("a.example").write(tmp_path, "a")
    authority.write(tmp_path)
    pair = (str(tmp_path / "a.pem"), str(tmp_path / "a.key"))
    tls = ListenerTLS(Certificates(TLSFiles([pair])))
    trusted = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
    async with (
        serving(app, tls=tls) as server,
        await server.connect_securely(trusted) as client,
    ):
        for _ in range(2):
            assert (await client.get("/scheme")).endswith(b"\r\n\r\nhttpsHTTP/1.1")
            assert b"8\r\npiece 2\n" in await client.get("/stream")
            for way in ("list", "pieces", "write"):
                answer = await client.get(f"/more/{way}")
                assert answer.startswith(b"HTTP/1.1 999 Odd\r\n")
                assert answer.endswith(b"\r\n\r\nhello")
            await client.send(
                b"GET /file HTTP/1.1\r\nhost: a.example\r\nx-file: %b\r\n"
                b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" % str(file).encode()
            )
            head = await client.read_until(b"\r\n\r\n")
            assert b"transfer-encoding: chunked" in head
            body = await client.read_until(b"\r\n0\r\n\r\n")
            assert body.count(b"0123456789") >= len(FILE) // 10 - 5
