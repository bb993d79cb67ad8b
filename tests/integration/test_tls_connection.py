"""The HTTP/1.1 engine over TLS, on both loops: what differs from a plain connection."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from pounce.application.types import Receive, Scope, Send
from pounce.net.tls import TLS, Certificates, ListenerTLS, TLSFiles
from tests.certificates import Authority
from tests.live import Client, LiveServer, SecureClient, echo, hello, live, respond, serve, until

AUTHORITY = Authority()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the certificates are."""
    path = tmp_path_factory.mktemp("certificates")
    AUTHORITY.issue("a.example", "*.a.example").write(path, "a")
    AUTHORITY.issue("b.example").write(path, "b")
    AUTHORITY.issue("client").write(path, "client")
    Authority("Another").issue("client").write(path, "stranger")
    AUTHORITY.write(path)
    return path


@pytest.fixture
def tls(directory: Path) -> TLS:
    """A server's."""
    return context(directory)


def context(directory: Path, **options: Any) -> TLS:
    pairs = [(str(directory / f"{name}.pem"), str(directory / f"{name}.key")) for name in "ab"]
    return ListenerTLS(Certificates(TLSFiles(pairs, **options)))


def trusting(directory: Path, certificate: str = "") -> ssl.SSLContext:
    """A client's context."""
    made = ssl.create_default_context(cafile=str(directory / "authority.pem"))
    if certificate:
        made.load_cert_chain(directory / f"{certificate}.pem", directory / f"{certificate}.key")
    return made


