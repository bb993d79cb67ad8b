"""Which worker gets which listeners."""

from collections.abc import Iterable

from pounce.config.plan import Listener

Groups = list[list[Listener]]


def group_by_address(listeners: Iterable[Listener]) -> Groups:
    """Those bound to one address (SO_REUSEPORT) are one group; the order is kept."""
    groups: dict[object, list[Listener]] = {}
    for each in listeners:
        sock = each.sock
        groups.setdefault((sock.family, sock.type, sock.getsockname()), []).append(each)
    return list(groups.values())


def largest(groups: Groups) -> int:
    """How many listeners share one address; 1 where each has an address of its own."""
    return max(map(len, groups), default=1)


def share(groups: Groups, slot: int, workers: int) -> list[Listener]:
    """The listeners of the worker in *slot*, of each group.

    A group with a member for each worker is dealt out, so that no member is left unattended;
    a smaller group is shared.
    """
    mine = []
    for group in groups:
        mine += group[slot::workers] if len(group) >= workers else [group[slot % len(group)]]
    return mine
