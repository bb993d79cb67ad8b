"""One line for each request, for those who ask for it."""

import asyncio
import logging
import time
from functools import lru_cache

from pounce.application import forks
from pounce.application.types import Scope
from pounce.config.service import ServerConfig
from pounce.events.loggers import get_logger

logger = get_logger("pounce.access")

# A line is a record: nothing a client sends may end it, or its quoted part.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x22, 0x5C)}


class AccessLog:
    """Writes lines like ``203.0.113.7 "GET /a?b HTTP/1.1" 200 512 0.003`` (bytes, seconds).

    *gathers* is for a file, which is written once for all requests that end in the same turn of
    *loop*; there each line begins with the time. Anywhere else a line is a record.
    """

    clock = staticmethod(time.monotonic)

    def __init__(self, loop: asyncio.AbstractEventLoop, *, gathers: bool) -> None:
        self._loop = loop
        self._gathers = gathers
        self._lines: list[str] = []
        self._births = forks.births

    def request(self, scope: Scope, status: int, size: int, started: float) -> None:
        """Log a request that began at *started* by `clock`; *status* 0 is no response."""
        try:
            query = scope["query_string"]
            target = scope["raw_path"] + (b"?" + query if query else b"")
            # A WebSocket's scope has no method, but its handshake is a GET.
            method = scope.get("method", "GET")
            line = f"{method} {target.decode('latin-1')} HTTP/{scope['http_version']}"
        except (KeyError, TypeError, AttributeError):  # the application has changed its scope
            line = "-"
        self._write(scope.get("client"), line, status, size, self.clock() - started)

    def refusal(self, client: tuple[str, int] | None, status: int, line: bytes = b"") -> None:
        """Log input that pounce itself has answered; *line* is its request line, if it has one."""
        self._write(client, line.decode("latin-1") or "-", status, 0, 0.0)

    def _write(
        self, client: tuple[str, int] | None, line: str, status: int, size: int, duration: float
    ) -> None:
        if self._in_a_child:
            return
        who = client[0] if client else "-"
        # Nearly all lines are as they should be; to translate one takes ten times as long.
        if not line.isprintable() or '"' in line or "\\" in line:
            line = line.translate(_ESCAPES)
        text = f'{who} "{line}" {status or "-"} {size} {duration:.6f}'
        if not self._gathers:
            _tell(text)
            return
        if not self._lines:
            self._loop.call_soon(self._write_lines)
        self._lines.append(text)

    @property
    def _in_a_child(self) -> bool:
        """Whether the application has forked this process: nobody gets what is answered here."""
        return forks.births != self._births

    def _write_lines(self) -> None:
        if self._in_a_child:
            return
        lines, self._lines = self._lines, []
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        _tell("\n".join([f"{now} {line}" for line in lines]))


def _tell(text: str) -> None:
    """What Logger.info() does, at a third of its cost."""
    if logger.isEnabledFor(logging.INFO):
        # All such records are alike. To make one takes time mostly for finding out about the
        # thread, the process, the task, and the line that asks for it.
        record = logging.LogRecord.__new__(logging.LogRecord)
        now = time.time()
        record.__dict__.update(
            _alike(), msg=text, created=now, msecs=int(now % 1 * 1000), taskName=None
        )
        logger.handle(record)


@lru_cache(maxsize=1)
def _alike() -> dict[str, object]:
    record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, "", (), None, "request")
    return record.__dict__


def access_log_for(config: ServerConfig, loop: asyncio.AbstractEventLoop) -> AccessLog | None:
    """The log, or None where the configuration wants none: no request then pays for it."""
    if config.access_log == "off":
        return None
    return AccessLog(loop, gathers=config.access_log != "on")
