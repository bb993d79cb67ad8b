"""Opening listening sockets, and checking those that somebody else opened."""

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from pounce.errors import ListenError
from pounce.net.address import Address

# The kernel lowers it to net.core.somaxconn (listen(2)); a reload or a restart must not
# overflow the queue.
BACKLOG = 4096

_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)

_FILE_KINDS = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe or FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFSOCK: "a socket",
}


@dataclass(frozen=True, slots=True)
class InheritedSocket:
    """A listening (or UDP) socket and its FileDescriptorName= ("" where systemd gave none)."""

    sock: socket.socket
    name: str


def open_listeners(address: Address) -> list[socket.socket]:
    """Bind and listen on *address*; a host name may stand for several sockets.

    Raises ListenError, which says what is in the way and what to do.
    """
    if address.kind == "fd":
        return [adopt(address.fd)]
    try:
        if address.kind == "unix":
            return [_open_unix(address)]
        return _open_all(_resolve(address))
    except (OSError, UnicodeError) as error:  # a name that IDNA cannot encode
        raise _refusal(error, address) from error


def open_datagrams(address: Address, count: int) -> list[socket.socket]:
    """Bind *count* UDP sockets to *address*; a host name may stand for several addresses.

    The kernel shares out what comes among them (SO_REUSEPORT, socket(7)). Raises ListenError,
    as `open_listeners` does.
    """
    opened: list[socket.socket] = []
    try:
        for family, name in _resolve(address):
            opened.extend(_open_udp(family, name) for _ in range(count))
    except (OSError, UnicodeError) as error:
        for sock in opened:
            sock.close()
        raise _refusal(error, address, "UDP on ") from error
    return opened


def open_private(path: Path) -> socket.socket:
    """Listen on the unix socket *path*, which only root and this process's user can connect to.

    Raises ListenError, as `open_listeners` does.
    """
    address = Address("unix", path=str(path))
    try:
        return _open_unix(address, 0o600)
    except OSError as error:
        raise _refusal(error, address) from error


def adopt(descriptor: int) -> socket.socket:
    """The listening stream socket that is open as *descriptor*; raises ListenError if none is."""
    try:
        kind = os.fstat(descriptor).st_mode
    except OSError as error:
        raise ListenError(
            f"descriptor {descriptor} is not open",
            hint="whoever starts pounce must pass the socket as this descriptor",
        ) from error
    if not stat.S_ISSOCK(kind):
        raise ListenError(
            f"descriptor {descriptor} is {file_kind(kind)}, not a socket",
            hint="give the number of a listening socket",
        )
    sock = socket.socket(fileno=descriptor)
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        sock.detach()
        raise ListenError(
            f"descriptor {descriptor} is a socket that does not listen",
            hint="give the number of a listening TCP or unix stream socket",
        )
    sock.setblocking(False)
    os.set_inheritable(descriptor, False)
    return sock


def close_listener(sock: socket.socket) -> None:
    """Close a listener that pounce opened; a unix socket's path goes with it."""
    path = sock.getsockname() if sock.family == socket.AF_UNIX else b""
    if isinstance(path, str):  # an abstract socket's name is bytes, and ends with the socket
        # The directory may be closed to the service by now; a stale socket is no obstacle later.
        with contextlib.suppress(OSError):
            Path(path).unlink()
    sock.close()


def why_unusable(sock: socket.socket) -> str:
    """What keeps *sock* from being served; "" if nothing does."""
    if sock.family not in _FAMILIES:
        return f"a socket of address family {_label(sock.family)}"
    if sock.type == socket.SOCK_DGRAM and sock.family != socket.AF_UNIX:
        return ""
    if sock.type != socket.SOCK_STREAM:
        return f"an {_label(sock.family)} socket of type {_label(sock.type)}"
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "a stream socket that does not listen (the socket unit needs Accept=no)"
    return ""


def unusable(descriptor: int, what: str) -> ListenError:
    """The error for a *descriptor* that is *what*, and cannot be served."""
    return ListenError(
        f"inherited descriptor {descriptor} is {what}",
        hint="a listening TCP or unix stream socket, or a UDP socket, can be served",
    )


def _label(value: int) -> str:
    """An address family's or socket type's name; its number where Python knows no name."""
    return getattr(value, "name", str(value))


def _resolve(address: Address) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    if not address.host:
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        return [(family, ("", address.port))]
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    # A set's order is random; a dict keeps the resolver's and drops what it repeats.
    return list(dict.fromkeys((info[0], (str(info[4][0]), int(info[4][1]))) for info in found))


def _open_all(
    found: list[tuple[socket.AddressFamily, tuple[str, int]]],
) -> list[socket.socket]:
    opened: list[socket.socket] = []
    absent: OSError | None = None
    for family, address in found:
        try:
            opened.append(_open_tcp(family, address))
        except OSError as error:
            absent = error
            # A name may stand for an address that this machine does not have, as localhost
            # does for ::1 where there is no IPv6.
            if error.errno != errno.EADDRNOTAVAIL:
                break
    if absent is not None and (not opened or absent.errno != errno.EADDRNOTAVAIL):
        for sock in opened:
            sock.close()
        raise absent
    return opened


def _open_tcp(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    every_interface = family == socket.AF_INET6 and not address[0]
    sock = socket.create_server(
        address, family=family, backlog=BACKLOG, dualstack_ipv6=every_interface
    )
    sock.setblocking(False)
    return sock


def _open_udp(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, bool(address[0]))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(address: Address, mode: int = 0o777) -> socket.socket:
    if not address.is_abstract:
        _remove_stale(Path(address.path))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The path gets this mode, less the umask, as it comes into being: unlike a chmod(2)
        # afterwards that leaves no moment in which somebody else could connect.
        os.fchmod(sock.fileno(), mode)
        sock.bind(address.sun_path)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more; refuse anything else."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ListenError(
            f"cannot listen on unix:{path}: there is {file_kind(kind)} at that path",
            hint="remove it, or choose another path",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Where nobody accepts and the queue is full, connecting would block.
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            pass
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def is_in_use(error: ListenError) -> bool:
    """Whether *error* is about an address at which somebody listens already."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE


def _refusal(error: OSError | UnicodeError, address: Address, what: str = "") -> ListenError:
    return ListenError(
        f"cannot listen on {what}{address}: {_reason(error)}", hint=_advice(error, address)
    )


def _reason(error: OSError | UnicodeError) -> str:
    # create_server() adds the address to strerror, but that is in the message already.
    if isinstance(error, UnicodeError):
        return "that is not a host name"
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _advice(error: OSError | UnicodeError, address: Address) -> str:
    if isinstance(error, (UnicodeError, socket.gaierror)):
        return "the host must be an address of this machine, or a name of one"
    return {
        errno.EADDRINUSE: "another process listens there already; stop it, or choose another",
        errno.EADDRNOTAVAIL: "this machine has no such address",
        errno.EACCES: (
            "let systemd open the socket (a .socket unit takes an IP address, no name), or use a "
            "port from 1024 on"
            if address.kind == "tcp"
            else "the service's user may not write in that directory"
        ),
        errno.ENOENT: "the directory does not exist",
    }.get(error.errno or 0, "")


def file_kind(mode: int) -> str:
    """What a file of *mode* (st_mode, inode(7)) is, for a person."""
    return _FILE_KINDS.get(stat.S_IFMT(mode), "something else")
