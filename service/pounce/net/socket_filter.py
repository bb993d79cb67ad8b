"""Programs by which the kernel drops datagrams before they take a place in a socket's queue.

They are of the classic kind, which needs no privilege (bpf(4) of BSD; Linux's
Documentation/networking/filter.rst). A UDP socket's program sees the datagram from its UDP header
on. A program that reads beyond the datagram's end drops it.
"""

import ctypes
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

UDP_HEADER = 8

# <asm-generic/socket.h>; Python has no names for them.
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_PROGRAM = struct.Struct("HP")  # struct sock_fprog, with its padding
_INSTRUCTION = struct.Struct("HBBI")  # struct sock_filter

# <linux/filter.h>
_RANDOM = 0xFFFF_F000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
_IP_HEADER = 0xFFF0_0000  # SKF_NET_OFF
_SOURCE = {4: 12, 8: 8}  # where the sender's address is: all of IPv4's, or 64 bits of IPv6's
_ALL = 0xFFFF_FFFF


class Op(IntEnum):
    """The codes of <linux/bpf_common.h> that are of use here: A and X are registers, M is memory.

    JA jumps, the other J jump to one of two places. Offsets in the datagram are from X where the
    name ends with X.
    """

    LOAD_BYTE = 0x30
    LOAD_WORD = 0x20
    LOAD_HALF_X = 0x48
    LOAD_WORD_X = 0x40
    LOAD_LENGTH = 0x80
    LOAD_M = 0x60
    STORE_M = 0x02
    SET_X = 0x01
    SET_X_M = 0x61
    AND = 0x54
    MULTIPLY = 0x24
    SHIFT_RIGHT = 0x74
    XOR_X = 0xAC
    JA = 0x05
    J_EQUAL = 0x15
    J_EQUAL_X = 0x1D
    J_GREATER = 0x25
    J_AT_LEAST = 0x35
    J_ANY_BIT = 0x45
    RETURN = 0x06


class Instruction(NamedTuple):
    """One instruction; *yes* and *no* are the labels that a jump leads to, "" is what follows."""

    op: Op
    value: int = 0
    yes: str = ""
    no: str = ""


Program = Sequence[Instruction | str]
"""Instructions; a string is a label of what follows it."""

KEEP = Instruction(Op.RETURN, _ALL)
DROP = Instruction(Op.RETURN, 0)


def by_chance(chance: float, keep: str = "keep", drop: str = "drop") -> list[Instruction | str]:
    """Go to the label *keep* with a probability of *chance*, else to *drop*."""
    random = Instruction(Op.LOAD_WORD, _RANDOM)
    return [random, Instruction(Op.J_GREATER, int(chance * _ALL), drop, keep)]


def is_from(network: bytes, other: str) -> list[Instruction | str]:
    """Go to the label *other* if the sender is not in *network*: an IPv4 address, or 64 bits."""
    start = _IP_HEADER + _SOURCE[len(network)]
    program: list[Instruction | str] = []
    for offset in range(0, len(network), 4):
        word = int.from_bytes(network[offset : offset + 4], "big")
        program += [
            Instruction(Op.LOAD_WORD, start + offset),
            Instruction(Op.J_EQUAL, word, no=other),
        ]
    return program


def attach(sock: socket.socket, program: Program) -> None:
    """Have the kernel filter what comes to *sock*; another filter is replaced.

    Raises:
        OSError: the kernel takes no filters, as sandboxes that imitate Linux.
    """
    code = assemble(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    count = len(code) // _INSTRUCTION.size
    option = _PROGRAM.pack(count, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def detach(sock: socket.socket) -> None:
    """Have the kernel keep whatever comes to *sock*."""
    with suppress(OSError):  # there was no filter
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def assemble(program: Program) -> bytes:
    """The program as the kernel reads it."""
    places: dict[str, int] = {}
    instructions: list[Instruction] = []
    for each in program:
        if isinstance(each, str):
            places[each] = len(instructions)
        else:
            instructions.append(each)
    return b"".join(_encode(at, each, places) for at, each in enumerate(instructions, start=1))


def _encode(following: int, instruction: Instruction, places: dict[str, int]) -> bytes:
    op, value, yes, no = instruction
    if op is Op.JA:
        return _INSTRUCTION.pack(op, 0, 0, places[yes] - following)
    far = [places[label] - following if label else 0 for label in (yes, no)]
    return _INSTRUCTION.pack(op, *far, value)
