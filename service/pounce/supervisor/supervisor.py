"""The supervisor: holds the listeners, starts and watches the workers.

One thread, one loop (`supervisor.loop`), three tables (`supervisor.states`). Whatever happens
becomes an input to a worker, a generation or the service; the table names the action, and
there is one short method for each: of a worker in `supervisor.crew`, of a generation and the
service in `supervisor.service`.
"""

import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from ssl import SSLContext
from typing import Any, get_args

from pounce.application.interpreter import has_global_lock
from pounce.assembly.plan import make_plan
from pounce.assembly.sockets import match_listeners
from pounce.config.plan import Plan
from pounce.config.service import ServerConfig
from pounce.errors import ConfigError, PounceError
from pounce.events.lifecycle import Collectors, LifecycleCollector
from pounce.events.loggers import get_logger
from pounce.ipc.handover import Keeper
from pounce.loop import Loop
from pounce.supervisor.h3 import H3, recall_secret
from pounce.supervisor.interface import open_control
from pounce.supervisor.service import Prepare, Service
from pounce.supervisor.signals import Signals
from pounce.supervisor.sockets import group_by_address, largest
from pounce.supervisor.starter import WorkerMode
from pounce.supervisor.states import ServiceInput
from pounce.workers import App, Application, SyncApp

logger = get_logger("pounce.supervisor")


