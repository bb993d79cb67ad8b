"""Addresses that cannot be listened on side by side."""

from pathlib import Path

import pytest

from pounce.config.listener import Listen, clash
from pounce.net.address import Address
from pounce.net.clashes import have_to_share


def share(one: str, other: str) -> bool:
    addresses = Address.parse(one), Address.parse(other)
    shared = have_to_share(*addresses)
    assert have_to_share(*reversed(addresses)) == shared
    return shared


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (":80", "0.0.0.0:80"),
        (":80", "[::]:80"),
        ("[::]:80", "0.0.0.0:80"),
        (":80", "a.example:80"),
        ("[::]:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("127.0.0.1:80", "[::ffff:127.0.0.1]:80"),
        ("[::1]:80", "[0:0::0:1]:080"),
        ("[fe80::A%eth0]:80", "[fe80::a%eth0]:80"),
        ("localhost:80", "127.0.0.1:80"),
        ("localhost:80", "[::1]:80"),
        ("LocalHost.:80", "0.0.0.0:80"),
        ("a.example:80", "A.example:80"),
        ("unix:/run/a.sock", "unix:/run//a.sock/"),
    ],
)
def test_what_has_to_share(one: str, other: str) -> None:
    assert share(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (":80", ":81"),
        (":0", "0.0.0.0:0"),
        ("0.0.0.0:80", "[::1]:80"),
        ("127.0.0.1:80", "127.0.0.2:80"),
        ("[fe80::a%eth0]:80", "[fe80::a%eth1]:80"),
        ("0.0.0.0:80", "a.example:80"),
        ("unix:/run/a.sock", "unix:/run/b.sock"),
        ("unix:@a", "unix:@b"),
        ("unix:@/run/a.sock", "unix:/run/a.sock"),
        ("fd:3", "fd:4"),
        (":80", "fd:3"),
    ],
)
def test_what_does_not(one: str, other: str) -> None:
    assert not share(one, other)


def test_a_link_leads_to_the_same_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    assert share(f"unix:{tmp_path}/a", f"unix:{tmp_path}/link/a")


def test_a_socket_with_a_name_is_opened_elsewhere() -> None:
    everywhere, own = Address.parse(":80"), Address.parse("127.0.0.1:80")
    assert clash(Listen(address=everywhere), Listen(address=own))
    assert not clash(Listen(address=everywhere), Listen(address=own, name="theirs"))
