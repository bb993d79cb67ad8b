"""The generator that opens each instance's addresses in its socket unit: systemd.generator(7).

It reads /etc/pounce/NAME.toml and amends pounce@NAME.socket, so that an address is written
once. It runs early at boot and at every daemon-reload, while systemd waits, for all instances
at once: whatever is wrong with one file is logged, and the others are served all the same.
"""

import contextlib
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pounce.config.cpus import available_cpus
from pounce.config.file import CONFIG_DIRECTORY, SERVICE_NAME, ConfigFile, configured
from pounce.config.kinds import Invalid
from pounce.config.options import options
from pounce.config.service import Listen, ServerConfig
from pounce.errors import ConfigError
from pounce.net.address import Address
from pounce.systemd.activation import UNUSED
from pounce.systemd.journal import JOURNAL_SOCKET, encode_entry

# Sorts before the override.conf of `systemctl edit`, which therefore has the last word.
_DROP_IN = "10-listen.conf"

_OPTIONS = {option.key: option for option in options(ServerConfig)}
_IDENTIFIER = "pounce-generator"
_ERROR = 3  # a priority of syslog(3)
_KMSG_LIMIT = 900  # bytes; the kernel refuses a record of more than 976 with its prefix


def main(arguments: Sequence[str]) -> None:
    """Generate into the first directory of *arguments*, as systemd calls generators."""
    if not arguments:
        sys.exit("usage: pounce-generator DIRECTORY [EARLY_DIRECTORY LATE_DIRECTORY]")
    for name in configured():
        generate(CONFIG_DIRECTORY / f"{name}.toml", Path(arguments[0]))


def generate(path: Path, directory: Path) -> None:
    """Write the drop-in of the instance configured at *path* below *directory*.

    Nothing is raised; what cannot be used is logged, with the file and, if any, the line.
    """
    try:
        text = drop_in(path)
        if text:
            target = directory / f"pounce@{path.stem}.socket.d" / _DROP_IN
            target.parent.mkdir(exist_ok=True)
            target.write_text(text)
    except ConfigError as error:
        _log(path, error.message)
    except Exception as error:  # one instance never takes the others with it
        _log(path, f"{path}: {error!r}")


def drop_in(path: Path) -> str:
    """The text of the socket unit's drop-in; "" where its own default address is right.

    Raises ConfigError for a file that cannot be read at all.
    """
    if not SERVICE_NAME.fullmatch(path.stem):
        raise ConfigError(f"{path}: {path.stem!r} cannot be the name of an instance")
    if not path.is_file():
        # Reading a pipe, say, would keep systemd waiting.
        raise ConfigError(f"{path}: not a regular file")
    file = ConfigFile(path)
    entries = _entries(file)
    opened = list(_opened(path, entries))
    if not opened:
        return _nothing(path, entries)
    # No SourcePath=: systemctl would warn of every edit of the file (NeedDaemonReload), though few
    # change an address; of those pounce itself tells. The empty ListenStream= takes away the
    # template's default.
    lines = [f"# Made by pounce-generator from {path}", "", "[Socket]", "ListenStream="]
    lines += [f"ListenStream={stream}" for stream, _ in opened]
    datagrams = [f"ListenDatagram={stream}" for stream, entry in opened if entry.http3]
    if datagrams:
        lines += ["ReusePort=yes", *datagrams * _workers(file)]
    return "\n".join(lines) + "\n"


def _nothing(path: Path, entries: Sequence[Listen]) -> str:
    """The drop-in for *entries* that need nothing of the socket unit.

    Its default address would be served, though no entry names it, and without an address it would
    not be loaded: it gets one that pounce does not serve.
    """
    if not entries or any(entry.address.kind == "fd" for entry in entries):
        return ""
    unused = UNUSED.format(path.stem)
    return f"[Socket]\nListenStream=\nListenStream={unused}\nSocketMode=0600\n"


def _workers(file: ConfigFile) -> int:
    """How many workers there may be, each with a UDP socket of its own.

    Of more sockets than workers, some have two: the CPUs are counted here without the
    service's CPUQuota=.
    """
    option = _OPTIONS["workers"]
    try:
        workers = int(option.kind.check(file.data.get("workers", option.default)))
    except Invalid:
        return 1
    return workers or available_cpus()


def _entries(file: ConfigFile) -> tuple[Listen, ...]:
    """The file's [[listen]] entries.

    A mistake elsewhere is logged, and no more: it keeps the service from starting, but a
    daemon-reload must not move the sockets of an instance that runs.
    """
    try:
        file.values()
    except ConfigError as error:
        for line in error.message.splitlines():
            _log(file.path, line)
    try:
        entries: tuple[Listen, ...] = _OPTIONS["listen"].kind.check(file.data.get("listen", ()))
    except Invalid:
        return ()
    return entries


