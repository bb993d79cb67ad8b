"""The log, as it arrives at standard error."""

import contextvars
import json
import logging
import sys
import threading
from typing import Any

import pytest

from pounce import lifecycle, log
from pounce.lifecycle import (
    BudgetSpent,
    GenerationReady,
    GenerationRetired,
    HealthChecked,
    LifecycleEvent,
    Phase,
    ReloadCompleted,
    ReloadFailed,
    ReloadStarted,
    Stopped,
    Stopping,
    WorkerCrashed,
    WorkerEvent,
    WorkerFailed,
    WorkerHung,
    WorkerReady,
    WorkerStarted,
    WorkerStopped,
)

Captured = pytest.CaptureFixture[str]
Logged = pytest.LogCaptureFixture


def emit(message: str, level: int = logging.INFO, **fields: Any) -> None:
    logging.getLogger("pounce.worker").log(level, message, extra={"pounce": fields})


def as_worker(generation: int, slot: int, message: str, **fields: Any) -> None:
    def main() -> None:
        log.identify(generation, slot)
        emit(message, **fields)

    contextvars.Context().run(main)


def test_a_handler_that_stays_is_not_closed_and_one_that_goes_is_after_its_successor_came() -> None:
    logger = logging.getLogger("pounce")
    closed: list[logging.Handler] = []

    class Handler(logging.NullHandler):
        def close(self) -> None:
            assert self not in logger.handlers
            closed.append(self)
            super().close()

    first, second = Handler(), Handler()
    log.configure("info", "text", first)
    log.configure("debug", "text", first)
    assert closed == []
    log.configure("info", "text", second)
    assert closed == [first]


def test_text(capsys: Captured) -> None:
    log.configure("info", "text")
    emit("hello")
    line = capsys.readouterr().err
    assert line.endswith(" INFO    hello\n")
    assert len(line.split()[0]) == len("2026-01-31")


def test_text_names_the_worker(capsys: Captured) -> None:
    log.configure("info", "text")
    as_worker(3, 1, "hello")
    assert capsys.readouterr().err.endswith(" INFO    [3.1] hello\n")


def test_text_has_the_traceback(capsys: Captured) -> None:
    log.configure("info", "text")
    try:
        int("out of luck")
    except ValueError:
        logging.getLogger("pounce.error").exception("it failed")
    told = capsys.readouterr().err
    assert " ERROR   it failed\nTraceback" in told
    assert told.endswith("ValueError: invalid literal for int() with base 10: 'out of luck'\n")


def test_json(capsys: Captured) -> None:
    log.configure("info", "json")
    as_worker(3, 1, "two\nlines", POUNCE_REQUEST="GET /", POUNCE_OBJECT=ValueError("odd"))
    [line] = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert told.pop("time")[10] == "T"
    assert told == {
        "level": "info",
        "logger": "pounce.worker",
        "message": "two\nlines",
        "pounce_generation": 3,
        "pounce_worker": 1,
        "pounce_request": "GET /",
        "pounce_object": "odd",
    }


def test_what_a_record_says_itself_wins_over_who_says_it(capsys: Captured) -> None:
    log.configure("info", "json")
    as_worker(3, 1, "about another", POUNCE_WORKER=7)
    assert json.loads(capsys.readouterr().err)["pounce_worker"] == 7


