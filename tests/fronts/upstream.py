"""pounce as the proxies' configuration has it."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import Authority
from tests.service import Service, serving

ENTRIES = """
[[listen]]
address = "unix:{unix}"
[[listen]]
address = "unix:{proxied}"
proxy_protocol = true
[[listen]]
address = "unix:{secure}"
proxy_protocol = true
certificate = "{pem}"
"""


@dataclass(frozen=True)
class Upstream:
    """Where *service* listens, and what proxies need besides; all but *tcp* are paths."""

    service: Service
    trust: ssl.SSLContext
    """What clients need for TLS with a proxy, or through one."""
    tcp: str
    unix: str
    proxied: str
    """A socket for the PROXY protocol."""
    secure: str
    """A socket for the PROXY protocol, then TLS."""
    pem: str
    """A certificate and its key."""


@contextmanager
def running(directory: Path, *flags: str, app: str) -> Iterator[Upstream]:
    """A service for proxies to stand in front of."""
    names = {name: f"{directory}/{name}" for name in ("unix", "proxied", "secure", "pem")}
    authority = Authority()
    issued = authority.issue("127.0.0.1")
    Path(names["pem"]).write_bytes(issued.pem + issued.key_pem)
    trust = ssl.create_default_context(cafile=str(authority.write(directory)))
    with serving(directory, *flags, app=app, entry=ENTRIES.format(**names)) as service:
        yield Upstream(service, trust, str(service.address), **names)
        assert "ERROR" not in service.log