class Supervisor:
    """Runs `config.worker_count` workers that serve *app* until told to stop.

    *mode* None follows ``config.worker_mode``, and "auto" there asks the interpreter: threads
    where it runs without a global lock, else processes. With *app_path* ("module:attribute"),
    or without *app* and by ``config.app``, the application is imported where it runs, by each
    process or each generation of threads; otherwise *app* itself is shared. *sync_app* is called
    first, in threads, and leaves to the application what it does not answer.
    *ssl_context* is for every stream socket whose entry has no certificate (see `run`).
    *lifecycle_collector* hears what happens, on the supervisor's thread; if it raises, that is
    logged. *reload_config* gives each new generation its configuration, where `run` is called, and
    not `serve`. *control* is the path of the control socket. *keeper* holds idle connections from
    one run to the next.

    Raises ConfigError for an unknown *mode*.
    """

    def __init__(
        self,
        config: ServerConfig,
        app: App | None,
        *,
        mode: WorkerMode | None = None,
        ssl_context: SSLContext | None = None,
        lifecycle_collector: LifecycleCollector | None = None,
        app_path: str | None = None,
        sync_app: SyncApp | None = None,
        reload_config: Callable[[], ServerConfig] | None = None,
        control: Path | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._config = config
        self._reload_config = reload_config or (lambda: config)
        self._application = Application(app, app_path, sync_app)
        self._mode = _mode_of(config, mode)
        self._ssl_context = ssl_context
        self._collectors = Collectors(*([lifecycle_collector] if lifecycle_collector else []))
        self._control_path = control
        self._keeper = keeper
        self._lifespan_state: dict[str, Any] | None = None
        # Reentrant, because a signal handler of the embedder may call `shutdown` at any moment.
        self._lifecycle_lock = threading.RLock()
        self._asked: set[Future[None]] = set()
        self._over = False
        self._service: Service | None = None
        self._loop = Loop()
        self._thread: threading.Thread | None = None

    @property
    def mode(self) -> WorkerMode:
        """What a worker is."""
        return self._mode

    @property
    def worker_count(self) -> int:
        """How many workers run now; before `run`, how many it will start.

        These are the ready workers of the generation that serves. Workers for HTTP/3 run beside
        them and are not counted.
        """
        service = self._service
        return self._config.worker_count if service is None else service.worker_count

    def set_lifespan_state(self, state: dict[str, Any]) -> None:
        """Give *state*, of a lifespan that the caller runs itself, to every worker.

        The workers then run no lifespan of their own. Raises RuntimeError after `run` was called.
        """
        with self._lifecycle_lock:
            if self._thread is not None:
                raise RuntimeError("set_lifespan_state() has to be called before run()")
            self._lifespan_state = state

    def run(
        self,
        sockets: Sequence[socket.socket],
        udp_sockets: Sequence[socket.socket] | None = None,
        *,
        own: Sequence[socket.socket] = (),
    ) -> None:
        """Start all workers on *sockets* and block until the service has stopped.

        The sockets listen already, stay the caller's and are never closed here; stream sockets
        become non-blocking. Each is served as the entry of ``config.listen`` with its address
        says: with TLS, or HTTP/3 on a UDP socket, which may be among *sockets* as well. A reload
        reads the certificates anew. The log warns of sockets that no entry is for.

        A stop leaves the sockets open: another process, as systemd, may hold them for the next
        run, and new clients wait until then. Where nobody does, name them as *own*: they listen
        no more as soon as a stop begins, and new clients are refused.

        Raises ApplicationError when the first generation does not start, with the reason and its
        exit code, ListenError for a socket that cannot be served, ConfigError for a certificate
        that cannot be used, and PounceError when no worker is left and the restart budget is
        spent.
        """
        with self._running():
            config = self._config
            found = match_listeners(config.listen, [*sockets, *(udp_sockets or ())], own)
            plan = make_plan(config, found.served, default=self._ssl_context)
            self._serve(plan, self._prepare, own)

    def serve(self, plan: Plan, prepare: Prepare, own: Sequence[socket.socket] = ()) -> None:
        """Like `run`, by a *plan*; *prepare* makes that of the next generation at each reload."""
        with self._running():
            self._serve(plan, prepare, own)

    @contextmanager
    def _running(self) -> Iterator[None]:
        with self._lifecycle_lock:
            if self._thread is not None:
                raise RuntimeError("a supervisor runs only once")
            self._thread = threading.current_thread()
        try:
            yield
        finally:
            self._end()

    def shutdown(self) -> None:
        """Stop: workers drain for at most `shutdown_timeout`. A second call changes nothing.

        Returns at once. Callable from any thread, also before `run`, which then only starts to
        stop.
        """
        with self._lifecycle_lock:
            if not self._over:
                self._loop.post(lambda: self._request(ServiceInput.SHUTDOWN))

    def graceful_reload(self) -> None:
        """Replace the current generation by a fresh one, without a pause in service.

        Blocks its caller (any thread but the supervisor's own) until the new generation
        serves; raises PounceError with the reason if it does not, and then the old one goes
        on.
        """
        self._ask(ServiceInput.RELOAD)

    def restart_workers(self) -> None:
        """Replace all workers by fresh ones soon (development).

        This is a reload whose old workers have `shutdown_timeout` to finish, not `reload_timeout`:
        where the new code does not start, the old workers go on, and this raises PounceError with
        the reason. Blocks its caller like `graceful_reload`. While a reload is under way it does
        nothing, and the log says so.
        """
        self._ask(ServiceInput.RESTART)

    def _ask(self, what: ServiceInput) -> None:
        outcome: Future[None] = Future()
        with self._lifecycle_lock:
            if self._over:
                raise PounceError("the service has stopped")
            if threading.current_thread() is self._thread:
                raise RuntimeError("this would wait for itself; call it from another thread")
            self._asked.add(outcome)
            self._loop.post(lambda: self._request(what, outcome))
        try:
            outcome.result()
        finally:
            with self._lifecycle_lock:
                self._asked.discard(outcome)

    def _request(self, what: ServiceInput, outcome: Future[None] | None = None) -> None:
        if self._service is not None:
            self._service.request(what, outcome)

    def _end(self) -> None:
        """Nobody is left to answer; those who still wait are told so."""
        with self._lifecycle_lock:
            self._over = True
            self._loop.close()
            for outcome in self._asked:
                if not outcome.done():
                    outcome.set_exception(PounceError("the service has stopped"))

    def _serve(self, plan: Plan, prepare: Prepare, own: Sequence[socket.socket]) -> None:
        self._warn_of_threads()
        with ExitStack() as stack:
            self._service = service = self._make_service(plan, prepare, own)
            stack.callback(service.close)
            if h3 := self._h3(plan):
                service.crew.h3 = h3
                stack.callback(h3.close)
            stack.callback(self._end)
            stack.enter_context(self._install_signals(service))
            stack.enter_context(self._open_control(service))
            service.begin()
            self._loop.run(lambda: service.finished)
        if service.error is not None:
            raise service.error

    def _warn_of_threads(self) -> None:
        if self._mode == "process" and threading.active_count() > 1:
            logger.warning(
                "workers are forked from a process with %s threads: a lock that one of them holds "
                "stays locked in the worker (fork(2)); run the supervisor before starting threads",
                threading.active_count(),
            )

    def _prepare(self, serving: Plan) -> Plan:
        return make_plan(self._reload_config(), serving.listeners, default=self._ssl_context)

    def _make_service(self, plan: Plan, prepare: Prepare, own: Sequence[socket.socket]) -> Service:
        return Service(
            plan,
            prepare,
            self._application,
            self._mode,
            self._loop,
            self._collectors.collect,
            lifespan_state=self._lifespan_state,
            keeper=self._keeper,
            own=own,
        )

    def _h3(self, plan: Plan) -> H3 | None:
        groups = group_by_address(each for each in plan.listeners if not each.is_stream)
        return H3(largest(groups), recall_secret(self._keeper), plan.config) if groups else None

    def _install_signals(self, service: Service) -> Signals:
        def asks(what: ServiceInput) -> Any:
            return lambda: service.request(what)

        signals = Signals(
            self._loop,
            {
                signal.SIGTERM: asks(ServiceInput.TERMINATE),
                signal.SIGINT: asks(ServiceInput.TERMINATE),
                signal.SIGQUIT: asks(ServiceInput.TERMINATE),
                signal.SIGHUP: asks(ServiceInput.RELOAD),
                signal.SIGTTIN: lambda: service.scale_by(1),
                signal.SIGTTOU: lambda: service.scale_by(-1),
                signal.SIGUSR1: service.reopen_log,
                signal.SIGUSR2: _explain_usr2,
            },
        )
        service.crew.undo_in_child.append(signals.close_in_child)
        return signals

    @contextmanager
    def _open_control(self, service: Service) -> Iterator[None]:
        if self._control_path is None:
            yield
            return
        control = open_control(self._loop, self._control_path, service)
        service.crew.undo_in_child.append(control.close_in_child)
        try:
            yield
        finally:
            control.close()


def _explain_usr2() -> None:
    logger.warning(
        "SIGUSR2 is ignored: `systemctl reload` (SIGHUP) loads the application anew, "
        "`systemctl restart` pounce itself, and neither loses a request"
    )


def _mode_of(config: ServerConfig, mode: WorkerMode | None) -> WorkerMode:
    if mode not in (None, *get_args(WorkerMode)):
        allowed = " or ".join(map(repr, get_args(WorkerMode)))
        raise ConfigError(
            f"mode: found {mode!r}, expected {allowed}",
            hint="or None, which follows worker_mode in the configuration",
        )
    if mode is None and config.worker_mode != "auto":
        mode = config.worker_mode
    if mode is None:
        return "process" if has_global_lock() else "thread"
    if mode == "thread" and config.worker_count > 1 and has_global_lock():
        logger.warning("workers are threads, but this interpreter runs one thread at a time")
    return mode
