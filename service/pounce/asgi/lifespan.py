"""The ASGI lifespan protocol (ASGI specification, "Lifespan Protocol", version 2.0)."""

import asyncio
import traceback
from enum import Enum, auto
from typing import Any, Literal

from pounce.application import forks
from pounce.application.types import ASGIApp, Message, Scope
from pounce.errors import ApplicationError
from pounce.events.loggers import get_logger

logger = get_logger("pounce.error")

# Seconds in which the application should return after its last answer.
_LAST_WORDS = 1.0


class _Phase(Enum):
    STARTING = auto()
    FAILED = auto()  # its startup; it may still say more, by raising
    RUNNING = auto()
    STOPPING = auto()
    ENDED = auto()


class _NoLifespanEvent(RuntimeError):
    """The application has sent what does not belong in a lifespan."""


class Lifespan:
    """One run of the application's lifespan, in the loop that calls it.

    *mode* "auto" goes on without a lifespan when the application raises instead of answering
    the startup event, as the specification demands; "on" makes that an error; "off" sends
    nothing. *state* is the namespace the application fills for its requests.
    """

    def __init__(
        self, app: ASGIApp, mode: Literal["auto", "on", "off"], state: dict[str, Any]
    ) -> None:
        self._app = app
        self._mode = mode
        self.state = state
        self._phase = _Phase.STARTING
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._answered = asyncio.Event()
        self._failure = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the application has a lifespan, and its startup is complete."""
        return self._phase is _Phase.RUNNING

    async def startup(self) -> None:
        """Run the application's startup; raises ApplicationError if it fails."""
        if self._mode == "off":
            return
        self._events.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.create_task(self._run(), name="pounce-lifespan")
        try:
            await self._answered.wait()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self._failure:
            await self._let_end(self._task)
            raise ApplicationError("the application's startup failed", hint=self._failure)

    async def shutdown(self) -> None:
        """Run the application's shutdown; a failure there is logged, not raised."""
        if self._task is None or self._phase is not _Phase.RUNNING:
            return
        self._phase = _Phase.STOPPING
        self._answered.clear()
        self._events.put_nowait({"type": "lifespan.shutdown"})
        await self._answered.wait()
        await self._let_end(self._task)

    async def _let_end(self, task: asyncio.Task[None]) -> None:
        # Frameworks raise after a failure's message, and the exception says more than the
        # message. But one that goes on to wait for another event would wait for ever.
        await asyncio.wait((task,), timeout=_LAST_WORDS)
        task.cancel()

    async def _run(self) -> None:
        scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            with forks.confined():
                await self._app(scope, self._events.get, self._send)
        except (SystemExit, KeyboardInterrupt):
            raise
        # CancelledError also comes from what the application calls, and is then one like others.
        except BaseException as error:
            if self._is_cancelled():
                raise
            self._raised(error)
        else:
            self._returned()
        finally:
            self._phase = _Phase.ENDED
            self._answered.set()

    def _is_cancelled(self) -> bool:
        return self._task is not None and self._task.cancelling() > 0

    def _raised(self, error: BaseException) -> None:
        report = "".join(traceback.format_exception(error))
        if self._phase is _Phase.FAILED:
            self._failure = f"{self._failure}\n{report}"
        elif self._phase is not _Phase.STARTING:
            logger.error("the application's lifespan ended with an exception:\n%s", report)
        elif self._mode == "on":
            self._failure = report
        elif self._events.empty() and not isinstance(error, _NoLifespanEvent):
            # The specification has it served all the same, but this is no application that only
            # looks at the scope and says that it has no lifespan.
            logger.warning(
                "the application is served without its lifespan, whose startup raised (an error "
                'where lifespan = "on"):\n%s',
                report,
            )
        else:
            summary = "".join(traceback.format_exception_only(error)).partition("\n")[0]
            logger.debug("the application has no lifespan: it raised %s", summary)

    def _returned(self) -> None:
        if self._phase is _Phase.STARTING and self._mode == "on":
            self._failure = "the application returned without answering lifespan.startup"

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if (self._phase, kind) == (_Phase.STARTING, "lifespan.startup.complete"):
            self._phase = _Phase.RUNNING
            self._answered.set()
        elif (self._phase, kind) == (_Phase.STARTING, "lifespan.startup.failed"):
            self._phase = _Phase.FAILED
            self._failure = str(message.get("message") or "it gave no reason")
            self._answered.set()
        elif (self._phase, kind) == (_Phase.STOPPING, "lifespan.shutdown.complete"):
            self._answered.set()
        elif (self._phase, kind) == (_Phase.STOPPING, "lifespan.shutdown.failed"):
            logger.error("the application's shutdown failed: %s", message.get("message", ""))
            self._answered.set()
        else:
            raise _NoLifespanEvent(f"{kind!r} was sent to the lifespan while {self._phase.name}")
