"""Which worker gets which listening sockets."""

import socket
from collections.abc import Sequence

Groups = list[list[socket.socket]]


def group_by_address(sockets: Sequence[socket.socket]) -> Groups:
    """Sockets bound to one address (SO_REUSEPORT) are one group; the order is kept."""
    groups: dict[object, list[socket.socket]] = {}
    for sock in sockets:
        groups.setdefault((sock.family, sock.type, sock.getsockname()), []).append(sock)
    return list(groups.values())


def share(groups: Groups, slot: int, workers: int) -> list[socket.socket]:
    """The sockets of the worker in *slot*, of each group.

    A group with a member for each worker is dealt out, so that no member is left unattended;
    a smaller group is shared.
    """
    mine = []
    for group in groups:
        mine += group[slot::workers] if len(group) >= workers else [group[slot % len(group)]]
    return mine
