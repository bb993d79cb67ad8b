"""The limit of open descriptors, and how many connections fit it (RLIMIT_NOFILE, getrlimit(2)).

The soft limit is usually 1024: more than that select(2) cannot watch. Whoever does without it may
raise the soft limit to the hard one at start, as systemd advises ("File Descriptor Limits",
https://systemd.io/FILE_DESCRIPTOR_LIMITS). Programs that the application starts inherit the raised
limit, since Python offers no way to lower it between fork and exec.
"""

import contextlib
import logging
import resource
from dataclasses import replace

from pounce.config.service import ServerConfig
from pounce.events.loggers import get_logger

logger = get_logger("pounce.supervisor")

# A connection that is closing keeps its descriptor, but no longer counts towards max_connections.
_PER_CONNECTION = 2

# For listeners, the log, modules, and the application's files and connections of its own.
_PER_PROCESS = 64

# For a worker's event loop and channel, and for each thread in which requests are answered.
_PER_WORKER = 8
_PER_THREAD = 4


def raise_limit() -> None:
    """Raise this process's soft limit to its hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The hard limit may be above fs.nr_open, if that was lowered later (EPERM).
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Fit:
    """As many connections as workers have descriptors for, for one generation after the other.

    Processes raise their limit as they start; workers *in_threads* share this process's.
    """

    def __init__(self, *, in_threads: bool) -> None:
        self._in_threads = in_threads
        self._told: tuple[int, int] | None = None

    def apply(self, config: ServerConfig) -> ServerConfig:
        """*config* with what fits; the log says what it has not said of an earlier one."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit, workers = (soft, config.worker_count) if self._in_threads else (hard, 1)
        if limit == resource.RLIM_INFINITY:
            return config
        others = _PER_PROCESS + workers * (_PER_WORKER + _PER_THREAD * config.threads)
        most = max(1, (limit - others) // (_PER_CONNECTION * workers))
        if config.max_connections <= most:
            return config
        told, self._told = self._told, (config.max_connections, most)
        if told != self._told:
            self._tell(config.max_connections, most, limit)
        return replace(config, max_connections=most)

    def _tell(self, wanted: int, most: int, limit: int) -> None:
        # Nobody has asked for the default: where it does not fit, nothing is wrong.
        asked = wanted != ServerConfig().max_connections
        logger.log(
            logging.WARNING if asked else logging.INFO,
            "max_connections is lowered from %d to %d: %s may open %d descriptors, and a "
            "connection needs up to %d; raise LimitNOFILE= (ulimit -Hn) or lower max_connections",
            wanted,
            most,
            "all workers together" if self._in_threads else "a worker",
            limit,
            _PER_CONNECTION,
        )
