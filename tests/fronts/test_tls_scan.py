"""What a scanner finds: nothing worse than an nginx with its defaults shows."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from pounce.net.address import Address
from tests.certificates import Authority, rsa_key
from tests.fronts.proxies import command, listens, running
from tests.service import free_port, serving, wait_until

HOST = "127.0.0.1"

NGINX = """
daemon off;
master_process off;
pid {here}/pid;
error_log {here}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    server {{
        listen {address} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
    }}
}}
"""


class Scan:
    """What sslscan says of the server at *address*."""

    def __init__(self, address: Address) -> None:
        told = subprocess.run(
            [command("sslscan"), "--xml=-", str(address)], capture_output=True, check=True
        )
        self._found = ElementTree.fromstring(told.stdout)

    @property
    def protocols(self) -> set[str]:
        found = self._found.iter("protocol")
        return {each.attrib["version"] for each in found if each.attrib["enabled"] == "1"}

    @property
    def ciphers(self) -> set[str]:
        found = self._found.iter("cipher")
        return {f"{each.attrib['sslversion']} {each.attrib['cipher']}" for each in found}

    @property
    def weaknesses(self) -> set[str]:
        """What can be wrong apart from versions and ciphers."""
        signs = {"heartbleed": "vulnerable", "renegotiation": "supported"}
        return {
            name
            for name, sign in signs.items()
            if any(each.attrib[sign] == "1" for each in self._found.iter(name))
        }


@contextmanager
def nginx(directory: Path, certificate: Path, key: Path) -> Iterator[Address]:
    address = Address.parse(f"{HOST}:{free_port()}")
    file = directory / "nginx.conf"
    file.write_text(NGINX.format(here=directory, address=address, certificate=certificate, key=key))
    with running([command("nginx"), "-c", str(file)], directory / "output", []):
        wait_until(lambda: listens(address), "nginx listens")
        yield address


def test_a_scan_finds_nothing_worse_than_nginx_shows(tmp_path: Path) -> None:
    certificate, key = Authority().issue(HOST, key=rsa_key(2048)).write(tmp_path, "server")
    with nginx(tmp_path, certificate, key) as address:
        theirs = Scan(address)
    with serving(tmp_path, "--certificate", str(certificate), "--key", str(key)) as service:
        ours = Scan(service.address)
    assert ours.protocols == {"1.2", "1.3"}
    assert ours.weaknesses <= theirs.weaknesses
    assert {each for each in ours.ciphers if "TLSv1.2" in each} < theirs.ciphers
    for cipher in ours.ciphers:
        # Forward secrecy, which all of TLS 1.3 has, and authenticated encryption.
        assert "ECDHE" in cipher or cipher.startswith("TLSv1.3 TLS_"), cipher
        assert "GCM" in cipher or "CHACHA20" in cipher, cipher
