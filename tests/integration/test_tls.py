"""Services with TLS: sessions, certificates and connections from one generation to the next."""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from pounce.config.service import ServerConfig
from pounce.net.address import Address
from pounce.supervisor import Supervisor
from tests.apps.load import app
from tests.certificates import Authority
from tests.load import Result
from tests.modes import both_modes
from tests.service import PATIENCE, Service, Wire, launched, serving, wait_until
from tests.supervised import supervised

AUTHORITY = Authority()
HOST = "127.0.0.1"


@contextmanager
def secure(
    directory: Path, *flags: str, mode: str = "process", app: str = "load:app"
) -> Iterator[Service]:
    """A service with two workers and a certificate, in `server.pem` and `server.key`."""
    certificate, key = AUTHORITY.issue(HOST).write(directory, "server")
    files = ("--certificate", str(certificate), "--key", str(key))
    workers = ("--worker-mode", mode, "--workers", "2")
    authority = AUTHORITY.write(directory)
    with serving(directory, *files, *workers, *flags, app=app, authority=authority) as service:
        yield service


def serial(wire: Wire) -> str:
    """The serial number of the server's certificate."""
    assert isinstance(wire.sock, ssl.SSLSocket)
    shown = wire.sock.getpeercert()
    assert shown is not None
    return str(shown["serialNumber"])


# Sessions


class Resuming:
    """A client that resumes its session with every new connection."""

    def __init__(self, service: Service, authority: Path, version: ssl.TLSVersion) -> None:
        self._service = service
        self._trust = ssl.create_default_context(cafile=authority)
        self._trust.maximum_version = version
        self._session: ssl.SSLSession | None = None

    def connect(self) -> tuple[str, str, bool]:
        """Connect and ask; the generation and the slot that answered, and whether it resumed."""
        with Wire(self._service.address, self._trust, self._session) as wire:
            served = wire.get("/").headers[b"x-served-by"].decode().split()
            assert isinstance(wire.sock, ssl.SSLSocket)
            # With TLS 1.3 tickets come after the handshake; here they have come.
            self._session = wire.sock.session
            return served[0], served[1], bool(wire.sock.session_reused)

    def meets(self, generation: str) -> None:
        """Demand that each worker of *generation* resumes the session."""
        slots = set()

        def both() -> bool:
            served, slot, resumed = self.connect()
            assert resumed, (served, slot)
            slots.add(slot)
            return served == generation and slots == {"0", "1"}

        wait_until(both, "both workers")


@both_modes
def test_every_worker_of_every_generation_resumes_a_session(tmp_path: Path, mode: str) -> None:
    with secure(tmp_path, mode=mode) as service:
        authority = tmp_path / "authority.pem"
        versions = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        clients = [Resuming(service, authority, version) for version in versions]

        def all_meet(generation: str) -> None:
            for client in clients:
                client.meets(generation)

        assert [client.connect()[2] for client in clients] == [False, False]
        all_meet("1")
        service.reload(2)
        all_meet("2")
        AUTHORITY.issue(HOST).write(tmp_path, "server")
        service.reload(3)
        all_meet("3")
        if mode == "process":
            before = service.workers["0"]
            os.kill(before, signal.SIGKILL)
            service.expect_worker("0", before)
            all_meet("3")


# Certificates


@both_modes
def test_a_reload_renews_the_certificate_and_touches_no_connection(
    tmp_path: Path, mode: str
) -> None:
    with secure(tmp_path, mode=mode) as service, service.connect() as old:
        assert old.get("/").status == 200
        AUTHORITY.issue(HOST).write(tmp_path, "server")
        with service.connect() as wire:
            assert serial(wire) == serial(old)
        service.reload(2)
        with service.connect() as wire:
            assert serial(wire) != serial(old)
        answer = old.get("/")
        assert (answer.status, answer.closes) == (200, True)
        assert old.receive() is None


