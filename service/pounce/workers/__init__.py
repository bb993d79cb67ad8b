"""Workers, and the entry points by which the supervisor makes them.

A worker loads the application itself, where it runs: the supervisor only passes on what to
load.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

from pounce.application.interface import App, Served, as_served
from pounce.application.loader import find_application
from pounce.application.loops import check_event_loop, check_unpatched
from pounce.application.sync_app import SyncApp
from pounce.config.service import ServerConfig
from pounce.http3.tokens import SECRET_SIZE
from pounce.workers.base import Assignment, Mail
from pounce.workers.http3 import check_http3
from pounce.workers.lifespan_host import LifespanHost
from pounce.workers.serving import ServingWorker
from pounce.workers.worker import Worker

__all__ = [
    "SECRET_SIZE",
    "App",
    "Application",
    "Assignment",
    "LifespanHost",
    "Mail",
    "ServingWorker",
    "SyncApp",
    "TCPWorker",
    "Worker",
    "check",
]


def check(config: ServerConfig) -> None:
    """Raise ConfigError where this interpreter cannot run workers as *config* wants them."""
    check_unpatched()
    check_event_loop(config.loop)
    if any(entry.http3 for entry in config.listen):
        check_http3()


@runtime_checkable
class TCPWorker(Protocol):
    """A worker that serves connections accepted from listening sockets."""

    def run(self) -> int:
        """Serve until drained or stopped; returns the exit status."""

    def set_lifespan_state(self, state: dict[str, Any]) -> None:
        """Use *state*, of a lifespan that runs elsewhere; call it before `run`."""

    def start_draining(self) -> None:
        """Accept nothing new, finish what is here, end. Callable from any thread."""

    def is_idle(self) -> bool:
        """Whether no client is connected."""


@dataclass(frozen=True, slots=True)
class Application:
    """What is to be served: an object, or the path it is to be imported from.

    With a *path*, or with neither and ``config.app``, each process worker and each generation
    of threads imports it afresh. *sync_app* comes before it.
    """

    app: App | None
    path: str | None
    sync_app: SyncApp | None = None

    def load(self, config: ServerConfig) -> Served:
        """Import it, or take the object."""
        return self.find(config)()

    def find(self, config: ServerConfig, *, afresh: bool = False) -> Callable[[], Served]:
        """Import it, or take the object; *afresh* forgets what was imported of it before.

        The result returns the application: a factory's next one at each call.
        """
        if self.path is not None:
            config = replace(config, app=self.path)
        loads = self.path is not None or (self.app is None and (config.app or not self.sync_app))
        make = find_application(config, afresh=afresh) if loads else lambda: self.app
        return lambda: as_served(make(), self.sync_app, config)

    def worker(self, assignment: Assignment, host: LifespanHost | None = None) -> ServingWorker:
        """A worker that imports the application itself, or serves what *host* has loaded."""
        load = host.give if host else partial(self.load, assignment.config)
        if not assignment.mail:
            return Worker(assignment, load)
        # Only here: aioquic, which it needs, is not to be had everywhere.
        from pounce.workers.h3_worker import H3Worker

        return H3Worker(assignment, load)

    def lifespan_host(self, assignment: Assignment) -> LifespanHost:
        """What imports it, and runs its lifespan, for a generation of threads."""
        return LifespanHost(assignment, partial(self.find, assignment.config, afresh=True))
