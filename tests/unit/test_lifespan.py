"""The lifespan protocol, with applications that keep to it and applications that do not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest

from pounce.application.types import ASGIApp, Receive, Scope, Send
from pounce.asgi.lifespan import Lifespan
from pounce.errors import ApplicationError

PATIENCE = 25.0
Mode = Literal["auto", "on", "off"]
MODES: list[Mode] = ["auto", "on"]
Logged = pytest.LogCaptureFixture


def run(app: ASGIApp, mode: Mode = "auto", state: dict[str, Any] | None = None) -> None:
    """Startup and shutdown."""

    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            lifespan = Lifespan(app, mode, {} if state is None else state)
            await lifespan.startup()
            await lifespan.shutdown()

    asyncio.run(main())


@asynccontextmanager
async def started(app: ASGIApp, mode: Mode = "auto") -> AsyncIterator[Lifespan]:
    async with asyncio.timeout(PATIENCE):
        lifespan = Lifespan(app, mode, {})
        await lifespan.startup()
        yield lifespan
        await lifespan.shutdown()


def answering(*answers: str | dict[str, Any]) -> ASGIApp:
    """Receive an event and send an answer, in turn; then return."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for answer in answers:
            await receive()
            await send({"type": answer} if isinstance(answer, str) else answer)

    return app


STARTED = "lifespan.startup.complete"
STOPPED = "lifespan.shutdown.complete"


def startup_failed(**more: str) -> dict[str, Any]:
    return {"type": "lifespan.startup.failed", **more}


def shutdown_failed(**more: str) -> dict[str, Any]:
    return {"type": "lifespan.shutdown.failed", **more}


def error_of(call: Callable[[], object]) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("mode", MODES)
def test_the_events_and_their_order(mode: Mode) -> None:
    story: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        story.append(dict(scope))
        story.append(await receive())
        await send({"type": STARTED})
        story.append(await receive())
        await send({"type": STOPPED})
        story.append("returned")

    run(app, mode)
    scope = {
        "type": "lifespan",
        "asgi": {"version": "3.0", "spec_version": "2.0"},
        "state": {},
    }
    assert story == [
        scope,
        {"type": "lifespan.startup"},
        {"type": "lifespan.shutdown"},
        "returned",
    ]


def test_shutdown_comes_only_when_it_is_asked_for() -> None:
    received: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append((await receive())["type"])
        await send({"type": STARTED})
        received.append((await receive())["type"])
        await send({"type": STOPPED})

    async def main() -> None:
        async with started(app):
            for _ in range(5):
                await asyncio.sleep(0)
            assert received == ["lifespan.startup"]

    asyncio.run(main())


def test_what_the_application_puts_into_the_state_is_the_callers() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["pool"] = "made"
        await answering(STARTED, STOPPED)(scope, receive, send)

    state: dict[str, Any] = {"given": True}
    run(app, state=state)
    assert state == {"given": True, "pool": "made"}


def test_off_never_calls_the_application() -> None:
    called: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        called.append(scope)

    run(app, "off")
    assert not called


# Startup


@pytest.mark.parametrize("mode", MODES)
def test_startup_failed_with_a_message(mode: Mode) -> None:
    error = error_of(lambda: run(answering(startup_failed(message="no database")), mode))
    assert str(error) == "the application's startup failed\n  no database"


def test_startup_failed_without_a_message() -> None:
    error = error_of(lambda: run(answering(startup_failed())))
    assert error.hint == "it gave no reason"


def test_an_exception_after_startup_failed_is_told_as_well() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(startup_failed(message="no database"))
        raise ConnectionError("port 5432")

    error = error_of(lambda: run(app))
    assert error.hint.startswith("no database\nTraceback")
    assert error.hint.endswith("ConnectionError: port 5432\n")