def test_each_thread_has_its_own_identity(capsys: Captured) -> None:
    log.configure("info", "text")
    emit("before")
    threads = [
        threading.Thread(target=as_worker, args=(1, slot, f"from {slot}")) for slot in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    emit("after")
    told = capsys.readouterr().err
    assert all(f"[1.{slot}] from {slot}\n" in told for slot in range(3))
    assert "INFO    before\n" in told
    assert "INFO    after\n" in told


def test_the_level(capsys: Captured) -> None:
    log.configure("warning", "text")
    emit("quiet", logging.INFO)
    emit("loud", logging.WARNING)
    assert "quiet" not in (told := capsys.readouterr().err)
    assert "loud" in told


def test_configuring_again_repeats_nothing(capsys: Captured) -> None:
    log.configure("info", "text")
    log.configure("info", "text")
    emit("once")
    assert capsys.readouterr().err.count("once") == 1


def test_the_applications_logging_neither_repeats_nor_silences_it(capsys: Captured) -> None:
    log.configure("info", "text")
    root = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(root)
    try:
        emit("once")
    finally:
        logging.getLogger().removeHandler(root)
    assert capsys.readouterr().err.count("once") == 1


def test_a_handler_of_ones_own_gets_the_identity(caplog: Logged) -> None:
    log.configure("info", "text", caplog.handler)
    as_worker(3, 1, "hello")
    [record] = caplog.records
    assert vars(record)["pounce"] == {"POUNCE_GENERATION": 3, "POUNCE_WORKER": 1}
    caplog.handler.filters.clear()


# The service's story

D, INFO, W, E = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

STORY: list[tuple[LifecycleEvent, int, str]] = [
    (WorkerStarted(1, 0, 42), D, "worker 0 (42) started"),
    (WorkerReady(1, 0, 42), INFO, "worker 0 (42) is ready"),
    (WorkerReady(1, -1, 42), INFO, "the lifespan (42) is ready"),
    (WorkerFailed(1, 0, 42, "no module"), E, "worker 0 (42) did not become ready: no module"),
    (
        WorkerCrashed(1, 0, 42, "it was killed by SIGKILL", 0.4),
        E,
        "worker 0 (42) ended unasked: it was killed by SIGKILL; next one in 0.4 s",
    ),
    (
        WorkerCrashed(1, -1, 42, "it ended with status 1", None),
        E,
        "the lifespan (42) ended unasked: it ended with status 1",
    ),
    (
        WorkerHung(1, 0, 42, 30.04, "File app.py"),
        E,
        "worker 0 (42) was silent for 30.0 s and is replaced; it stood at:\nFile app.py",
    ),
    (
        WorkerStopped(1, 0, 42, "exited with status 0", forced=False),
        INFO,
        "worker 0 (42) stopped: it exited with status 0",
    ),
    (
        WorkerStopped(1, 0, 42, "was killed by SIGKILL", forced=True),
        W,
        "worker 0 (42) had to be stopped by force; it was killed by SIGKILL",
    ),
    (GenerationReady(2, 4), INFO, "generation 2 serves: 4 workers"),
    (GenerationRetired(1), INFO, "generation 1 is retired"),
    (ReloadStarted(2), INFO, "reload: starting generation 2"),
    (ReloadCompleted(2), INFO, "reload: generation 2 has taken over"),
    (ReloadFailed(2, "no module"), E, "reload failed, the old code still serves: no module"),
    (
        BudgetSpent(30, 60.0),
        E,
        "30 worker restarts in 60 s: no more until the window (restart_window) has passed",
    ),
    (Stopping("as asked", 30.0), INFO, "stopping, as asked; at most 30 s to drain"),
    (Stopped(), INFO, "stopped"),
]


@pytest.mark.parametrize(("event", "level", "text"), STORY, ids=lambda value: type(value).__name__)
def test_an_event_is_told(event: LifecycleEvent, level: int, text: str, caplog: Logged) -> None:
    log.configure("debug", "text", caplog.handler)
    log.LogCollector().collect(event)
    [record] = caplog.records
    assert (record.levelno, record.getMessage(), record.name) == (
        level,
        text,
        "pounce.supervisor",
    )
    expected: dict[str, Any] = {"POUNCE_EVENT": type(event).__name__}
    if (generation := getattr(event, "generation", None)) is not None:
        expected["POUNCE_GENERATION"] = generation
    if isinstance(event, WorkerEvent):
        expected |= {"POUNCE_WORKER": event.slot, "POUNCE_TARGET": 42}
    assert vars(record)["pounce"] == expected
    caplog.handler.filters.clear()


def test_the_health_check_is_not_told(caplog: Logged) -> None:
    log.configure("debug", "text", caplog.handler)
    log.LogCollector().collect(HealthChecked(Phase.SERVING, 1, 2, 2, 0, 0, True, 1.0, 0.0))
    assert not caplog.records
    caplog.handler.filters.clear()


def test_every_event_is_in_the_story() -> None:
    abstract = {LifecycleEvent, WorkerEvent}
    events = {
        value
        for value in vars(lifecycle).values()
        if isinstance(value, type) and issubclass(value, LifecycleEvent)
    }
    assert {type(event) for event, _, _ in STORY} == events - abstract - {HealthChecked}
