"""How addresses of sockets are told to applications."""

import pytest

from pounce.net.host import unmapped


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:0:1", "::ffff:0:1"),
    ],
)
def test_an_ipv4_address_is_told_as_one(address: str, told: str) -> None:
    assert unmapped(address) == told
