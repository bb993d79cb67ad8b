"""One service: configuration, sockets, systemd, log and supervisor, put together."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pounce.assembly.instance import named_by, own_name, refuse_moved
from pounce.assembly.plan import make_plan, renew
from pounce.assembly.sockets import (
    Listeners,
    bound_to,
    collect_listeners,
    describe,
    files_of,
    goes_on,
    how_to_move,
    warn_of_held,
    without_name,
)
from pounce.assembly.tls import addresses_of_quic, doubts_about
from pounce.config.descriptors import raise_limit
from pounce.config.plan import Plan
from pounce.config.service import ServerConfig
from pounce.errors import ApplicationError, ConfigError, ListenError, PounceError
from pounce.events import log
from pounce.events.lifecycle import Collectors
from pounce.events.loggers import Routing, get_logger
from pounce.events.story import LogCollector
from pounce.net.listeners import is_in_use
from pounce.supervisor import App, Supervisor
from pounce.systemd.activation import Inherited, inherited_descriptors, is_started_by_systemd
from pounce.systemd.credentials import with_credentials
from pounce.systemd.directories import runtime_directory
from pounce.systemd.farewell import saying_why
from pounce.systemd.fdstore import ConnectionStore, descriptor_store_is_on
from pounce.systemd.generator import why_not_held
from pounce.systemd.journal import (
    JOURNAL_SOCKET,
    JournalSocket,
    encode_record,
    stderr_is_journal,
)
from pounce.systemd.notify import SystemdNotifier
from pounce.varlink.names import SOCKET

logger = get_logger("pounce.server")


class Server:
    """Runs the service that *config* describes, until it is told to stop.

    Without *app* the application is the one that *config* names. *reload_config* reads the
    configuration anew for a reload. Raises ConfigError for a credential that the service does not
    have.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        app: App | None = None,
        reload_config: Callable[[], ServerConfig] | None = None,
    ) -> None:
        self._config = with_credentials(config)
        self._app = app
        self._read_config = reload_config
        self._inherited = Inherited([], [])
        self._instance = ""
        self._lock = threading.Lock()
        self._supervisor: Supervisor | None = None
        self._over = False

    @property
    def has_run_applications(self) -> bool:
        """Whether applications ran in this process: as threads, and not in forked workers."""
        return self._supervisor is not None and self._supervisor.mode == "thread"

    def shutdown(self) -> None:
        """Stop serving, as SIGTERM does; callable from any thread, also before it serves."""
        with self._lock:
            self._over = True
            if self._supervisor is not None:
                self._supervisor.shutdown()

    def reload(self) -> None:
        """Replace the workers by a new generation, as SIGHUP does, but wait for it.

        Callable from any thread but the one that serves. Raises PounceError if the new
        generation does not start, or nothing serves now.
        """
        with self._lock:
            supervisor = self._supervisor
        if supervisor is None:
            raise PounceError("the server does not run")
        supervisor.graceful_reload()

    def run(self) -> int:
        """Serve; returns the exit code: 0 after a stop, else that of the error, which is logged."""
        try:
            self.serve()
        except ApplicationError as error:
            # The supervisor has logged the reason, with the traceback, as it happened.
            logger.critical("the application could not be started; exit status %s", error.exit_code)
            return error.exit_code
        except PounceError as error:
            logger.critical("%s", error)
            return error.exit_code
        finally:
            log.finish()
        return 0

    def serve(self) -> None:
        """Serve; raises PounceError when it cannot start or go on."""
        raise_limit()
        with saying_why():
            self._log = _Log(self._config)
        notifier = SystemdNotifier()
        try:
            with saying_why(notifier):
                self._serve(notifier)
        finally:
            notifier.close()
            log.finish()

    def _serve(self, notifier: SystemdNotifier) -> None:
        self._inherited = inherited = inherited_descriptors()
        keeper = ConnectionStore(notifier, inherited.stored) if descriptor_store_is_on() else None
        self._instance = own_name(has_variables=inherited.are_withheld or notifier.has_manager)
        listeners = self._collect(inherited)
        self._own = listeners.own
        try:
            plan = make_plan(self._config, listeners.served, log=self._log.now)
            self._announce(plan, listeners)
            self._supervise(notifier, keeper).serve(plan, self._prepare, listeners.own)
        finally:
            listeners.close()

    def _collect(self, inherited: Inherited) -> Listeners:
        if self._instance:
            refuse_moved(self._instance, self._config.listen, inherited)
        try:
            return collect_listeners(
                self._config.listen, inherited.sockets, self._config.worker_count
            )
        except ListenError as error:
            if not (inherited.are_withheld and is_in_use(error)):
                raise
            raise ListenError(
                error.message,
                hint="systemd listens there if the socket unit names it, and passed the socket to "
                "the shell or wrapper, which must exec pounce",
            ) from error

    def _supervise(self, notifier: SystemdNotifier, keeper: ConnectionStore | None) -> Supervisor:
        supervisor = Supervisor(
            self._config,
            self._app,
            lifecycle_collector=Collectors(LogCollector(), notifier),
            control=_control_path(self._config),
            keeper=keeper,
        )
        with self._lock:
            self._supervisor = supervisor
            if self._over:
                supervisor.shutdown()
        return supervisor

    def _announce(self, plan: Plan, listeners: Listeners) -> None:
        told = [describe(each.sock, secure=each.tls is not None) for each in plan.listeners]
        for text in dict.fromkeys(told):
            logger.info("listening on %s", text)
        self._warn(plan)
        warn_of_held(listeners)
        if is_started_by_systemd():
            _warn_of_own(listeners, self._inherited, self._instance)

    def _warn(self, plan: Plan) -> None:
        for text in [*plan.config.doubts(), *doubts_about(plan.listeners)]:
            logger.warning("%s", text)
        if plan.config.idle_exit and self._own:
            logger.warning(
                "idle_exit has no effect: pounce has opened %s itself, and the next connection "
                "would be refused; it is for services whose addresses systemd opens",
                ", ".join(dict.fromkeys(map(describe, self._own))),
            )

    def _prepare(self, serving: Plan) -> Plan:
        """The plan of the next generation."""
        if self._read_config is None:
            return renew(serving)
        config = with_credentials(self._read_config())
        plan = make_plan(config, serving.listeners)
        plan = replace(plan, log=self._log.routing(config, serving))
        self._warn(plan)
        before, now = _fixed(serving), _fixed(plan)
        for key in now:
            if now[key] != before[key]:
                logger.warning("reload: %s", self._how_to_apply(key, config))
        return plan

    def _how_to_apply(self, key: str, config: ServerConfig) -> str:
        """When a change takes effect that a reload cannot make."""
        sockets = self._inherited.sockets
        if key == "listen" and (sockets or self._instance):
            gone = files_of(without_name(named_by(config.listen, self._instance), sockets))
            return goes_on(how_to_move(sockets, self._instance, gone))
        return f"a changed {key} takes effect at the next restart"


