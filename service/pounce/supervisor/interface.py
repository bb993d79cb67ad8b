"""What the control socket offers: the Varlink interface io.pounce.Service."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from pounce.errors import PounceError
from pounce.events.lifecycle import MOST_WORKERS
from pounce.loop import Loop
from pounce.supervisor.service import Service
from pounce.supervisor.states import ServiceInput
from pounce.varlink.names import INTERFACE
from pounce.varlink.server import CallFailed, ControlServer, Fail, Method, Parameters, Reply
from pounce.version import __version__

DESCRIPTION = f"""\
# A running pounce
interface {INTERFACE}

# id: the process, or the thread where workers are threads; ages in seconds
type Worker (
  kind: (http, http3),
  slot: int,
  id: int,
  state: string,
  age: float,
  connections: int,
  busy: int,
  requests: int,
  heartbeat_age: ?float
)

type Generation (
  number: int,
  state: string,
  size: int,
  command: ?string,
  workers: []Worker
)

# Every generation that is starting, serving or draining, and the command of [deploy] that runs
# for it; requests counts those of workers, and of earlier runs, that are gone, too. With
# idle_exit, idle is for how many seconds nobody has been connected
method Status() -> (
  phase: string,
  requests: int,
  generations: []Generation,
  idle: ?float,
  idle_exit: ?float
)

# Replace the workers by a new generation; answers when it serves
method Reload() -> (generation: int)

# Stop what is still draining, now; answers how many workers that are
method StopDraining() -> (workers: int)

# Change the number of workers until the next reload
method Scale(workers: int) -> (workers: int)

error ReloadFailed (reason: string)
error ScaleFailed (reason: string)
"""


def open_control(loop: Loop, path: Path, service: Service) -> ControlServer:
    """Offer *service* on the socket *path*; raises ListenError."""
    information = {
        "vendor": "pounce",
        "product": "pounce",
        "version": __version__,
        # The product's address; without a home page, that of its manual (uri(7)).
        "url": "man:pounce(1)",
    }
    return ControlServer(loop, path, DESCRIPTION, _methods(service), information)


def _methods(service: Service) -> dict[str, Method]:
    def status(_: Parameters, reply: Reply, __: Fail) -> None:
        reply(service.status())

    def reload(_: Parameters, reply: Reply, fail: Fail) -> None:
        outcome: Future[None] = Future()
        outcome.add_done_callback(lambda done: _tell(done, service, reply, fail))
        service.request(ServiceInput.RELOAD, outcome)

    def stop_draining(_: Parameters, reply: Reply, __: Fail) -> None:
        reply({"workers": service.stop_draining()})

    def scale(parameters: Parameters, reply: Reply, __: Fail) -> None:
        workers = parameters.get("workers")
        # In Python, unlike in JSON, true is a number.
        if type(workers) is not int or workers < 1:
            raise CallFailed("org.varlink.service.InvalidParameter", {"parameter": "workers"})
        if workers > MOST_WORKERS:
            reason = f"{workers} workers are too many; {MOST_WORKERS} are the most"
            raise CallFailed(f"{INTERFACE}.ScaleFailed", {"reason": reason})
        try:
            service.scale(workers)
        except PounceError as error:
            raise CallFailed(f"{INTERFACE}.ScaleFailed", {"reason": str(error)}) from error
        reply({"workers": workers})

    methods: dict[str, Callable[[Parameters, Reply, Fail], None]] = {
        "Status": status,
        "Reload": reload,
        "StopDraining": stop_draining,
        "Scale": scale,
    }
    return {f"{INTERFACE}.{name}": method for name, method in methods.items()}


def _tell(outcome: Future[None], service: Service, reply: Reply, fail: Fail) -> None:
    error = outcome.exception()
    if error is None:
        reply({"generation": service.generation})
    else:
        reason = str(error) if isinstance(error, PounceError) else repr(error)
        fail(CallFailed(f"{INTERFACE}.ReloadFailed", {"reason": reason}))
