"""Which sockets a service serves: what it was given, matched to what its configuration names."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from pounce.assembly.sockets import (
    Listeners,
    collect_listeners,
    create_listeners,
    describe,
    match_listeners,
)
from pounce.config.plan import Listener
from pounce.config.service import DEFAULT_LISTEN, Listen, ServerConfig
from pounce.errors import ListenError
from pounce.net.address import Address
from pounce.net.listeners import InheritedSocket
from tests.service import free_port

Logged = pytest.LogCaptureFixture


def given(stack: ExitStack, host: str = "127.0.0.1", name: str = "") -> InheritedSocket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = stack.enter_context(socket.socket(family))
    sock.bind((host, 0))
    sock.listen()
    return InheritedSocket(sock, name)


def given_unix(stack: ExitStack, path: Path | bytes) -> InheritedSocket:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    sock.bind(path if isinstance(path, bytes) else str(path))
    sock.listen()
    return InheritedSocket(sock, "")


def given_udp(stack: ExitStack, port: int = 0) -> InheritedSocket:
    sock = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    sock.bind(("127.0.0.1", port))
    return InheritedSocket(sock, "")


def port_of(inherited: InheritedSocket) -> int:
    port: int = inherited.sock.getsockname()[1]
    return port


def entry(address: str, name: str = "") -> Listen:
    return Listen(address=Address.parse(address), name=name)


def collected(
    stack: ExitStack, entries: list[Listen], inherited: list[InheritedSocket]
) -> Listeners:
    listeners = collect_listeners(entries, inherited)
    stack.callback(listeners.close)
    return listeners


def socks(listeners: list[Listener]) -> list[socket.socket]:
    return [each.sock for each in listeners]


def test_an_inherited_socket_by_its_address(stack: ExitStack, caplog: Logged) -> None:
    inherited = given(stack)
    wanted = entry(f"127.0.0.1:{port_of(inherited)}")
    listeners = collected(stack, [wanted], [inherited])
    assert listeners == Listeners([Listener(inherited.sock, wanted)])
    assert not inherited.sock.getblocking()
    assert not caplog.records


def test_an_inherited_socket_by_its_name(stack: ExitStack, caplog: Logged) -> None:
    inherited = given(stack, name="web")
    wanted = entry("127.0.0.1:1", "web")
    listeners = collected(stack, [wanted], [inherited])
    assert listeners == Listeners([Listener(inherited.sock, wanted)])
    assert not caplog.records


def test_an_inherited_socket_by_a_host_name(stack: ExitStack) -> None:
    inherited = given(stack)
    listeners = collected(stack, [entry(f"localhost:{port_of(inherited)}")], [inherited])
    assert listeners.own == []


@pytest.mark.parametrize("host", ["::", "0.0.0.0"])
def test_an_inherited_socket_on_every_interface(stack: ExitStack, host: str) -> None:
    inherited = given(stack, host)
    listeners = collected(stack, [entry(f":{port_of(inherited)}")], [inherited])
    assert listeners.own == []


def test_an_inherited_unix_socket(stack: ExitStack, tmp_path: Path, caplog: Logged) -> None:
    inherited = given_unix(stack, tmp_path / "shop.sock")
    wanted = entry(f"unix:{tmp_path}/shop.sock")
    listeners = collected(stack, [wanted], [inherited])
    assert listeners == Listeners([Listener(inherited.sock, wanted)])
    assert not caplog.records


def test_an_inherited_abstract_socket(stack: ExitStack, caplog: Logged) -> None:
    name = f"pounce-test-{os.getpid()}"
    inherited = given_unix(stack, b"\0" + name.encode())
    wanted = entry(f"unix:@{name}")
    listeners = collected(stack, [wanted], [inherited])
    assert listeners == Listeners([Listener(inherited.sock, wanted)])
    assert describe(inherited.sock) == f"unix:@{name}"
    assert not caplog.records


def test_several_sockets_of_one_name(stack: ExitStack) -> None:
    inherited = [given(stack, name="web"), given(stack, name="web")]
    listeners = collected(stack, [entry("127.0.0.1:1", "web")], inherited)
    assert socks(listeners.served) == [each.sock for each in inherited]
    assert listeners.own == []


def test_what_was_not_inherited_is_opened(stack: ExitStack) -> None:
    port = free_port()
    listeners = collected(stack, [entry(f"127.0.0.1:{port}")], [])
    assert [sock.getsockname() for sock in listeners.own] == [("127.0.0.1", port)]
    [own] = listeners.own
    assert listeners.served == [Listener(own, entry(f"127.0.0.1:{port}"), closes=True)]


def test_the_first_of_two_entries_that_want_a_socket_has_it(stack: ExitStack) -> None:
    inherited = given(stack, "0.0.0.0")
    entries = [entry(f"{host}:{port_of(inherited)}") for host in ("0.0.0.0", "")]
    listeners = collected(stack, entries, [inherited])
    assert listeners.served == [Listener(inherited.sock, entries[0])]


# What no entry names is not served


def refusal(entries: list[Listen], inherited: list[InheritedSocket]) -> str:
    """Why *inherited* is refused; nothing was opened for *entries* meanwhile."""
    with pytest.raises(ListenError) as raised:
        collect_listeners(entries, inherited)
    return str(raised.value)


@pytest.mark.parametrize("name", ["", "other"])
def test_a_socket_that_no_entry_names(stack: ExitStack, name: str) -> None:
    inherited = given(stack, name=name)
    port = free_port()
    assert refusal([entry(f"127.0.0.1:{port}", "web")], [inherited]) == (
        f"no [[listen]] entry names 127.0.0.1:{port_of(inherited)}, which pounce was given to "
        f"serve; the entries name 127.0.0.1:{port}\n"
        "  to move addresses: systemctl daemon-reload && systemctl restart (the socket unit and "
        "the service); if a drop-in of the socket unit opens this one, add an entry for it"
    )


def test_the_units_that_have_to_be_restarted_are_named(stack: ExitStack) -> None:
    passed = [given(stack, name=name) for name in ("pounce@shop.socket", "pounce@shop.socket", "x")]
    commands = "daemon-reload && systemctl restart pounce@shop.socket pounce@shop.service;"
    assert commands in refusal([entry("127.0.0.1:1")], passed)


@pytest.mark.parametrize(
    ("bound", "named"),
    [
        ("::", "127.0.0.1"),
        ("::", "0.0.0.0"),
        ("::", "[::1]"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "[::]"),
        ("127.0.0.1", ""),
        ("127.0.0.1", "0.0.0.0"),
        ("127.0.0.1", "[::1]"),
        ("::1", "127.0.0.1"),
        ("::1", "[::]"),
        ("::ffff:127.0.0.1", "[::1]"),
        ("127.0.0.1", "no-such-host.invalid"),
    ],
)
def test_a_socket_at_another_address_of_the_same_port(
    stack: ExitStack, bound: str, named: str
) -> None:
    inherited = given(stack, bound)
    assert "names" in refusal([entry(f"{named}:{port_of(inherited)}")], [inherited])


@pytest.mark.parametrize(
    ("bound", "named"),
    [
        ("::", "[::]"),
        ("::", "[0:0:0:0:0:0:0:0]"),
        ("0.0.0.0", "0.0.0.0"),
        ("::ffff:0.0.0.0", ""),
        ("::ffff:0.0.0.0", "0.0.0.0"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "[::ffff:127.0.0.1]"),
        ("::1", "[0:0:0:0:0:0:0:1]"),
    ],
)
def test_one_address_may_be_written_in_several_ways(
    stack: ExitStack, bound: str, named: str
) -> None:
    inherited = given(stack, bound)
    wanted = entry(f"{named}:{port_of(inherited)}")
    listeners = collected(stack, [wanted], [inherited])
    assert listeners == Listeners([Listener(inherited.sock, wanted)])


def test_a_path_may_lead_through_a_link(stack: ExitStack, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    inherited = given_unix(stack, tmp_path / "run" / "shop.sock")
    listeners = collected(stack, [entry(f"unix:{tmp_path}//link/shop.sock")], [inherited])
    assert listeners.own == []


def test_another_path(stack: ExitStack, tmp_path: Path) -> None:
    inherited = given_unix(stack, tmp_path / "one.sock")
    assert f"names unix:{tmp_path}/one.sock, " in refusal(
        [entry(f"unix:{tmp_path}/other.sock")], [inherited]
    )
    assert not (tmp_path / "other.sock").exists()


def test_a_udp_socket_that_no_entry_names(stack: ExitStack) -> None:
    tcp, udp = given(stack), given_udp(stack)
    assert f"names 127.0.0.1:{port_of(udp)}, " in refusal(
        [entry(f"127.0.0.1:{port_of(tcp)}")], [tcp, udp]
    )


def test_all_are_served_where_nothing_is_configured(stack: ExitStack, caplog: Logged) -> None:
    inherited = [given(stack), given(stack, "::1"), given_udp(stack)]
    listeners = collected(stack, [], inherited)
    assert socks(listeners.served) == [each.sock for each in inherited[:2]]
    assert listeners.held == [inherited[2].sock]
    assert listeners.own == []
    assert not caplog.records


# Sockets that a program has opened


def secure(address: str, *, http3: bool = False, name: str = "") -> Listen:
    return Listen(Address.parse(address), certificate=("site.pem",), http3=http3, name=name)


def test_a_programs_sockets_are_matched_by_address(stack: ExitStack, tmp_path: Path) -> None:
    tcp = given(stack).sock
    udp = given_udp(stack, tcp.getsockname()[1]).sock
    local = given_unix(stack, tmp_path / "s").sock
    web = secure(f"127.0.0.1:{tcp.getsockname()[1]}", http3=True, name="web")
    inside = entry(f"unix:{tmp_path}/s")
    found = match_listeners([web, inside], [tcp, udp, local])
    assert found.served == [Listener(tcp, web), Listener(udp, web), Listener(local, inside)]
    assert (found.held, found.own) == ([], [])
    assert not tcp.getblocking()


def test_an_entry_for_a_free_port_gets_what_no_other_wants(stack: ExitStack) -> None:
    one, other, six = (given(stack, host).sock for host in ("127.0.0.1", "127.0.0.1", "::1"))
    free, exact = secure("127.0.0.1:0"), entry(f"127.0.0.1:{other.getsockname()[1]}")
    found = match_listeners([free, exact], [one, other, six])
    assert found.served[:2] == [Listener(one, free), Listener(other, exact)]
    assert str(found.served[2].entry.address) == f"fd:{six.fileno()}"


def test_what_nobody_serves_is_warned_of(stack: ExitStack, caplog: Logged) -> None:
    tcp, other = given(stack).sock, given(stack).sock
    udp = given_udp(stack, other.getsockname()[1]).sock
    port = tcp.getsockname()[1]
    found = match_listeners([secure(f"127.0.0.1:{port}", http3=True)], [tcp, other, udp])
    assert socks(found.served) == [tcp, other]
    assert found.held == [udp]
    other_port = other.getsockname()[1]
    assert [record.getMessage() for record in caplog.records] == [
        f"http://127.0.0.1:{other_port} is in no [[listen]] entry: its options are the defaults",
        f"udp 127.0.0.1:{other_port} is held but not served: no entry wants HTTP/3",
        f"127.0.0.1:{port} is not served by HTTP/3: there is no UDP socket for it",
    ]


def test_a_socket_that_does_not_listen_is_refused() -> None:
    with socket.socket() as sock, pytest.raises(ListenError, match="that does not listen"):
        match_listeners([], [sock])


def test_what_is_configured_is_opened_for_a_program(stack: ExitStack) -> None:
    port = free_port()
    config = ServerConfig(listen=(secure(f"127.0.0.1:{port}", http3=True),), workers=2)
    sockets = create_listeners(config)
    for sock in sockets:
        stack.enter_context(sock)
    assert [sock.type for sock in sockets] == [socket.SOCK_STREAM, *[socket.SOCK_DGRAM] * 2]
    assert {sock.getsockname() for sock in sockets} == {("127.0.0.1", port)}


def test_a_udp_socket_does_not_stand_for_the_tcp_one(stack: ExitStack) -> None:
    port = free_port()
    udp = given_udp(stack, port)
    listeners = collected(stack, [entry(f"127.0.0.1:{port}")], [udp])
    assert [sock.getsockname() for sock in listeners.own] == [("127.0.0.1", port)]
    assert listeners.held == [udp.sock]


def test_neither_configured_nor_inherited(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setattr("pounce.assembly.sockets.DEFAULT_LISTEN", entry(f"127.0.0.1:{port}"))
    listeners = collected(stack, [], [])
    assert [sock.getsockname() for sock in listeners.own] == [("127.0.0.1", port)]
    assert socks(listeners.served) == listeners.own


def test_the_default_address() -> None:
    assert str(DEFAULT_LISTEN.address) == "127.0.0.1:8000"


def test_closing_leaves_what_was_given(stack: ExitStack, tmp_path: Path) -> None:
    inherited = given_unix(stack, tmp_path / "inherited.sock")
    passed = given_unix(stack, tmp_path / "passed.sock")
    descriptor = os.dup(passed.sock.fileno())
    listeners = collect_listeners(
        [
            entry(f"unix:{tmp_path}/inherited.sock"),
            entry(f"fd:{descriptor}"),
            entry(f"unix:{tmp_path}/own.sock"),
        ],
        [inherited],
    )
    assert len(listeners.served) == 3
    listeners.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inherited.sock", "passed.sock"]
    assert inherited.sock.fileno() != -1
    listeners.served[1].sock.close()


def test_what_was_opened_is_closed_when_the_next_cannot_be(
    stack: ExitStack, tmp_path: Path
) -> None:
    entries = [entry(f"unix:{tmp_path}/own.sock"), entry(f"unix:{tmp_path}/gone/own.sock")]
    with pytest.raises(ListenError):
        collect_listeners(entries, [])
    assert list(tmp_path.iterdir()) == []


def test_a_configured_host_that_does_not_exist() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on no-such-host\.invalid"):
        collect_listeners([entry("no-such-host.invalid:8000")], [])


def test_describe(stack: ExitStack, tmp_path: Path) -> None:
    four, six, udp = given(stack), given(stack, "::1"), given_udp(stack)
    local = given_unix(stack, tmp_path / "shop.sock")
    assert describe(four.sock) == f"http://127.0.0.1:{port_of(four)}"
    assert describe(six.sock) == f"http://[::1]:{port_of(six)}"
    assert describe(udp.sock) == f"udp 127.0.0.1:{port_of(udp)}"
    assert describe(local.sock) == f"unix:{tmp_path}/shop.sock"
