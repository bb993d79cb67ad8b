"""A real, headless Chromium that goes from TLS to HTTP/3 by itself."""

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.browser.test_demo import dump
from tests.certificates import Authority
from tests.service import binding

pytest.importorskip("aioquic")

HOST = "a.example"


def test_a_browser_moves_to_http3(tmp_path: Path) -> None:
    issued = Authority().issue(HOST)
    certificate, key = issued.write(tmp_path, HOST)
    public = issued.certificate.public_key()
    information = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    fingerprint = base64.b64encode(hashlib.sha256(information).digest()).decode()
    flags = ("--http3", "--certificate", str(certificate), "--key", str(key))
    with binding(tmp_path, *flags, app="protocol:app") as service:
        page = dump(
            f"https://{HOST}:{service.address.port}/",
            tmp_path / "profile",
            f"--host-resolver-rules=MAP {HOST} 127.0.0.1",
            f"--ignore-certificate-errors-spki-list={fingerprint}",
            # Over QUIC Chromium believes public authorities alone, but for hosts of which some
            # origin is forced to QUIC; this one, on another port, nobody asks for.
            f"--origin-to-force-quic-on={HOST}:1",
        )
    assert '<div id="log">h3: HTTP/3, after' in page
