"""Which worker gets which listeners."""

import socket
from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from pounce.config.plan import Listener
from pounce.config.service import DEFAULT_LISTEN
from pounce.supervisor.sockets import Groups, group_by_address, share


def bound(stack: ExitStack, port: int = 0) -> Listener:
    sock = stack.enter_context(socket.socket())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return Listener(sock, DEFAULT_LISTEN)


def test_sockets_of_one_address_are_one_group_in_their_order(stack: ExitStack) -> None:
    one = bound(stack)
    other = bound(stack)
    again = bound(stack, one.sock.getsockname()[1])
    assert group_by_address([one, other, again]) == [[one, again], [other]]


def test_the_same_port_of_two_families_is_two_groups(stack: ExitStack) -> None:
    four = bound(stack)
    six = stack.enter_context(socket.socket(socket.AF_INET6))
    six.bind(("::1", four.sock.getsockname()[1]))
    other = Listener(six, DEFAULT_LISTEN)
    assert group_by_address([four, other]) == [[four], [other]]


def stand_ins(*sizes: int) -> Groups:
    """Groups of listeners that are told apart and never used."""
    return [[object() for _ in range(size)] for size in sizes]  # type: ignore[misc]


def test_one_socket_is_shared_by_all() -> None:
    [[only]] = groups = stand_ins(1)
    assert [share(groups, slot, 3) for slot in range(3)] == [[only]] * 3


def test_one_socket_each() -> None:
    [[one, two]] = groups = stand_ins(2)
    assert [share(groups, slot, 2) for slot in range(2)] == [[one], [two]]


def test_more_sockets_than_workers() -> None:
    [[a, b, c, d, e]] = groups = stand_ins(5)
    assert [share(groups, slot, 2) for slot in range(2)] == [[a, c, e], [b, d]]


def test_fewer_sockets_than_workers() -> None:
    [[a, b]] = groups = stand_ins(2)
    assert [share(groups, slot, 3) for slot in range(3)] == [[a], [b], [a]]


def test_several_addresses() -> None:
    [[shared], [one, two]] = groups = stand_ins(1, 2)
    assert [share(groups, slot, 2) for slot in range(2)] == [[shared, one], [shared, two]]


@given(sizes=st.lists(st.integers(1, 9), max_size=5), workers=st.integers(1, 9))
def test_nothing_is_unattended_and_everyone_hears_every_address(
    sizes: list[int], workers: int
) -> None:
    groups = stand_ins(*sizes)
    shares = [share(groups, slot, workers) for slot in range(workers)]
    attended = {id(sock) for mine in shares for sock in mine}
    assert attended == {id(sock) for group in groups for sock in group}
    for mine in shares:
        assert len({id(sock) for sock in mine}) == len(mine)
        for group in groups:
            assert set(map(id, group)) & set(map(id, mine))


@given(size=st.integers(1, 9), workers=st.integers(1, 9))
def test_a_socket_for_each_worker_is_nobody_elses(size: int, workers: int) -> None:
    groups = stand_ins(size)
    given_out = [id(sock) for slot in range(workers) for sock in share(groups, slot, workers)]
    if size >= workers:
        assert len(given_out) == len(set(given_out))
    else:
        assert max(map(given_out.count, given_out)) - min(map(given_out.count, given_out)) <= 1