@both_modes
def test_a_reload_with_a_bad_certificate_changes_nothing(tmp_path: Path, mode: str) -> None:
    with secure(tmp_path, mode=mode) as service, service.connect() as old:
        before = serial(old)
        AUTHORITY.issue(HOST).write(tmp_path, "other")
        shutil.copy(tmp_path / "other.pem", tmp_path / "server.pem")
        service.send_signal(signal.SIGHUP)
        found = service.expect("reload failed, the old code still serves: (.*)")
        assert found[1].endswith("the key is not this certificate's")
        with service.connect() as wire:
            assert serial(wire) == before
            assert wire.get("/").status == 200
        assert old.get("/").closes is False
        shutil.copy(tmp_path / "other.key", tmp_path / "server.key")
        service.reload(3)
        with service.connect() as wire:
            assert serial(wire) != before


def test_a_certificate_that_cannot_be_used_keeps_the_service_from_starting(
    tmp_path: Path,
) -> None:
    certificate, _ = AUTHORITY.issue(HOST).write(tmp_path, "server")
    missing = tmp_path / "missing.key"
    files = ("--certificate", str(certificate), "--key", str(missing))
    with launched(tmp_path, *files) as service:
        assert service.wait() == 78
        assert (
            f"{missing} cannot be read: No such file or directory\n  under systemd" in service.log
        )


def test_one_that_expires_is_warned_of(tmp_path: Path) -> None:
    certificate, key = AUTHORITY.issue(HOST, days=3).write(tmp_path, "server")
    files = ("--certificate", str(certificate), "--key", str(key))
    with serving(tmp_path, *files, "--worker-mode", "process") as service:
        assert f"the certificate {certificate} expires soon, on 20" in service.log


@pytest.mark.parametrize(
    ("days", "starts_in", "doubt"), [(3, -4, "has expired on 20"), (90, 1, "is valid only from 20")]
)
def test_one_that_is_not_valid_is_served_with_a_warning(
    tmp_path: Path, days: int, starts_in: int, doubt: str
) -> None:
    """To refuse it would turn a warning in browsers into an outage, at the next restart."""
    with secure(tmp_path) as service:
        assert "the certificate" not in service.log
        AUTHORITY.issue(HOST, days=days, starts_in=starts_in).write(tmp_path, "server")
        service.reload(2)
        assert f"the certificate {tmp_path / 'server.pem'} {doubt}" in service.log
        with pytest.raises(ssl.SSLCertVerificationError):
            service.connect()
        service.trust = ssl._create_unverified_context()
        with service.connect() as wire:
            assert wire.get("/").status == 200


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl(1)")
def test_the_groups_that_openssl_finds(tmp_path: Path) -> None:
    offered = ("X25519", "P-256", "P-384", "X448", "P-521", "ffdhe2048")
    with secure(tmp_path) as service:
        target = f"{service.address.host}:{service.address.port}"
        command = ["openssl", "s_client", "-connect", target, "-tls1_3", "-groups"]
        found = [
            group
            for group in offered
            if subprocess.run([*command, group], input=b"", capture_output=True).returncode == 0
        ]
    assert found == ["X25519", "P-256", "P-384"]


# Connections


def noticed_only_polite_closes(result: Result) -> None:
    noticed = (result.wrong, result.dropped, result.closed_idle)
    assert not any(noticed), result.table()
    assert result.answered


@both_modes
def test_reloads_under_load(tmp_path: Path, mode: str) -> None:
    with (
        secure(tmp_path, mode=mode) as service,
        service.load(connections=16) as busy,
        service.load(think=0.05) as thinking,
    ):
        for generation in (1, 2, 3):
            if generation > 1:
                service.reload(generation)
            busy.wait_for_more(300)
            thinking.wait_for_more(100)
    for load in (busy, thinking):
        noticed_only_polite_closes(load.result())
        assert load.result().generations == {"1", "2", "3"}


@both_modes
def test_a_stop_loses_nothing_of_those_who_go_on_asking(tmp_path: Path, mode: str) -> None:
    """Without systemd nobody takes new connections then, so clients stop after their last."""
    with secure(tmp_path, mode=mode) as service:
        unfinished = socket.create_connection((service.address.host, service.address.port))
        with unfinished, service.connect() as idle, service.connect() as busy:
            idle.get("/")
            busy.send("/slow?ms=300")
            service.connect_to("0").sock.close()
            service.connect_to("1").sock.close()
            service.send_signal(signal.SIGTERM)
            answer = busy.receive()
            assert answer is not None
            assert (answer.status, answer.closes) == (200, True)
            assert busy.receive() is None
            assert idle.receive() is None
            assert idle.sock.recv(1) == b""  # a proper end: no exception
            assert service.wait() == 0  # and nobody waits for the handshake


