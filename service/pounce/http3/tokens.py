"""Connection ids, reset tokens and Retry tokens: what clients hold of a service.

All of it follows from one secret of the service, so every worker, of every generation and, where
the secret is kept, of the next run, can tell what it did not make itself.
"""

import hashlib
import hmac
import os
import struct
from collections.abc import Callable
from typing import NamedTuple

SECRET_SIZE = 32

CONNECTION_ID_SIZE = 10
_NONCE_SIZE = 6
_ROUTE = struct.Struct("!H")  # the mailbox
_CHECK = struct.Struct("!H")
_CHECKED = struct.Struct("!II")  # what the check is made of: everything before it
_WORD = 0xFFFF_FFFF
RESET_TOKEN_SIZE = 16  # RFC 9000 section 10.3

# RFC 9000 section 8.1.3: a Retry token is used at once, so it need not live long. Seconds.
_RETRY_LIFETIME = 15
_RETRY_HEAD = struct.Struct("!IB")
_MAC_SIZE = 16


CheckKeys = tuple[int, int, int]
"""What `check` multiplies by."""


def check(data: bytes, keys: CheckKeys) -> int:
    """Two bytes that tell an id of this service from garbage.

    The kernel has to compute them, whose filters have 32-bit arithmetic
    and nothing else. No secret is safe behind it: whoever has connections of their own may find out
    how more ids are made, but can as well repeat those that they have.
    """
    first: int
    second: int
    first, second = _CHECKED.unpack_from(data)
    mixed = ((first * keys[0] ^ second) & _WORD) * keys[1] & _WORD
    return ((mixed ^ mixed >> 15) * keys[2] & _WORD) >> 16


class ConnectionIds:
    """Ids that name the mailbox of the worker that serves the connection.

    Six random bytes, then the mailbox, hidden by what the secret makes of those bytes: nobody
    else can see which ids lead to the same worker. Then a check of all that.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = secret
        digest = hashlib.blake2s(key=secret, person=b"check", digest_size=12).digest()
        first, second, third = struct.unpack("!III", digest)
        self.check_keys: CheckKeys = (first | 1, second | 1, third | 1)
        self._reset_key = hashlib.blake2s(key=secret, person=b"reset").digest()

    def make(self, mailbox: int) -> bytes:
        """A new id."""
        nonce = os.urandom(_NONCE_SIZE)
        data = nonce + self._hide(nonce, _ROUTE.pack(mailbox))
        return data + _CHECK.pack(check(data, self.check_keys))

    def mailbox(self, connection_id: bytes) -> int | None:
        """Which mailbox *connection_id* names; None if it was not made by this service."""
        if len(connection_id) != CONNECTION_ID_SIZE:
            return None
        if connection_id[_CHECKED.size :] != _CHECK.pack(check(connection_id, self.check_keys)):
            return None
        nonce, hidden = connection_id[:_NONCE_SIZE], connection_id[_NONCE_SIZE : _CHECKED.size]
        (mailbox,) = _ROUTE.unpack(self._hide(nonce, hidden))
        return int(mailbox)

    def reset_token(self, connection_id: bytes) -> bytes:
        """What only somebody who knows the secret can send to end the connection."""
        return hashlib.blake2s(
            connection_id, key=self._reset_key, digest_size=RESET_TOKEN_SIZE
        ).digest()

    def _hide(self, nonce: bytes, route: bytes) -> bytes:
        mask = hashlib.blake2s(
            nonce, key=self._key, digest_size=_ROUTE.size, person=b"route"
        ).digest()
        return bytes(a ^ b for a, b in zip(route, mask, strict=True))


class RetryTokens:
    """Proof that a client receives what is sent to its address (RFC 9000 section 8.1.2).

    *clock* gives seconds that every process of this machine agrees upon.
    """

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        self._key = hashlib.blake2s(key=secret, person=b"retry").digest()
        self._clock = clock

    def make(self, address: bytes, original: bytes, chosen: bytes) -> bytes:
        """For the client at *address*, whose first packet was for the id *original*.

        *chosen* is the id that it shall use now.
        """
        head = _RETRY_HEAD.pack(int(self._clock()) + _RETRY_LIFETIME, len(original)) + original
        return head + self._mac(head, address, chosen)

    def original(self, token: bytes, address: bytes, chosen: bytes) -> bytes | None:
        """The id that the client used first; None if *token* is not its proof, or too old."""
        if len(token) < _RETRY_HEAD.size + _MAC_SIZE:
            return None
        head, mac = token[:-_MAC_SIZE], token[-_MAC_SIZE:]
        if not hmac.compare_digest(mac, self._mac(head, address, chosen)):
            return None
        until, size = _RETRY_HEAD.unpack_from(head)
        original = head[_RETRY_HEAD.size :]
        return original if len(original) == size and self._clock() <= until else None

    def _mac(self, head: bytes, address: bytes, chosen: bytes) -> bytes:
        text = bytes((len(address), len(chosen))) + address + chosen + head
        return hashlib.blake2s(text, key=self._key, digest_size=_MAC_SIZE).digest()


class Identity(NamedTuple):
    """One worker's part in it; see pounce.http3.quic.Identities."""

    ids: ConnectionIds
    mailbox: int

    def new_id(self) -> bytes:
        """A connection id that leads here."""
        return self.ids.make(self.mailbox)

    def reset_token(self, connection_id: bytes) -> bytes:
        """Its stateless reset token."""
        return self.ids.reset_token(connection_id)
