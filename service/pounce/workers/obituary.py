"""Telling the application, in a worker that goes on, that another worker's process has ended."""

from collections.abc import Callable
from dataclasses import replace

from pounce.application.loader import load_application
from pounce.config.service import ServerConfig
from pounce.errors import ConfigError
from pounce.events.loggers import get_logger
from pounce.ipc.channel import Ended

logger = get_logger("pounce.worker")

Tell = Callable[[Ended], None]


def teller(config: ServerConfig) -> Tell:
    """What calls the function that `worker_ended` names; raises ConfigError if it is none."""
    if not config.worker_ended:
        return lambda _: None
    function = load_application(replace(config, app=config.worker_ended))
    if not callable(function):
        raise ConfigError(
            f"worker_ended: {config.worker_ended!r} is no function",
            hint="name one that takes a process id, a worker's number and a generation",
        )

    def tell(ended: Ended) -> None:
        try:
            function(ended.pid, ended.worker, ended.generation)
        except Exception:
            logger.exception("the function that worker_ended names has failed")

    return tell
