"""The sockets' side, as an HTTP/3 connection sees it."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, TypeVar

Connection = TypeVar("Connection", contravariant=True)
"""What has an outlet; pounce.http3.connection has the only one."""


class Path(NamedTuple):
    """Between which two addresses datagrams go, and by which listener: its number here."""

    listener: int
    peer: Any
    local: Any
    client: tuple[str, int]
    server: tuple[str, int]


class Outlet(Protocol[Connection]):
    """Where a connection's datagrams go out, and who brings those for it."""

    def send(self, datagrams: Iterable[tuple[bytes, Path]]) -> None:
        """Send *datagrams*, each to its path's peer."""

    def route(self, connection_id: bytes, connection: Connection) -> None:
        """Bring datagrams for *connection_id* to *connection*."""

    def unroute(self, connection_id: bytes) -> None:
        """Forget *connection_id*."""

    def schedule(self, connection: Connection) -> None:
        """Call the connection's `flush` soon."""

    def settled(self, connection: Connection) -> None:
        """The connection's handshake is over, one way or another."""
