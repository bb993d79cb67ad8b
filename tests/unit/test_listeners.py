"""Opening listeners on loopback and in temporary directories, and what is in the way."""

import os
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from pounce.errors import ListenError
from pounce.net.address import Address
from pounce.net.listeners import adopt, close_listener, open_listeners


def opened(stack: ExitStack, address: Address) -> list[socket.socket]:
    return [stack.enter_context(sock) for sock in open_listeners(address)]


def tcp(host: str, port: int = 0) -> Address:
    return Address("tcp", host=host, port=port)


def unix(path: Path) -> Address:
    return Address("unix", path=str(path))


def refusal(address: Address) -> tuple[str, str]:
    with pytest.raises(ListenError) as caught:
        open_listeners(address)
    assert caught.value.exit_code == 71
    return caught.value.message, caught.value.hint


def answers(stack: ExitStack, listener: socket.socket, address: tuple[str, int] | str) -> bool:
    client = stack.enter_context(socket.socket(listener.family))
    client.settimeout(25)
    client.connect(address)
    connection, _ = listener.accept()
    stack.enter_context(connection)
    return True


def port_free_in_both_families() -> int:
    """A port that no other program listens on, in either family, when this returns."""
    while True:
        with socket.socket(socket.AF_INET6) as six, socket.socket(socket.AF_INET) as four:
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            six.bind(("::", 0))
            with suppress(OSError):  # a listener on the loopback has it
                four.bind(("0.0.0.0", six.getsockname()[1]))
                port: int = four.getsockname()[1]
                return port


# TCP


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_of_this_machine(stack: ExitStack, host: str) -> None:
    [listener] = opened(stack, tcp(host))
    name = listener.getsockname()
    assert name[0] == host
    assert not listener.getblocking()
    assert not listener.get_inheritable()
    assert answers(stack, listener, name[:2])


def test_every_interface_in_both_families(stack: ExitStack) -> None:
    [listener] = opened(stack, tcp(""))
    port = listener.getsockname()[1]
    assert listener.getsockname()[0] == "::"
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        client = stack.enter_context(socket.socket(family))
        client.connect((host, port))
        stack.enter_context(listener.accept()[0])


def test_every_interface_of_one_family(stack: ExitStack) -> None:
    port = port_free_in_both_families()
    opened(stack, tcp("::", port))
    [four] = opened(stack, tcp("0.0.0.0", port))
    assert four.getsockname() == ("0.0.0.0", port)


def test_a_host_name_is_all_of_its_addresses_once(stack: ExitStack) -> None:
    found = {info[4][0] for info in socket.getaddrinfo("localhost", 0)}
    listeners = opened(stack, tcp("localhost"))
    assert sorted(sock.getsockname()[0] for sock in listeners) == sorted(map(str, found))


def test_a_port_in_use(stack: ExitStack) -> None:
    [listener] = opened(stack, tcp("127.0.0.1"))
    port = listener.getsockname()[1]
    assert refusal(tcp("127.0.0.1", port)) == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use",
        "another process listens there already; stop it, or choose another",
    )


def test_a_port_can_be_listened_on_again_at_once(stack: ExitStack) -> None:
    """Connections in TIME_WAIT (SO_REUSEADDR in socket(7)) are not in the way."""
    [listener] = open_listeners(tcp("127.0.0.1"))
    port = listener.getsockname()[1]
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    connection, _ = listener.accept()
    connection.close()  # the side that closes first waits
    assert client.recv(1) == b""
    listener.close()
    assert opened(stack, tcp("127.0.0.1", port))


def test_an_address_of_another_machine() -> None:
    assert refusal(tcp("192.0.2.1", 8000)) == (
        "cannot listen on 192.0.2.1:8000: Cannot assign requested address",
        "this machine has no such address",
    )


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 64])
def test_a_host_that_does_not_exist(host: str) -> None:
    message, hint = refusal(tcp(host, 8000))
    assert message.startswith(f"cannot listen on {host}:8000: ")
    assert hint == "the host must be an address of this machine, or a name of one"


# Unix sockets


