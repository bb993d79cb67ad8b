"""Certificates and keys for a service that has a user of its own, and what becomes of clients."""

import socket
import ssl
import time
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.systemd.instance import Instance

AUTHORITY = Authority()
HOST = "shop.example"
CREDENTIALS = "LoadCredential=shop.pem:/etc/shop.pem\nLoadCredential=shop.key:/etc/shop.key\n"


def renew(instance: Instance) -> None:
    """A new certificate, whose key only root and the group `adm` may read."""
    issued = AUTHORITY.issue(HOST)
    instance.machine.write("/etc/shop.pem", issued.pem.decode())
    instance.machine.write("/etc/shop.key", issued.key_pem.decode())
    instance.machine.run("chgrp", "adm", "/etc/shop.key")
    instance.machine.run("chmod", "640", "/etc/shop.key")


def configure(instance: Instance, certificate: str, key: str, unit: str = "") -> None:
    renew(instance)
    instance.amend(instance.service, f"[Service]\n{unit}")
    listen = {"address": f"unix:{instance.path}", "certificate": certificate, "key": key}
    instance.configure(listen=[listen])


@pytest.fixture
def trust(tmp_path: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=AUTHORITY.write(tmp_path))


def connect(instance: Instance, trust: ssl.SSLContext) -> ssl.SSLSocket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(str(instance.machine.path(instance.path)))
    return trust.wrap_socket(sock, server_hostname=HOST)


def ask(client: ssl.SSLSocket) -> bytes:
    client.sendall(b"GET /who HTTP/1.1\r\nHost: shop\r\n\r\n")
    return client.recv(65536)


def serial(instance: Instance, trust: ssl.SSLContext) -> object:
    with connect(instance, trust) as client:
        assert ask(client).startswith(b"HTTP/1.1 200 ")
        shown = client.getpeercert()
        assert shown
        return shown["serialNumber"]


def test_credentials(instance: Instance, trust: ssl.SSLContext) -> None:
    unit = f"{CREDENTIALS}RefreshOnReload=credentials\n"
    configure(instance, "credential:shop.pem", "credential:shop.key", unit)
    instance.start()
    before = serial(instance, trust)
    renew(instance)
    instance.machine.systemctl("reload", instance.service)
    version = instance.machine.systemctl("--version").stdout.split()[1]
    # An older systemd does not know RefreshOnReload=, and warns of it.
    assert (serial(instance, trust) != before) == (int(version) >= 260)
    with connect(instance, trust) as idle, connect(instance, trust) as silent:
        assert ask(idle).startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        instance.machine.systemctl("restart", instance.service)
        assert time.monotonic() - began < 25  # less than shutdown_timeout
        # Both ends are proper ones: no exception.
        assert idle.recv(1) == b""
        assert silent.recv(1) == b""
    assert serial(instance, trust) != before


def test_a_check_has_no_doubts_about_credentials(instance: Instance) -> None:
    configure(instance, "credential:shop.pem", "credential:shop.key", CREDENTIALS)
    told = instance.machine.run("pounce", "check", instance.name)
    assert f"shop.pem is for {HOST}, until " in told.stdout
    assert "warning" not in told.stderr


def test_a_group_that_may_read_the_key(instance: Instance, trust: ssl.SSLContext) -> None:
    configure(instance, "/etc/shop.pem", "/etc/shop.key", "SupplementaryGroups=adm\n")
    instance.start()
    before = serial(instance, trust)
    renew(instance)
    instance.machine.systemctl("reload", instance.service)
    assert serial(instance, trust) != before


def test_a_key_that_the_service_cannot_read(instance: Instance) -> None:
    configure(instance, "/etc/shop.pem", "/etc/shop.key")
    assert instance.machine.systemctl("start", instance.service, check=False).returncode == 1
    assert instance.show("ExecMainStatus") == "78"
    said = "\n".join(entry["MESSAGE"] for entry in instance.journal())
    assert "/etc/shop.key cannot be read: Permission denied" in said
    assert "LoadCredential=" in said
