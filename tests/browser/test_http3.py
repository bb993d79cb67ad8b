"""A real, headless Chromium that goes from TLS to HTTP/3 by itself."""

import base64
import hashlib
import socket
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pounce.net.address import Address
from tests.browser.test_demo import dump
from tests.certificates import Authority
from tests.service import APPS, Service, running

pytest.importorskip("aioquic")

HOST = "a.example"


def test_a_browser_moves_to_http3(tmp_path: Path) -> None:
    issued = Authority().issue(HOST)
    certificate, key = issued.write(tmp_path, HOST)
    public = issued.certificate.public_key()
    information = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    fingerprint = base64.b64encode(hashlib.sha256(information).digest()).decode()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pounce", "serve", "protocol:app", "--directory", str(APPS)]
    command += ["--bind", f"127.0.0.1:{port}", "--http3"]
    command += ["--certificate", str(certificate), "--key", str(key)]
    with running(command, tmp_path / "log") as process:
        service = Service(process, Address.parse(f"127.0.0.1:{port}"), tmp_path / "log")
        service.expect("generation 1 serves")
        page = dump(
            f"https://{HOST}:{port}/",
            tmp_path / "profile",
            f"--host-resolver-rules=MAP {HOST} 127.0.0.1",
            f"--ignore-certificate-errors-spki-list={fingerprint}",
            # Over QUIC Chromium believes public authorities alone, but for hosts of which some
            # origin is forced to QUIC; this one, on another port, nobody asks for.
            f"--origin-to-force-quic-on={HOST}:1",
        )
    assert '<div id="log">h3: HTTP/3, after' in page