def _opened(path: Path, entries: Sequence[Listen]) -> Iterator[tuple[str, Listen]]:
    """What the socket unit is to open, with the entry it is for."""
    for entry in entries:
        # A named socket is one that some other unit passes, a descriptor is there already.
        if entry.name or entry.address.kind == "fd":
            continue
        try:
            yield listen_stream(entry.address), entry
        except ValueError as error:
            _log(path, f"{path}: {entry.address} is left to pounce to open: {error}")


def listen_stream(address: Address) -> str:
    """The value of ListenStream= or ListenDatagram= for a TCP or unix *address*.

    Raises ValueError, with the reason, for what systemd.socket(5) cannot open.
    """
    if address.kind == "unix":
        if not address.path.isprintable() or address.path != address.path.strip().rstrip("\\"):
            raise ValueError("a unit file cannot hold this path")
        return address.path.replace("%", "%%")
    if not address.port:
        raise ValueError("a socket unit needs a port")
    if not address.host:
        return str(address.port)
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        raise ValueError("a socket unit needs an IP address, not a name") from None
    host, percent, zone = address.host.partition("%")
    if zone and not _is_interface(zone):
        raise ValueError(f"there is no network interface {zone} yet")
    return str(replace(address, host=host)) + 2 * percent + zone


def _is_interface(zone: str) -> bool:
    # systemd ignores the line if there is none of this name when it loads the unit.
    try:
        return zone.isdecimal() or bool(socket.if_nametoindex(zone))
    except OSError:
        return False


def opened_by(name: str, directory: Path) -> list[Address]:
    """What the drop-in of the instance *name* below *directory* opens; nothing without one.

    It is that of the last daemon-reload, as is what systemd has open.
    """
    try:
        text = (directory / f"pounce@{name}.socket.d" / _DROP_IN).read_text()
    except (OSError, UnicodeError):
        return []
    lines = (line.partition("=") for line in text.splitlines())
    streams = [value for key, _, value in lines if key in ("ListenStream", "ListenDatagram")]
    return [_address(stream) for stream in dict.fromkeys(streams) if stream]


def _address(stream: str) -> Address:
    """The address that `listen_stream` wrote as *stream*."""
    text = stream.replace("%%", "%")
    if text.startswith("["):
        text = re.sub(r"^\[(.*)\](:\d+)(%.*)$", r"[\1\3]\2", text)
    return Address.parse(f":{text}" if text.isdigit() else text)


def why_not_held(address: Address) -> str:
    """What keeps a socket unit from opening *address*; "" if nothing does."""
    try:
        listen_stream(address)
    except ValueError as error:
        return str(error)
    return ""


def _log(path: Path, text: str) -> None:
    """Log an error for the instance configured at *path*; never waits and never fails.

    systemd.generator(7) wants no talk with other processes, which may wait for systemd: a
    datagram that is sent or dropped at once is none. Before there is a journal, there is the
    kernel's buffer. Run by hand, where systemd has not set SYSTEMD_SCOPE, it tells a person.
    """
    if "SYSTEMD_SCOPE" not in os.environ:
        print(text, file=sys.stderr)  # noqa: T201 - a command's output
        return
    for log in (_log_to_journal, _log_to_kernel):
        with contextlib.suppress(OSError):
            log(path, text)
            return


def _log_to_journal(path: Path, text: str) -> None:
    fields = {
        # For root's entries `journalctl -u` looks at this.
        "OBJECT_SYSTEMD_UNIT": f"pounce@{path.stem}.service",
        "MESSAGE": text,
        "PRIORITY": _ERROR,
        "SYSLOG_IDENTIFIER": _IDENTIFIER,
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.setblocking(False)
        journal.sendto(encode_entry(fields), str(JOURNAL_SOCKET))


def _log_to_kernel(_path: Path, text: str) -> None:
    record = f"<{_ERROR}>{_IDENTIFIER}[{os.getpid()}]: {text}".encode("utf-8", "backslashreplace")
    # A container's /dev/kmsg may be a pipe that nobody reads.
    descriptor = os.open("/dev/kmsg", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "wb", buffering=0) as kmsg:  # noqa: PTH123 - a descriptor
        kmsg.write(record[:_KMSG_LIMIT])


if __name__ == "__main__":
    main(sys.argv[1:])
