"""pounce inside a program: the application is an object, and the program decides when it runs."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from pounce.assembly.plan import make_plan, renew
from pounce.assembly.server import Server
from pounce.assembly.sockets import collect_listeners, describe
from pounce.config.plan import Plan
from pounce.config.service import ServerConfig
from pounce.events.lifecycle import Collectors, GenerationReady, LifecycleEvent
from pounce.events.story import LogCollector
from pounce.supervisor import App, Supervisor


def run(app: App | str, *, bind: str | Sequence[str] = (), **options: Any) -> None:
    """Serve *app* until the process is told to stop (SIGTERM, SIGINT), as ``pounce serve`` does.

    *app* is an application, or the path to import it from ("module:attribute"). *bind* is an
    address or several; without it, the sockets that systemd opened, or 127.0.0.1:8000.
    *options* are those of `ServerConfig`. Called from another thread than the main one, it
    leaves signals alone. Raises PounceError when it cannot start or go on.
    """
    server = Server(_config(app, bind, options), app=_object(app))
    server.serve()


@dataclass(frozen=True, slots=True)
class Site:
    """An application that is being served by a thread of this program."""

    addresses: tuple[str, ...]
    """Where: ``http://127.0.0.1:34567``, ``https://[::1]:8443``, ``unix:/run/shop.sock``."""
    supervisor: Supervisor

    @property
    def url(self) -> str:
        """The first address."""
        return self.addresses[0]

    def reload(self) -> None:
        """Replace the workers by a new generation; raises PounceError if it does not start."""
        self.supervisor.graceful_reload()


@contextmanager
def serving(
    app: App | str, *, bind: str | Sequence[str] = "127.0.0.1:0", **options: Any
) -> Iterator[Site]:
    """Serve *app* from a thread of its own for as long as the context lasts.

    Arguments are those of `run`. Port 0 is a free one. Workers are threads, unless *options* say
    otherwise: a process that has threads had better not be forked (fork(2)). Logging is
    left to the program. Raises PounceError, or OSError where descriptors run out, when it cannot
    start, and, at the end of the context, if it could not go on.
    """
    config = _config(app, bind, {"worker_mode": "thread", **options})
    watch = _Watch()
    with closing(collect_listeners(config.listen, [], config.worker_count)) as listeners:
        plan = make_plan(config, listeners.served)
        supervisor = Supervisor(
            config, _object(app), lifecycle_collector=Collectors(LogCollector(), watch)
        )

        def serve() -> None:
            try:
                supervisor.serve(plan, renew, listeners.own)
            except BaseException as error:  # whoever waits for this thread raises it
                watch.error = error
            finally:
                watch.changed.set()

        thread = threading.Thread(target=serve, name="pounce", daemon=True)
        thread.start()
        try:
            watch.changed.wait()
            if watch.error is None:
                yield Site(tuple(_addresses(plan)), supervisor)
        finally:
            supervisor.shutdown()
            thread.join()
    if watch.error is not None:
        raise watch.error


def _addresses(plan: Plan) -> Iterator[str]:
    for each in plan.listeners:
        if each.is_stream:
            yield describe(each.sock, secure=each.tls is not None)


class _Watch:
    """Sees the first generation serve, or the service fail."""

    def __init__(self) -> None:
        self.changed = threading.Event()
        self.error: BaseException | None = None

    def collect(self, event: LifecycleEvent) -> None:
        if isinstance(event, GenerationReady):
            self.changed.set()


def _config(app: App | str, bind: str | Sequence[str], options: dict[str, Any]) -> ServerConfig:
    if isinstance(app, str):
        options = {"app": app, **options}
    if bind:
        addresses = (bind,) if isinstance(bind, str) else tuple(bind)
        options = {"listen": [{"address": each} for each in addresses], **options}
    return ServerConfig(**options)


def _object(app: App | str) -> App | None:
    return None if isinstance(app, str) else app