def test_a_unix_socket(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "shop.sock"
    [listener] = opened(stack, unix(path))
    assert not listener.getblocking()
    assert answers(stack, listener, str(path))


def test_closing_removes_the_path(tmp_path: Path) -> None:
    path = tmp_path / "shop.sock"
    [listener] = open_listeners(unix(path))
    close_listener(listener)
    assert not path.exists()


def test_closing_one_whose_path_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "shop.sock"
    [listener] = open_listeners(unix(path))
    path.unlink()
    close_listener(listener)
    assert listener.fileno() == -1


def test_a_stale_socket_is_replaced(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "shop.sock"
    [listener] = open_listeners(unix(path))
    listener.close()
    assert path.exists()
    [listener] = opened(stack, unix(path))
    assert answers(stack, listener, str(path))


def test_a_live_socket_is_left_alone(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "shop.sock"
    [listener] = opened(stack, unix(path))
    assert refusal(unix(path)) == (
        f"cannot listen on unix:{path}: Address already in use",
        "another process listens there already; stop it, or choose another",
    )
    probe, _ = listener.accept()
    probe.close()
    assert answers(stack, listener, str(path))


def test_a_live_socket_whose_queue_is_full(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "shop.sock"
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(path))
    listener.listen(0)
    stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
    message, _ = refusal(unix(path))
    assert message == f"cannot listen on unix:{path}: Address already in use"
    assert path.is_socket()


def test_a_socket_of_another_type_is_left_alone(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    log.bind(str(path))
    message, _ = refusal(unix(path))
    assert message == f"cannot listen on unix:{path}: Protocol wrong type for socket"
    assert path.is_socket()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(file)
    for path, kind in (
        (file, "a regular file"),
        (tmp_path, "a directory"),
        (link, "a symbolic link"),
    ):
        assert refusal(unix(path)) == (
            f"cannot listen on unix:{path}: there is {kind} at that path",
            "remove it, or choose another path",
        )
    assert file.read_text() == "precious"


def test_a_missing_directory(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "shop.sock"
    assert refusal(unix(path)) == (
        f"cannot listen on unix:{path}: No such file or directory",
        "the directory does not exist",
    )


def test_a_directory_of_somebody_else(stack: ExitStack, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.geteuid() == 0:  # who may write anywhere
        stack.callback(os.seteuid, 0)
        os.seteuid(65534)
    path = tmp_path / "shop.sock"
    assert refusal(unix(path)) == (
        f"cannot listen on unix:{path}: Permission denied",
        "the service's user may not write in that directory",
    )


# Descriptors


def test_a_listening_socket_is_adopted(stack: ExitStack) -> None:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    descriptor = os.dup(listener.fileno())
    os.set_inheritable(descriptor, True)
    [adopted] = opened(stack, Address("fd", fd=descriptor))
    assert adopted.fileno() == descriptor
    assert adopted.getsockname() == listener.getsockname()
    assert not adopted.getblocking()
    assert not adopted.get_inheritable()


def unusable(descriptor: int) -> str:
    with pytest.raises(ListenError) as caught:
        adopt(descriptor)
    return caught.value.message


def test_a_closed_descriptor() -> None:
    descriptor = os.open("/dev/null", os.O_RDONLY)
    os.close(descriptor)
    assert unusable(descriptor) == f"descriptor {descriptor} is not open"


def test_a_descriptor_that_is_no_socket(stack: ExitStack, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    (tmp_path / "file").touch()
    kinds = {
        reader: "a pipe or FIFO",
        writer: "a pipe or FIFO",
        os.open(tmp_path / "file", os.O_RDONLY): "a regular file",
        os.open(tmp_path, os.O_RDONLY): "a directory",
        os.open("/dev/null", os.O_RDONLY): "a character device",
    }
    for descriptor, kind in kinds.items():
        stack.callback(os.close, descriptor)
        assert unusable(descriptor) == f"descriptor {descriptor} is {kind}, not a socket"


def test_a_socket_that_does_not_listen_stays_open(stack: ExitStack) -> None:
    for sock in (
        *socket.socketpair(),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        socket.socket(),
    ):
        stack.enter_context(sock)
        descriptor = sock.fileno()
        assert unusable(descriptor) == f"descriptor {descriptor} is a socket that does not listen"
        os.fstat(descriptor)