def _warn_of_own(listeners: Listeners, inherited: Inherited, instance: str) -> None:
    """Warn of addresses that systemd does not hold: clients are refused while pounce restarts."""
    own = {bound_to(each.sock): each.entry.address for each in listeners.served if each.closes}
    for bound, address in own.items():
        advice = why_not_held(address)
        if not advice and inherited.sockets:
            advice = f"to have systemd open it: {how_to_move(inherited.sockets, instance)}"
        logger.warning(
            "systemd does not hold %s: pounce has opened it itself, "
            "and clients are refused while the service is down\n  %s",
            bound,
            advice or "a socket unit for the service could hold it (ListenStream=)",
        )


class _Log:
    """Where the service's records go, as *config* says for now; each plan has a word in it."""

    def __init__(self, config: ServerConfig) -> None:
        journal = _journal()
        self._encodes_entries = journal is not None
        self._spool = log.open_spool(journal)
        self.now = self.routing(config)
        log.use(self.now)
        if journal is None and stderr_is_journal():
            logger.warning(
                "%s cannot be reached: records go to the journal as plain text, by standard error",
                JOURNAL_SOCKET,
            )

    def routing(self, config: ServerConfig, serving: Plan | None = None) -> Routing:
        """Write what *config* wants where it wants it; raises ConfigError.

        A file that the plan which is *serving* writes to stays open.
        """
        encode = encode_record if self._encodes_entries else log.encoder(config.log_format)
        if serving and serving.config.access_log == config.access_log:
            access = log.access_log_of(serving.log)
        else:
            access = _open_access_log(config.access_log)
        return log.routing(config.log_level, log.Spooled(self._spool, encode), access)


def _open_access_log(path: str) -> log.Spooled | None:
    if path in ("off", "on"):
        return None
    try:
        return log.open_access_log(path)
    except OSError as error:
        raise ConfigError(
            f"the access log {path!r} cannot be written: {error.strerror}",
            hint="set `access_log` to a file in a directory that the service's user may "
            "write in, or to `on` for the service's own log",
        ) from error


def _journal() -> JournalSocket | None:
    """The journal, if standard error is connected to it and its own socket can be reached."""
    try:
        return JournalSocket() if stderr_is_journal() else None
    except OSError:
        return None


def _fixed(plan: Plan) -> dict[str, object]:
    """What a reload cannot change: it is the supervisor's own, not the workers'."""
    config, with_quic = plan.config, addresses_of_quic(plan.listeners)
    keys = ("worker_mode", "control", "max_restarts", "restart_window")
    # Without a UDP socket HTTP/3 cannot begin; it can end.
    addresses = [
        (each.address, each.name, each.http3 or each.address in with_quic) for each in config.listen
    ]
    return {"listen": addresses, **{key: getattr(config, key) for key in keys}}


def _control_path(config: ServerConfig) -> Path | None:
    if config.control:
        return Path(config.control)
    directory = runtime_directory()
    return directory / SOCKET if directory else None
