"""What an instance of pounce@.service refuses to serve and to bind."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from pounce.assembly.instance import own_name, refuse_moved
from pounce.config.service import Listen
from pounce.errors import ListenError
from pounce.net.address import Address
from pounce.net.listeners import InheritedSocket
from pounce.systemd.activation import Inherited
from pounce.systemd.generator import generate

pytestmark = pytest.mark.usefixtures("within_a_service")
NOTHING = Inherited([], [])
WITHHELD = Inherited([], [], are_withheld=True)
MOVE = "systemctl daemon-reload && systemctl restart pounce@shop.socket pounce@shop.service"


@pytest.fixture
def within_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environment of what a service starts."""
    monkeypatch.setenv("SYSTEMD_EXEC_PID", "1")


@pytest.mark.parametrize(
    ("groups", "name"),
    [
        ("0::/system.slice/system-pounce.slice/pounce@shop.service\n", "shop"),
        ("0::/system.slice/pounce@a-b_c.service/supervisor\n", "a-b_c"),
        ("3:cpu:/\n1:name=systemd:/system.slice/pounce@shop.service\n0::/\n", "shop"),
        ("0::/system.slice/shop.service\n", ""),
        ("0::/system.slice/my-pounce@shop.service\n", ""),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/pounce@shop.service\n", ""),
        ("", ""),
    ],
)
def test_an_instance_is_known_by_its_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, name: str
) -> None:
    path = tmp_path / "cgroup"
    path.write_text(groups)
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
    assert own_name(has_variables=False, groups=path) == name
    # A program that the service starts is not the service, but what a wrapper starts is.
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getppid()))
    assert own_name(has_variables=False, groups=path) == ""
    assert own_name(has_variables=True, groups=path) == name
    # So is what `env -i` starts.
    monkeypatch.delenv("SYSTEMD_EXEC_PID")
    assert own_name(has_variables=False, groups=path) == name


def test_without_control_groups_nothing_is_an_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
    assert own_name(has_variables=False, groups=tmp_path / "missing") == ""


def entries(*addresses: str) -> list[Listen]:
    return [Listen(address=Address.parse(address)) for address in addresses]


def refusal(listen: list[Listen], inherited: list[InheritedSocket], generated: Path) -> str:
    with pytest.raises(ListenError) as raised:
        refuse_moved("shop", listen, Inherited(inherited, []), generated)
    return str(raised.value)


@pytest.mark.parametrize(
    ("addresses", "missing"),
    [
        ([], "unix:/run/pounce/shop.sock"),
        (["localhost:8000", ":80", "unix:/run/shop/web"], ":80, unix:/run/shop/web"),
    ],
)
def test_what_systemd_is_to_open_is_not_bound(
    tmp_path: Path, addresses: list[str], missing: str
) -> None:
    told = refusal(entries(*addresses), [], tmp_path)
    assert told.startswith(f"pounce@shop.socket has not opened {missing}: systemd passed no socket")
    assert MOVE in told


def test_what_only_pounce_can_open_is_bound(tmp_path: Path) -> None:
    own = Listen(address=Address.parse("127.0.0.1:80"), name="theirs")
    refuse_moved("shop", [*entries("localhost:8000", "fd:3"), own], NOTHING, tmp_path)


def test_what_a_wrapper_withholds_is_not_bound(tmp_path: Path) -> None:
    for listen in [], entries(":80"):
        with pytest.raises(ListenError, match="another process, which started this one") as raised:
            refuse_moved("shop", listen, WITHHELD, tmp_path)
        assert "must exec pounce" in str(raised.value)


def test_what_a_wrapper_cannot_pass_on_is_not_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYSTEMD_EXEC_PID")
    for listen, missing in ([], "unix:/run/pounce/shop.sock"), (entries(":80"), ":80"):
        told = refusal(listen, [], tmp_path)
        assert told.startswith("systemd's variables are gone from the environment of this process")
        assert f"{missing} cannot be served" in told