def test_an_application_that_waits_on_after_startup_failed() -> None:
    """The specification's own example is a loop that returns only at the shutdown."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            await receive()
            await send(startup_failed(message="no database"))

    assert error_of(lambda: run(app)).hint == "no database"


def raises(scope: Scope, receive: Receive, send: Send) -> Any:
    async def app() -> None:
        raise KeyError(scope["type"])

    return app()


def test_raising_instead_of_answering_means_no_lifespan_in_auto(caplog: Logged) -> None:
    with caplog.at_level(logging.DEBUG, "pounce.error"):
        run(raises, "auto")
    [record] = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.getMessage() == "the application has no lifespan: it raised KeyError: 'lifespan'"


def test_answering_as_if_it_were_a_request_means_no_lifespan_in_auto(caplog: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200})

    with caplog.at_level(logging.DEBUG, "pounce.error"):
        run(app, "auto")
    [record] = caplog.records
    assert record.levelno == logging.DEBUG
    assert "'http.response.start' was sent" in record.getMessage()


def test_a_startup_that_raises_is_told_with_its_traceback_in_auto(caplog: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        raise OSError("the database is away")

    run(app, "auto")
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "served without its lifespan" in record.getMessage()
    assert record.getMessage().endswith("\nOSError: the database is away\n")


def test_raising_instead_of_answering_is_an_error_when_on() -> None:
    error = error_of(lambda: run(raises, "on"))
    assert "KeyError: 'lifespan'" in error.hint
    assert error.exit_code == 70


# Neither is an Exception, and libraries let both out.
EXTRAORDINARY = [
    asyncio.CancelledError("a pool gave up"),
    BaseExceptionGroup("a pool", [asyncio.CancelledError("it gave up")]),
]


@pytest.mark.parametrize("error", EXTRAORDINARY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("mode", MODES)
def test_an_extraordinary_exception_is_one_too(
    mode: Mode, error: BaseException, caplog: Logged
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    if mode == "on":
        assert "gave up" in error_of(lambda: run(app, mode)).hint
    else:
        with caplog.at_level(logging.DEBUG, "pounce.error"):
            run(app, mode)
        assert "the application has no lifespan: it raised " in caplog.text
        assert type(error).__name__ in caplog.text


def test_a_cancellation_by_the_application_itself_while_it_serves(caplog: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(STARTED)(scope, receive, send)
        raise asyncio.CancelledError("a pool gave up")

    run(app)
    assert "the application's lifespan ended with an exception" in caplog.text


def test_returning_without_an_answer_means_no_lifespan_in_auto() -> None:
    run(answering(), "auto")


def test_returning_without_an_answer_is_an_error_when_on() -> None:
    error = error_of(lambda: run(answering(), "on"))
    assert error.hint == "the application returned without answering lifespan.startup"


def test_a_cancelled_startup_ends_the_application() -> None:
    ended = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def main() -> None:
        startup = asyncio.create_task(Lifespan(app, "auto", {}).startup())
        await asyncio.sleep(0)
        startup.cancel()
        with pytest.raises(asyncio.CancelledError):
            await startup

    asyncio.run(main())
    assert ended == [True]


# Shutdown


def test_shutdown_failed_is_logged(caplog: Logged) -> None:
    run(answering(STARTED, shutdown_failed(message="flush failed")))
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "the application's shutdown failed: flush failed"


def test_raising_in_shutdown_is_logged(caplog: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(STARTED)(scope, receive, send)
        await receive()
        raise OSError("flush failed")

    run(app)
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "OSError: flush failed" in record.getMessage()


def test_raising_while_the_service_runs_is_logged(caplog: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(STARTED)(scope, receive, send)
        raise OSError("a background task ended")

    run(app)
    assert "OSError: a background task ended" in caplog.text


@pytest.mark.parametrize("answers", [(STARTED,), ()], ids=["returned early", "no lifespan"])
def test_nothing_to_shut_down(answers: tuple[str, ...]) -> None:
    async def main() -> None:
        async with started(answering(*answers)):
            for _ in range(5):
                await asyncio.sleep(0)

    asyncio.run(main())


def test_returning_without_answering_shutdown() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(STARTED)(scope, receive, send)
        await receive()

    run(app)


def test_an_application_that_waits_on_after_its_shutdown(caplog: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(STARTED, STOPPED)(scope, receive, send)
        await receive()

    run(app)
    assert not caplog.records


# Messages at the wrong time


@pytest.mark.parametrize(
    ("before", "message", "when"),
    [
        pytest.param([], STOPPED, "STARTING", id="stopped before it started"),
        pytest.param([], "http.response.start", "STARTING", id="of another protocol"),
        pytest.param([STARTED], STARTED, "RUNNING", id="started twice"),
        pytest.param([STARTED], STOPPED, "RUNNING", id="stopped unasked"),
        pytest.param([STARTED], "lifespan.startup.failed", "RUNNING", id="failed after started"),
        pytest.param(["lifespan.startup.failed"], STARTED, "FAILED", id="started after it failed"),
    ],
)
def test_a_message_at_the_wrong_time_is_the_applications_error(
    before: list[str], message: str, when: str
) -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for each in before:
            await send({"type": each})
        try:
            await send({"type": message})
        except RuntimeError as error:
            told.append(str(error))

    try:
        run(app)
    except ApplicationError:
        assert "lifespan.startup.failed" in before
    assert told == [f"{message!r} was sent to the lifespan while {when}"]
