"""Which handler goes with which application."""

import multiprocessing
from functools import partial

from pounce.application.interface import Served
from pounce.application.loops import new_event_loop
from pounce.config.service import ServerConfig
from pounce.threads.asgi import ASGIHandler
from pounce.threads.handler import Handler
from pounce.threads.raw import SyncAppHandler
from pounce.wsgi.environ import EnvironMaker
from pounce.wsgi.handler import WSGIHandler


def handler_for(
    served: Served, config: ServerConfig, worker: int | str, generation: int
) -> Handler:
    """What answers in the threads of a *worker* for the application that is *served*."""
    if served.sync is not None:
        return SyncAppHandler(served.sync, falls_through=served.asgi is not None)
    if served.wsgi is None:
        assert served.asgi is not None  # noqa: S101 - something is served
        return ASGIHandler(served.asgi, partial(new_event_loop, config.loop))
    in_process = multiprocessing.parent_process() is not None
    environs = EnvironMaker(
        multithread=config.threads > 1 or not in_process,
        # Even one worker has a second beside it while the service reloads.
        multiprocess=in_process,
        worker=worker,
        generation=generation,
    )
    return WSGIHandler(served.wsgi, environs)
