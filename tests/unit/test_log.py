"""The log, as it arrives at standard error."""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from pounce.events import lifecycle, log
from pounce.events.lifecycle import (
    LIFESPAN,
    BudgetSpent,
    CommandFailed,
    CommandStarted,
    CommandStopped,
    GenerationReady,
    GenerationRetired,
    HealthChecked,
    Kind,
    LifecycleEvent,
    Phase,
    ReloadCompleted,
    ReloadFailed,
    ReloadStarted,
    Slot,
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
from pounce.events.loggers import Logger, get_logger
from pounce.events.outlets import Stream
from pounce.events.story import LogCollector


class Reader:
    """The reading end of what the log is written to."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        self.outlet = Stream(writer)

    def configure(self, level: str, style: Literal["text", "json"] = "text") -> None:
        log.use(log.routing(level, log.Spooled(log.open_spool(self.outlet), log.encoder(style))))

    def read(self) -> str:
        with suppress(BlockingIOError):
            return os.read(self._reader, 65_536).decode()
        return ""

    def close(self) -> None:
        os.close(self._reader)
        self.outlet.close()


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


class Kept:
    """A voice that keeps its records."""

    def __init__(self) -> None:
        self.records: list[logging.LogRecord] = []
        self.write = self.records.append

    def flush(self) -> None:
        """Nothing waits."""

    def finish(self, deadline: float) -> None:
        """Nothing waits."""

    def forget(self) -> None:
        """Nothing waits."""


def emit(message: str, level: int = logging.INFO, **fields: Any) -> None:
    get_logger("pounce.worker").log(level, message, extra={"pounce": fields})


def as_worker(generation: int, slot: int, message: str, **fields: Any) -> None:
    def main() -> None:
        log.identify(generation, Slot(Kind.HTTP, slot))
        emit(message, **fields)

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()


def test_text(reader: Reader) -> None:
    reader.configure("info")
    emit("hello")
    line = reader.read()
    assert line.endswith(" INFO    hello\n")
    assert len(line.split()[0]) == len("2026-01-31")


def test_text_names_the_worker(reader: Reader) -> None:
    reader.configure("info")
    as_worker(3, 1, "hello")
    assert reader.read().endswith(" INFO    [3.1] hello\n")


def test_text_has_the_traceback(reader: Reader) -> None:
    reader.configure("info")
    try:
        int("out of luck")
    except ValueError:
        get_logger("pounce.error").exception("it failed")
    told = reader.read()
    assert " ERROR   it failed\nTraceback" in told
    assert told.endswith("ValueError: invalid literal for int() with base 10: 'out of luck'\n")


def test_json(reader: Reader) -> None:
    reader.configure("info", "json")
    as_worker(3, 1, "two\nlines", POUNCE_REQUEST="GET /", POUNCE_OBJECT=ValueError("odd"))
    [line] = reader.read().splitlines()
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


def test_what_a_record_says_itself_wins_over_who_says_it(reader: Reader) -> None:
    reader.configure("info", "json")
    as_worker(3, 1, "about another", POUNCE_WORKER=7)
    assert json.loads(reader.read())["pounce_worker"] == 7


def test_a_record_that_cannot_be_formatted_is_told_nevertheless(reader: Reader) -> None:
    reader.configure("info")
    get_logger("pounce.worker").warning("%d of them", "many")
    assert reader.read().endswith(" WARNING a record cannot be formatted, TypeError: %d of them\n")


class Speechless:
    """What an application may log by mistake."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_object_that_cannot_be_a_text_is_named_by_its_type(
    reader: Reader, style: Literal["text", "json"]
) -> None:
    reader.configure("info", style)
    get_logger("pounce.worker").warning(Speechless())
    text = "a record cannot be formatted, RuntimeError: an object of type Speechless"
    assert text in reader.read()


def test_lost_records_are_told_at_any_level(reader: Reader) -> None:
    reader.configure("error")
    for _ in range(1000):
        emit("x" * 1000, logging.ERROR)
    found = ""
    while piece := reader.read():
        found += piece
        log.flush()
    assert " WARNING the log can be written again; records lost: " in found


def test_each_thread_has_its_own_identity(reader: Reader) -> None:
    reader.configure("info")
    emit("before")
    for slot in range(3):
        as_worker(1, slot, f"from {slot}")
    emit("after")
    told = reader.read()
    assert all(f"[1.{slot}] from {slot}\n" in told for slot in range(3))
    assert "INFO    before\n" in told
    assert "INFO    after\n" in told


def test_the_threads_of_a_process_that_is_a_worker_have_its_identity(reader: Reader) -> None:
    reader.configure("info")
    log.identify(2, Slot(Kind.HTTP, 5))
    thread = threading.Thread(target=emit, args=("from a thread",))
    thread.start()
    thread.join()
    assert reader.read().endswith("[2.5] from a thread\n")


def test_what_an_application_sets_for_all_formatters(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.Formatter, "converter", lambda _seconds: time.gmtime(0))
    logging.addLevelName(logging.INFO, "\x1b[32mINFO\x1b[0m")
    try:
        reader.configure("info")
        emit("hello")
    finally:
        logging.addLevelName(logging.INFO, "INFO")
    line = reader.read()
    assert line.endswith(" INFO    hello\n")
    assert not line.startswith("1970")


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_does_not_write_what_waits_in_its_parent(reader: Reader) -> None:
    reader.configure("info")
    for _ in range(2000):
        emit("x" * 100)
    pid = os.fork()
    if pid == 0:
        while reader.read():
            pass
        log.flush()
        os._exit(bool(reader.read()))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    log.flush()
    assert reader.read()