@both_modes
def test_websockets_go_on_and_then_end_politely(tmp_path: Path, mode: str) -> None:
    with secure(tmp_path, "--reload-timeout", "1", mode=mode, app="websocket:app") as service:

        async def talk() -> None:
            url = f"wss://{service.address}/"
            async with connect(url, ssl=service.trust, proxy=None) as ws:
                await asyncio.to_thread(service.reload, 2)
                for message in ("still here", "x" * 1_000_000):
                    await ws.send(message)
                    assert await asyncio.wait_for(ws.recv(), PATIENCE) == message
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(ws.recv(), PATIENCE)
                assert ws.close_code == 1012

        # Not by the client with threads: two may not use one SSLSocket (CPython, gh-134698).
        asyncio.run(talk())


def test_a_handshake_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    with secure(tmp_path, "--header-timeout", "0.5") as service:
        address = (service.address.host, service.address.port)
        with socket.create_connection(address) as silent:
            silent.settimeout(PATIENCE)
            assert silent.recv(1) == b""


def test_a_host_name_that_is_none_is_refused_quietly(tmp_path: Path) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    trust = ssl.create_default_context()
    client = trust.wrap_bio(incoming, outgoing, server_hostname="xxxx.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read().replace(b"xxxx", b"\xff\xfe\xfd\xfc")
    with secure(tmp_path) as service:
        with socket.create_connection((service.address.host, service.address.port)) as sock:
            sock.settimeout(PATIENCE)
            sock.sendall(hello)
            assert sock.recv(100).startswith(b"\x15")  # an alert (RFC 8446 section 5.1)
        with service.connect() as wire:
            assert wire.get("/").status == 200
        assert "Exception" not in service.log


def test_a_flood_of_handshakes_does_not_starve_others(tmp_path: Path) -> None:
    with secure(tmp_path, "--max-connections", "100") as service, ExitStack() as stack:
        address = (service.address.host, service.address.port)

        def connect_silently(count: int) -> list[socket.socket]:
            made = [socket.create_connection(address) for _ in range(count)]
            return [stack.enter_context(sock) for sock in made]

        with service.load(connections=4, requests=400) as load:
            silent = connect_silently(150)
            assert load.result().answered == 400
        noticed_only_polite_closes(load.result())
        # Those who have not shaken hands count, and no handshake is begun with one too many.
        silent += connect_silently(150)
        wait_until(lambda: sum(map(is_closed, silent)) >= 90, "some are turned away")


def is_closed(sock: socket.socket) -> bool:
    """Whether the server has closed a connection on which it has said nothing."""
    try:
        return sock.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl(1)")
def test_another_client_agrees(tmp_path: Path) -> None:
    with secure(tmp_path) as service:
        command = ["openssl", "s_client", "-connect", f"{HOST}:{service.address.port}", "-brief"]
        options = ["-CAfile", str(tmp_path / "authority.pem"), "-verify_return_error"]
        request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        told = subprocess.run(
            [*command, *options, "-ign_eof"], input=request, capture_output=True, check=False
        )
        assert told.stdout.startswith(b"HTTP/1.1 200 OK\r\n"), told
        assert b"Verification: OK" in told.stderr


# Inside another program


def test_a_context_of_the_embedders_own(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*AUTHORITY.issue(HOST).write(tmp_path, "server"))
    trust = ssl.create_default_context(cafile=AUTHORITY.write(tmp_path))
    supervisor = Supervisor(ServerConfig(), app, mode="thread", ssl_context=context)
    with (
        socket.create_server((HOST, 0)) as secured,
        supervised(supervisor, secured),
    ):
        address = Address.parse("{}:{}".format(*secured.getsockname()))
        with Wire(address, trust) as wire:
            assert wire.get("/").status == 200
