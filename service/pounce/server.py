"""One service: configuration, sockets, systemd, log and supervisor, put together."""

import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging.handlers import WatchedFileHandler
from pathlib import Path

from pounce import log
from pounce.config import DEFAULT_LISTEN, Listen, ServerConfig
from pounce.errors import ApplicationError, ConfigError, ListenError, PounceError
from pounce.lifecycle import Collectors
from pounce.net.listeners import close_listener, open_listeners
from pounce.supervisor import Supervisor
from pounce.systemd.activation import InheritedSocket, inherited_descriptors
from pounce.systemd.directories import runtime_directory
from pounce.systemd.fdstore import ConnectionStore, descriptor_store_is_on
from pounce.systemd.journal import JournalHandler, stderr_is_journal
from pounce.systemd.notify import SystemdNotifier

CONTROL = "control"
"""The control socket's name in the runtime directory."""

logger = logging.getLogger("pounce.server")


@dataclass(frozen=True, slots=True)
class Listeners:
    """The service's sockets: what it serves, what it only holds, what it opened itself."""

    stream: list[socket.socket]
    datagram: list[socket.socket]
    own: list[socket.socket]

    def close(self) -> None:
        """Close what pounce opened; an inherited one stays open with whoever passed it."""
        for sock in self.own:
            close_listener(sock)


class Server:
    """Runs the service that *config* describes, until it is told to stop.

    *reload_config* reads the configuration anew for a reload; *config_path* names its file.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        config_path: Path | None = None,
        reload_config: Callable[[], ServerConfig] | None = None,
    ) -> None:
        self._config = config
        self._config_path = config_path
        self._read_config = reload_config

    def run(self) -> int:
        """Serve; returns the exit code: 0 after a stop, else that of the error, which is logged."""
        try:
            self._configure_log()
            self._serve()
        except ApplicationError as error:
            # The supervisor has logged the reason, with the traceback, as it happened.
            logger.critical("the application could not be started; exit status %s", error.exit_code)
            return error.exit_code
        except PounceError as error:
            logger.critical("%s", error)
            return error.exit_code
        return 0

    def _serve(self) -> None:
        notifier = SystemdNotifier()
        inherited = inherited_descriptors()
        keeper = ConnectionStore(notifier, inherited.stored) if descriptor_store_is_on() else None
        listeners = collect_listeners(self._config.listen, inherited.sockets)
        try:
            self._announce(listeners)
            supervisor = Supervisor(
                self._config,
                None,
                lifecycle_collector=Collectors(log.LogCollector(), notifier),
                reload_config=self._reload_config if self._read_config else None,
                control=_control_path(self._config),
                keeper=keeper,
            )
            supervisor.run(listeners.stream, listeners.datagram)
        finally:
            listeners.close()
            notifier.close()

    def _configure_log(self) -> None:
        config = self._config
        handler = JournalHandler() if stderr_is_journal() else None
        log.configure(config.log_level, config.log_format, handler)
        if config.access_log not in ("off", "on"):
            access = logging.getLogger("pounce.access")
            access.handlers = [_access_log(config.access_log)]
            access.propagate = False

    def _announce(self, listeners: Listeners) -> None:
        for sock in listeners.stream:
            logger.info("listening on %s", describe(sock))
        for sock in listeners.datagram:
            logger.warning("%s is held but not served: there is no HTTP/3 yet", describe(sock))

    def _reload_config(self) -> ServerConfig:
        assert self._read_config is not None  # noqa: S101 - else this is not passed on
        config = self._read_config()
        if config.listen != self._config.listen:
            logger.warning("reload: changed [[listen]] entries need a restart")
        self._config = config
        return config


def collect_listeners(entries: Sequence[Listen], inherited: list[InheritedSocket]) -> Listeners:
    """Match *inherited* sockets to *entries*, by name or address; open what is missing.

    An inherited socket that no entry wants is served all the same, with a warning if there
    are entries at all. With neither, the service listens on 127.0.0.1:8000. Raises
    ListenError.
    """
    stream = [each.sock for each in inherited if each.sock.type == socket.SOCK_STREAM]
    datagram = [each.sock for each in inherited if each.sock.type == socket.SOCK_DGRAM]
    adopted: list[socket.socket] = []
    own: list[socket.socket] = []
    wanted: set[int] = set()
    try:
        for entry in entries:
            matching = [each.sock for each in inherited if _matches(entry, each)]
            wanted.update(sock.fileno() for sock in matching)
            if not any(sock.type == socket.SOCK_STREAM for sock in matching):
                opened = adopted if entry.address.kind == "fd" else own
                opened += open_listeners(entry.address)
    except ListenError:
        for sock in own:
            close_listener(sock)
        raise
    if entries:
        for sock in stream:
            if sock.fileno() not in wanted:
                logger.warning("%s was inherited but is in no [[listen]] entry", describe(sock))
    elif not inherited:
        own = open_listeners(DEFAULT_LISTEN.address)
    for sock in stream:
        sock.setblocking(False)
    return Listeners(stream + adopted + own, datagram, own)


def _matches(entry: Listen, inherited: InheritedSocket) -> bool:
    if entry.name:
        return entry.name == inherited.name
    if entry.address.kind == "fd":
        return entry.address.fd == inherited.sock.fileno()
    name = inherited.sock.getsockname()
    if inherited.sock.family == socket.AF_UNIX:
        return entry.address.kind == "unix" and entry.address.path == name
    if entry.address.kind != "tcp" or entry.address.port != name[1]:
        return False
    every_interface = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
    if not entry.address.host:
        return name[0] in every_interface
    try:
        found = socket.getaddrinfo(entry.address.host, entry.address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # opening it says what is wrong
    return name[0] in {info[4][0] for info in found}


def _access_log(path: str) -> logging.Handler:
    try:
        # It reopens the file when logrotate(8) has moved it away.
        return WatchedFileHandler(path)
    except OSError as error:
        raise ConfigError(
            f"the access log {path!r} cannot be written: {error.strerror}",
            hint="set `access_log` to a file in a directory that the service's user may write in",
        ) from error


def _control_path(config: ServerConfig) -> Path | None:
    if config.control:
        return Path(config.control)
    directory = runtime_directory()
    return directory / CONTROL if directory else None


def describe(sock: socket.socket) -> str:
    """The socket's address as people write it."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    scheme = "http://" if sock.type == socket.SOCK_STREAM else "udp "
    return f"{scheme}{host}:{name[1]}"