def test_the_level(reader: Reader) -> None:
    reader.configure("warning")
    emit("quiet", logging.INFO)
    emit("loud", logging.WARNING)
    assert "quiet" not in (told := reader.read())
    assert "loud" in told


def test_configuring_again_repeats_nothing(reader: Reader) -> None:
    reader.configure("info")
    reader.configure("info")
    emit("once")
    assert reader.read().count("once") == 1


# The service's story

D, INFO, W, E = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

STORY: list[tuple[LifecycleEvent, int, str]] = [
    (CommandStarted(1, "manage.py migrate"), INFO, "generation 1: running 'manage.py migrate'"),
    (CommandFailed(1, "'true' failed"), E, "'true' failed"),
    (CommandStopped(1, "'true': it was killed"), W, "'true': it was killed"),
    (WorkerStarted(1, Slot(Kind.HTTP, 0), 42), D, "worker 0 (42) started"),
    (WorkerReady(1, Slot(Kind.HTTP, 0), 42), INFO, "worker 0 (42) is ready"),
    (WorkerReady(1, LIFESPAN, 42), INFO, "the lifespan (42) is ready"),
    (
        WorkerFailed(1, Slot(Kind.HTTP, 0), 42, "no module"),
        E,
        "worker 0 (42) did not become ready: no module",
    ),
    (
        WorkerCrashed(1, Slot(Kind.HTTP, 0), 42, "it was killed by SIGKILL", 0.4),
        E,
        "worker 0 (42) ended unasked: it was killed by SIGKILL; next one in 0.4 s",
    ),
    (
        WorkerCrashed(1, LIFESPAN, 42, "it ended with status 1", None),
        E,
        "the lifespan (42) ended unasked: it ended with status 1",
    ),
    (
        WorkerHung(1, Slot(Kind.HTTP, 0), 42, 30.04, "File app.py"),
        E,
        "worker 0 (42) was silent for 30.0 s and is replaced; it stood at:\nFile app.py",
    ),
    (
        WorkerStopped(1, Slot(Kind.HTTP, 0), 42, "exited with status 0", forced=False),
        INFO,
        "worker 0 (42) stopped: it exited with status 0",
    ),
    (
        WorkerStopped(1, Slot(Kind.HTTP, 0), 42, "was killed by SIGKILL", forced=True),
        W,
        "worker 0 (42) took too long to end: it was killed by SIGKILL",
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
def test_an_event_is_told(event: LifecycleEvent, level: int, text: str) -> None:
    kept = Kept()
    log.use(log.routing("debug", kept))
    LogCollector().collect(event)
    [record] = kept.records
    assert (record.levelno, record.getMessage(), record.name) == (
        level,
        text,
        "pounce.supervisor",
    )
    expected: dict[str, Any] = {"POUNCE_EVENT": type(event).__name__}
    if (generation := getattr(event, "generation", None)) is not None:
        expected["POUNCE_GENERATION"] = generation
    if isinstance(event, WorkerEvent):
        expected |= {"POUNCE_WORKER": event.slot.name, "POUNCE_TARGET": 42}
    assert vars(record)["pounce"] == expected


def test_a_reason_is_told_in_full_once() -> None:
    kept = Kept()
    log.use(log.routing("info", kept))
    collector, reason = LogCollector(), "importing 'shop' failed\n  Traceback ..."
    for event in (
        WorkerFailed(2, Slot(Kind.HTTP, 0), 42, reason),
        WorkerFailed(2, Slot(Kind.HTTP, 1), 43, reason),
        ReloadFailed(2, reason),
        WorkerFailed(3, Slot(Kind.HTTP, 0), 44, "importing 'shop' failed\n  another Traceback ..."),
        ReloadFailed(3, "its configuration\nhas two mistakes"),
        WorkerReady(4, Slot(Kind.HTTP, 0), 45),
        WorkerFailed(4, Slot(Kind.HTTP, 0), 46, "its configuration\nhas two mistakes"),
    ):
        collector.collect(event)
    assert [record.getMessage().partition(": ")[2] for record in kept.records] == [
        reason,
        "importing 'shop' failed (more above)",
        "the old code still serves: importing 'shop' failed (more above)".partition(": ")[2],
        "importing 'shop' failed\n  another Traceback ...",
        "its configuration\nhas two mistakes",
        "",
        "its configuration\nhas two mistakes",
    ]


def test_the_health_check_is_not_told() -> None:
    kept = Kept()
    log.use(log.routing("debug", kept))
    LogCollector().collect(HealthChecked(Phase.SERVING, 1, 2, 2, 0, 0, True, 1.0, 0.0))
    assert not kept.records


def test_every_event_is_in_the_story() -> None:
    abstract = {LifecycleEvent, WorkerEvent}
    events = {
        value
        for value in vars(lifecycle).values()
        if isinstance(value, type) and issubclass(value, LifecycleEvent)
    }
    assert {type(event) for event, _, _ in STORY} == events - abstract - {HealthChecked}


def test_a_record_for_a_log_that_was_just_closed_goes_to_the_next(tmp_path: Path) -> None:
    """Threads write while a reload changes access_log."""
    old, new = (log.open_access_log(str(tmp_path / name)) for name in ("old", "new"))
    before = log.routing("info", Kept(), old)
    log.use(log.routing("info", Kept(), new))
    log.drop(before, kept=Logger.routing)
    old.write(logging.makeLogRecord({"name": "pounce.access", "msg": "a line"}))
    assert (tmp_path / "new").read_text() == "a line\n"
    assert (tmp_path / "old").read_text() == ""
    new.spool.close()