def test_one_of_several_that_systemd_does_not_hold_is_not_bound(tmp_path: Path) -> None:
    with ExitStack() as stack:
        inherited = given(stack, "127.0.0.1")
        held = f"127.0.0.1:{inherited.sock.getsockname()[1]}"
        refuse_moved("shop", entries(held, "localhost:1"), Inherited([inherited], []), tmp_path)
        told = refusal(entries(held, ":80", "127.0.0.1:8001"), [inherited], tmp_path)
        assert told == (
            f"pounce@shop.socket has not opened :80, 127.0.0.1:8001\n  to have it opened: {MOVE}"
        )
        # What has moved is told first.
        assert "no [[listen]] entry names" in refusal(entries(":80"), [inherited], tmp_path)


def test_a_udp_socket_that_systemd_does_not_hold_is_not_bound(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stream = given(stack, "127.0.0.1")
        address = stream.sock.getsockname()
        datagram = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagram.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        datagram.bind(address)
        host = f"127.0.0.1:{address[1]}"
        listen = [Listen(address=Address.parse(host), http3=True, certificate=("a.pem",))]
        both = [stream, InheritedSocket(datagram, "")]
        refuse_moved("shop", listen, Inherited(both, []), tmp_path)
        told = refusal(listen, [stream], tmp_path)
    assert told.startswith(f"pounce@shop.socket has not opened {host} for UDP\n")


def given(stack: ExitStack, host: str) -> InheritedSocket:
    sock = stack.enter_context(
        socket.create_server(
            (host, 0),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            dualstack_ipv6=host == "::",
        )
    )
    return InheritedSocket(sock, "pounce@shop.socket")


def given_unix(stack: ExitStack, path: Path | bytes) -> InheritedSocket:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    sock.bind(path if isinstance(path, bytes) else str(path))
    sock.listen()
    return InheritedSocket(sock, "")


def generated(directory: Path, *addresses: str) -> None:
    """What the generator makes of a file with *addresses*."""
    path = directory / "shop.toml"
    path.write_text("".join(f"[[listen]]\naddress = '{each}'\n" for each in addresses))
    generate(path, directory)


def test_what_was_opened_for_an_entry_that_is_gone_is_refused(tmp_path: Path) -> None:
    name = f"pounce-test-{os.getpid()}"
    with ExitStack() as stack:
        everywhere, loopback, six = (given(stack, host) for host in ("::", "127.0.0.1", "::1"))
        path = given_unix(stack, tmp_path / "50%.sock")
        abstract = given_unix(stack, f"\0{name}".encode())
        ports = [each.sock.getsockname()[1] for each in (everywhere, loopback, six)]
        addresses = [f":{ports[0]}", f"127.0.0.1:{ports[1]}", f"[::1]:{ports[2]}"]
        addresses += [f"unix:{tmp_path}/50%.sock", f"unix:@{name}"]
        generated(tmp_path, *addresses)
        told = refusal([], [everywhere, loopback, six, path, abstract], tmp_path)
    assert told == (
        f"[::]:{ports[0]}, {', '.join(addresses[1:])}: systemd opened this for a [[listen]] "
        "entry that is gone\n"
        f"  to listen on unix:/run/pounce/shop.sock: {MOVE} && rm --force {tmp_path}/50%.sock"
    )


def test_a_socket_of_the_administrator_s_own_is_served(tmp_path: Path) -> None:
    with ExitStack() as stack:
        own, other = given(stack, "127.0.0.1"), given(stack, "127.0.0.1")
        refuse_moved("shop", [], Inherited([own], []), tmp_path)
        port = other.sock.getsockname()[1]
        generated(tmp_path, f"127.0.0.1:{port}")
        refuse_moved("shop", [], Inherited([own], []), tmp_path)
        assert f"127.0.0.1:{port}: systemd opened" in refusal([], [own, other], tmp_path)
