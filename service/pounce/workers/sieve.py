"""What the kernel keeps of the datagrams that come while there are too many.

Datagrams with a connection id that this service has made are kept. Of the others, which are
strangers', as many are kept as there is time for.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pounce.http3 import packets
from pounce.http3.tokens import CONNECTION_ID_SIZE, CheckKeys
from pounce.net.socket_filter import (
    DROP,
    KEEP,
    UDP_HEADER,
    Instruction,
    Op,
    Program,
    by_chance,
    is_from,
)


class Chances(NamedTuple):
    """How much the kernel is to keep of what may begin a connection, and of what may not.

    What may begin one and comes from the network *loud* has a chance of its own, and so has what
    is for one of the connection ids *known*.
    """

    initials: float = 1.0
    others: float = 1.0
    louds: float = 1.0
    loud: bytes = b""
    known: tuple[tuple[bytes, float], ...] = ()

    @property
    def all(self) -> bool:
        """Whether everything is kept."""
        return self[:3] == (1.0, 1.0, 1.0) and not self.known


# Offsets of the fields of a packet (RFC 8999 section 5) in what a filter sees.
_FIRST = UDP_HEADER
_VERSION = _FIRST + 1
_SHORT_ID = _FIRST + 1
_LONG_ID_SIZE = _VERSION + 4
_LONG_ID = _LONG_ID_SIZE + 1


def sieve(keys: CheckKeys, chances: Chances) -> Program:
    """The filter.

    It judges as `pounce.http3.packets.may_begin` and `pounce.http3.tokens.ConnectionIds` do.
    """
    loud = [*is_from(chances.loud, "quiet"), *by_chance(chances.louds)] if chances.loud else []
    return [
        Instruction(Op.LOAD_BYTE, _FIRST),
        Instruction(Op.J_ANY_BIT, packets.LONG, "long", "short"),
        "short",
        Instruction(Op.SET_X, _SHORT_ID),
        Instruction(Op.JA, yes="check"),
        "long",
        Instruction(Op.LOAD_BYTE, _LONG_ID_SIZE),
        Instruction(Op.J_EQUAL, CONNECTION_ID_SIZE, no="initial?"),
        Instruction(Op.SET_X, _LONG_ID),
        "check",
        *_check(keys),
        "known",
        *_choose(chances.known),
        Instruction(Op.JA, yes="keep"),
        "initial?",
        *_is_initial(),
        "initial",
        *loud,
        "quiet",
        *by_chance(chances.initials),
        "other",
        *by_chance(chances.others),
        "keep",
        KEEP,
        "drop",
        DROP,
    ]


def _check(keys: CheckKeys) -> Program:
    """Go to "known" if the id at X is one of this service's; see `pounce.http3.tokens.check`.

    Its last six bytes are in M then: four, and two.
    """
    first, second, third = keys
    return [
        Instruction(Op.LOAD_WORD_X, 0),
        Instruction(Op.MULTIPLY, first),
        Instruction(Op.STORE_M, 0),
        Instruction(Op.LOAD_WORD_X, 4),
        Instruction(Op.STORE_M, 1),
        Instruction(Op.LOAD_HALF_X, 8),
        Instruction(Op.STORE_M, 2),
        Instruction(Op.LOAD_M, 0),
        Instruction(Op.SET_X_M, 1),
        Instruction(Op.XOR_X),
        Instruction(Op.MULTIPLY, second),
        Instruction(Op.STORE_M, 0),
        Instruction(Op.SHIFT_RIGHT, 15),
        Instruction(Op.SET_X_M, 0),
        Instruction(Op.XOR_X),
        Instruction(Op.MULTIPLY, third),
        Instruction(Op.SHIFT_RIGHT, 16),
        Instruction(Op.SET_X_M, 2),
        Instruction(Op.J_EQUAL_X, yes="known"),
        Instruction(Op.JA, yes="initial?"),
    ]


def _choose(known: Sequence[tuple[bytes, float]]) -> Program:
    """Go to "keep" or "drop" by the chance of an id, if it has one."""
    program: list[Instruction | str] = []
    for number, (connection_id, chance) in enumerate(known):
        other = f"not known {number}"
        program += [
            Instruction(Op.LOAD_M, 1),
            Instruction(Op.J_EQUAL, int.from_bytes(connection_id[4:8]), no=other),
            Instruction(Op.LOAD_M, 2),
            Instruction(Op.J_EQUAL, int.from_bytes(connection_id[8:10]), no=other),
            *by_chance(chance, f"kept {number}", f"dropped {number}"),
            f"kept {number}",
            KEEP,
            f"dropped {number}",
            DROP,
            other,
        ]
    return program


def _is_initial() -> Program:
    """Go to "initial" or to "other"."""
    versions: list[Instruction | str] = []
    for version, first in packets.INITIALS:
        number = int.from_bytes(version, "big")
        versions += [
            Instruction(Op.LOAD_WORD, _VERSION),
            Instruction(Op.J_EQUAL, number, no=f"not {number}"),
            Instruction(Op.LOAD_BYTE, _FIRST),
            Instruction(Op.AND, packets.TYPE),
            Instruction(Op.J_EQUAL, first, yes="initial", no="other"),
            f"not {number}",
        ]
    return [
        Instruction(Op.LOAD_LENGTH),
        Instruction(Op.J_AT_LEAST, UDP_HEADER + packets.MIN_INITIAL_DATAGRAM, no="other"),
        Instruction(Op.LOAD_BYTE, _LONG_ID_SIZE),
        Instruction(Op.J_AT_LEAST, packets.MIN_ORIGINAL_ID, no="other"),
        *versions,
        Instruction(Op.JA, yes="other"),
    ]