async def scope(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what is known of the connection."""
    extension = scope["extensions"].get("tls")
    await respond(send, repr((scope["scheme"], extension)).encode())


async def scope_of(client: Client) -> tuple[str, Any]:
    """What `scope` answers: the scheme, and the extension for TLS."""
    answer = await client.get()
    told: tuple[str, Any] = eval(answer.partition(b"\r\n\r\n")[2])
    return told


# What the application is told


@live
async def test_the_scope(directory: Path, tls: ssl.SSLContext) -> None:
    async with (
        serve(scope, tls=tls) as server,
        await server.connect_securely(trusting(directory)) as client,
    ):
        scheme, extension = await scope_of(client)
        assert scheme == "https"
        assert extension == {
            "server_cert": (directory / "a.pem").read_text(),
            "client_cert_chain": [],
            "client_cert_name": None,
            "client_cert_error": None,
            "tls_version": 0x0304,
            "cipher_suite": 0x1302,
        }
        assert client.connection.selected_alpn_protocol() is None


@live
async def test_the_certificate_for_the_name_and_an_older_version(
    directory: Path, tls: ssl.SSLContext
) -> None:
    trusted = trusting(directory)
    trusted.maximum_version = ssl.TLSVersion.TLSv1_2
    trusted.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    trusted.set_alpn_protocols(["h2", "http/1.1"])
    async with (
        serve(scope, tls=tls) as server,
        await server.connect_securely(trusted, "b.example") as client,
    ):
        _, extension = await scope_of(client)
        assert extension["server_cert"] == (directory / "b.pem").read_text()
        assert extension["tls_version"] == 0x0303
        assert extension["cipher_suite"] == 0xC02B  # RFC 5289 section 3.2
        assert client.connection.selected_alpn_protocol() == "http/1.1"


@live
async def test_without_tls_there_is_no_extension() -> None:
    async with serve(scope) as server, await server.connect() as client:
        assert await scope_of(client) == ("http", None)


@live
async def test_client_certificates(directory: Path) -> None:
    ca = str(directory / "authority.pem")
    tls = context(directory, client_certificates="optional", client_ca=ca)
    async with serve(scope, tls=tls) as server:
        async with await server.connect_securely(trusting(directory, "client")) as client:
            _, extension = await scope_of(client)
            assert extension["client_cert_chain"] == [(directory / "client.pem").read_text()]
            assert extension["client_cert_name"] == "CN=client"
        async with await server.connect_securely(trusting(directory)) as client:
            _, extension = await scope_of(client)
            assert extension["client_cert_chain"] == []
            assert extension["client_cert_name"] is None
        await refused(server, trusting(directory, "stranger"))


@live
async def test_required_client_certificates(directory: Path) -> None:
    ca = str(directory / "authority.pem")
    tls = context(directory, client_certificates="required", client_ca=ca)
    async with serve(scope, tls=tls) as server:
        async with await server.connect_securely(trusting(directory, "client")) as client:
            _, extension = await scope_of(client)
            assert extension["client_cert_name"] == "CN=client"
        for certificate in ("", "stranger"):
            await refused(server, trusting(directory, certificate))


async def refused(server: LiveServer, trusted: ssl.SSLContext) -> None:
    """With TLS 1.3 a client learns only when it reads."""
    async with await server.connect_securely(trusted) as client:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await client.more()


# Content


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, bytes(12_000_000))


async def count(client: Client) -> int:
    """Read to the end; how many bytes came."""
    counted = 0
    while await client.more():
        counted += len(client.received)
        client.received = b""
    return counted


@live
async def test_large_content_both_ways(directory: Path, tls: ssl.SSLContext) -> None:
    body = bytes(range(256)) * 40_000
    head = b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with (
        serve(echo, tls=tls) as server,
        await server.connect_securely(trusting(directory)) as client,
    ):
        sending = asyncio.create_task(client.send(head + body))
        answer = await client.response()
        await sending
        assert answer.endswith(b"\r\n\r\n" + body)
        assert (await client.get("/")).endswith(b"\r\n\r\n")


@live
async def test_a_client_that_reads_slowly_pauses_the_application(
    directory: Path, tls: ssl.SSLContext
) -> None:
    sent = 0

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(200):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            sent += 65536
        await send({"type": "http.response.body"})

    async with serve(stream, tls=tls) as server:
        trusted = trusting(directory)
        async with await server.connect_securely(trusted, receive_buffer=65536) as client:
            await client.ask("/", "connection: close")
            connection = await server.connection()
            await until(lambda: connection.write_paused)
            assert sent < 200 * 65536
            assert await count(client) > 200 * 65536


@live
async def test_a_slow_reader_is_no_stopped_one(directory: Path, tls: ssl.SSLContext) -> None:
    """One large piece leaves the transport little by little; that counts as progress."""

    counted = 0
    async with serve(large, tls=tls, write_timeout=0.8) as server:
        trusted = trusting(directory)
        async with await server.connect_securely(trusted, receive_buffer=65536) as client:
            await client.ask("/", "connection: close")
            while await client.more():
                counted += len(client.received)
                client.received = b""
                if counted % 262_144 < 16_384:  # all of it takes longer than the timeout
                    await asyncio.sleep(0.03)
            assert counted > 12_000_000
            assert client.ended


@live
async def test_a_reader_that_stops_is_given_up(directory: Path, tls: ssl.SSLContext) -> None:
    async with serve(large, tls=tls, write_timeout=0.3) as server:
        trusted = trusting(directory)
        async with await server.connect_securely(trusted, receive_buffer=65536) as client:
            await client.ask()
            connection = await server.connection()
            await until(lambda: connection.write_paused)
            await server.departures()


# Ends


@live
async def test_the_last_response_ends_with_a_notice(directory: Path, tls: ssl.SSLContext) -> None:
    async with (
        serve(hello, tls=tls) as server,
        await server.connect_securely(trusting(directory)) as client,
    ):
        await client.get("/", "connection: close")
        assert await client.rest() == b""
        assert client.ended


@live
async def test_an_idle_connection_ends_with_a_notice(directory: Path, tls: ssl.SSLContext) -> None:
    async with (
        serve(hello, tls=tls, keep_alive_timeout=0.1) as server,
        await server.connect_securely(trusting(directory)) as client,
    ):
        await client.get("/")
        assert await client.rest() == b""
        assert client.ended


@live
async def test_an_early_answer_reaches_a_client_that_is_still_sending(
    directory: Path, tls: ssl.SSLContext
) -> None:
    async with (
        serve(hello, tls=tls, max_body_size=1000) as server,
        await server.connect_securely(trusting(directory)) as client,
    ):
        await client.send(b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 9000000\r\n\r\n")
        for _ in range(100):
            await client.send(bytes(65536))
        assert (await client.rest()).startswith(b"HTTP/1.1 413 ")
        assert client.ended


@live
async def test_a_client_may_close_its_side_alone(directory: Path, tls: ssl.SSLContext) -> None:
    """RFC 8446 section 6.1: each direction is closed by its own close_notify."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)
        await respond(send, b"still here")

    for close in (SecureClient.notify, SecureClient.half_close):
        async with serve(slow, tls=tls) as server:
            async with await server.connect_securely(trusting(directory)) as client:
                await client.ask()
                closing = close(client)
                if closing is not None:
                    await closing
                assert (await client.rest()).endswith(b"still here")
            await server.departures()


@live
async def test_a_client_may_close_its_side_while_it_reads_the_last_response(
    directory: Path, tls: ssl.SSLContext
) -> None:
    async with serve(large, tls=tls) as server:
        trusted = trusting(directory)
        async with await server.connect_securely(trusted, receive_buffer=65536) as client:
            await client.ask("/", "connection: close")
            await until(lambda: bool(server.context.ending))
            await client.notify()
            await asyncio.sleep(0)
            assert await count(client) > 12_000_000
            assert client.ended


@live
async def test_a_broken_record_ends_the_connection(directory: Path, tls: ssl.SSLContext) -> None:
    async with (
        serve(hello, tls=tls) as server,
        await server.connect_securely(trusting(directory)) as client,
    ):
        await client.get("/")
        await asyncio.get_running_loop().sock_sendall(client.sock, b"\x17\x03\x03\0\x20" * 9)
        await server.departures()


@live
async def test_an_error_within_a_response_is_no_clean_end(
    directory: Path, tls: ssl.SSLContext
) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError

    async with (
        serve(fail, tls=tls) as server,
        await server.connect_securely(trusting(directory)) as client,
    ):
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert await client.is_reset()
        assert not client.ended


# Handshakes


@live
async def test_http_without_tls_is_told_so(tls: ssl.SSLContext) -> None:
    async with serve(hello, tls=tls) as server:
        async with await server.connect() as client:
            answer = await client.get()
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"connection: close\r\n" in answer
            assert answer.endswith(b"this port speaks TLS: use https://\n")
            assert await client.rest() == b""
        await server.departures()


@live
async def test_what_is_neither_tls_nor_http(tls: ssl.SSLContext) -> None:
    async with serve(hello, tls=tls) as server:
        for garbage in (b"\0" * 100, b"\x16\x03\x01\xff\xff" + b"\0" * 100, b"\x80\x2e\x01\0\x02"):
            async with await server.connect() as client:
                await client.send(garbage)
                client.half_close()
                answer = await client.rest()
                assert answer[:1] in (b"", b"\x15")  # an alert (RFC 8446 section 5.1)
        await server.departures()


@live
async def test_a_handshake_byte_by_byte(directory: Path, tls: ssl.SSLContext) -> None:
    async with serve(hello, tls=tls) as server:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        trusted = trusting(directory).wrap_bio(incoming, outgoing, server_hostname="a.example")
        with pytest.raises(ssl.SSLWantReadError):
            trusted.do_handshake()
        async with await server.connect() as client:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in outgoing.read():
                await client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert await client.more()
            assert client.received.startswith(b"\x16")


@live
async def test_ciphers_that_are_not_safe(directory: Path, tls: ssl.SSLContext) -> None:
    for ciphers in ("ECDHE+AES:!AESGCM:!AESCCM", "kRSA", "DHE", "PSK", "aNULL@SECLEVEL=0"):
        trusted = trusting(directory)
        trusted.set_ciphers(ciphers)
        trusted.maximum_version = ssl.TLSVersion.TLSv1_2
        async with serve(hello, tls=tls) as server:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await server.connect_securely(trusted)
