"""pounce's loggers, and what an application's logging hears of them."""

import logging
import logging.config
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from pounce.events import log
from pounce.events.lifecycle import Kind, Slot
from pounce.events.loggers import Logger, get_logger

logger = get_logger("pounce.worker")


class Kept(logging.Handler):
    """A handler, and a voice, that keeps its records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.write = self.records.append

    def emit(self, record: logging.LogRecord) -> None:
        """Keep *record*."""
        self.records.append(record)

    def finish(self, deadline: float) -> None:
        """Nothing waits."""

    def forget(self) -> None:
        """Nothing waits."""

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def service() -> Kept:
    """The service's own log."""
    kept = Kept()
    log.use(log.routing("info", kept))
    return kept


@pytest.fixture
def handler() -> Iterator[Callable[[str], Kept]]:
    """Adds a handler of the application to one of its loggers."""
    added: list[tuple[logging.Logger, Kept]] = []

    def add(name: str) -> Kept:
        kept = Kept()
        added.append((logging.getLogger(name), kept))
        logging.getLogger(name).addHandler(kept)
        return kept

    yield add
    for each, kept in added:
        each.removeHandler(kept)


def in_worker(call: Callable[[], Any]) -> None:
    def main() -> None:
        log.identify(1, Slot(Kind.HTTP))
        call()

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()


def test_a_handler_of_pounces_logger_hears_the_workers(
    service: Kept, handler: Callable[[str], Kept]
) -> None:
    at_parent, at_name, at_other = map(handler, ("pounce", "pounce.worker", "pounce.access"))
    in_worker(lambda: logger.info("of a worker"))
    logger.info("of the supervisor")
    assert service.texts == ["of a worker", "of the supervisor"]
    assert at_parent.texts == at_name.texts == ["of a worker"]
    assert vars(at_name.records[0])["pounce"] == {"POUNCE_GENERATION": 1, "POUNCE_WORKER": 0}
    assert at_other.texts == []


def test_a_handler_of_the_root_does_not_repeat_pounce(
    service: Kept, handler: Callable[[str], Kept]
) -> None:
    root = handler("")
    in_worker(lambda: logger.warning("once"))
    assert (service.texts, root.texts) == (["once"], [])


def test_the_application_decides_what_its_handlers_hear(
    service: Kept, handler: Callable[[str], Kept]
) -> None:
    public, heard = logging.getLogger("pounce"), handler("pounce")
    public.setLevel(logging.ERROR)
    in_worker(lambda: logger.warning("not severe"))
    in_worker(lambda: logger.error("severe"))
    public.disabled = True
    logging.getLogger("pounce.worker").disabled = True
    in_worker(lambda: logger.error("disabled"))
    public.disabled = logging.getLogger("pounce.worker").disabled = False
    assert heard.texts == ["severe"]
    assert service.texts == ["not severe", "severe", "disabled"]


def test_a_reload_leaves_the_applications_settings_alone(service: Kept) -> None:
    public = logging.getLogger("pounce")
    public.setLevel(logging.ERROR)
    public.propagate = True
    log.use(log.routing("debug", service))
    assert (public.level, public.propagate) == (logging.ERROR, True)


def test_what_an_application_changes_in_a_record_is_its_own(
    service: Kept, handler: Callable[[str], Kept]
) -> None:
    def censor(record: logging.LogRecord) -> bool:
        record.msg, record.args = "censored", ()
        return True

    heard = handler("pounce")
    heard.addFilter(censor)
    in_worker(lambda: logger.info("a %s", "secret"))
    assert (service.texts, heard.texts) == (["a secret"], ["censored"])


def test_a_handler_that_raises_harms_nobody(service: Kept, handler: Callable[[str], Kept]) -> None:
    def fail(_record: logging.LogRecord) -> bool:
        raise LookupError

    handler("pounce").addFilter(fail)
    done: list[bool] = []

    def work() -> None:
        logger.info("told")
        done.append(True)

    in_worker(work)
    assert (service.texts, done) == (["told"], [True])


def test_an_error_reporter_that_replaces_a_method_hears_workers(
    service: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As sentry_sdk does."""
    heard: list[str] = []
    original = logging.Logger.callHandlers

    def report(self: logging.Logger, record: logging.LogRecord) -> None:
        heard.append(record.getMessage())
        original(self, record)

    monkeypatch.setattr(logging.Logger, "callHandlers", report)
    in_worker(lambda: logger.error("of a worker"))
    logger.error("of the supervisor")
    assert heard == ["of a worker"]
    assert service.texts == ["of a worker", "of the supervisor"]


def test_a_record_factory_is_the_applications(
    service: Kept, handler: Callable[[str], Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*args: Any, **named: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **named)
        record.request_id = 7
        return record

    heard = handler("pounce")
    monkeypatch.setattr(logging, "_logRecordFactory", make)
    in_worker(lambda: logger.info("told"))
    assert vars(heard.records[0])["request_id"] == 7
    assert "request_id" not in vars(service.records[0])


def test_logging_that_is_switched_off(service: Kept) -> None:
    logging.disable()
    try:
        in_worker(lambda: logger.info("told"))
        assert logger.isEnabledFor(logging.INFO)
    finally:
        logging.disable(logging.NOTSET)
    assert service.texts == ["told"]


def test_the_level_is_the_services(service: Kept) -> None:
    logging.getLogger("pounce.worker").setLevel(logging.DEBUG)
    in_worker(lambda: logger.debug("too little"))
    logging.getLogger("pounce.worker").setLevel(logging.NOTSET)
    assert service.texts == []
    log.use(log.routing("debug", service))
    logger.debug("enough")
    assert service.texts == ["enough"]


def test_a_logger_with_a_level_of_its_own(service: Kept) -> None:
    quiet = get_logger("pounce.websocket", logging.ERROR)
    quiet.warning("too little")
    quiet.error("enough")
    assert service.texts == ["enough"]


def test_a_logger_can_have_another_voice(service: Kept) -> None:
    access = Kept()
    log.use(log.routing("info", service, access))
    get_logger("pounce.access").info("a request")
    logger.info("something else")
    assert (access.texts, service.texts) == (["a request"], ["something else"])


def test_what_an_application_has_no_handler_for(
    service: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    theirs = logging.getLogger("of.the.application")
    in_worker(lambda: theirs.warning("heard"))
    theirs.info("not severe, as ever")
    assert service.texts == ["heard"]
    assert vars(service.records[0])["pounce"] == {"POUNCE_GENERATION": 1, "POUNCE_WORKER": 0}


def test_without_a_service_everything_is_the_programs(caplog: pytest.LogCaptureFixture) -> None:
    assert Logger.routing is None
    in_worker(lambda: logger.warning("of a worker"))
    logger.warning("of the supervisor")
    logger.info("not severe")
    assert caplog.messages == ["of a worker", "of the supervisor"]


# A program that pounce runs in


def configure_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the handlers that pytest has added before the test's first line."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


def read_standard_error(monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> int:
    """Make a pipe standard error; its reading end."""
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    stack.callback(os.close, writer)
    kept = os.dup(2)
    stack.callback(os.close, kept)
    stack.callback(os.dup2, kept, 2)
    os.dup2(writer, 2)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    os.set_blocking(reader, False)
    return reader


def test_a_program_that_disables_loggers_hears_pounce(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("pounce", "pounce.worker"):
        logging.getLogger(name).disabled = True
    try:
        logger.warning("severe")
        logger.info("not severe")
    finally:
        for name in ("pounce", "pounce.worker"):
            logging.getLogger(name).disabled = False
    assert caplog.messages == ["severe"]


def test_a_program_may_filter_pounces_records(caplog: pytest.LogCaptureFixture) -> None:
    def other(record: logging.LogRecord) -> bool:
        return record.getMessage() != "unwanted"

    public = logging.getLogger("pounce.worker")
    public.addFilter(other)
    try:
        logger.warning("unwanted")
        logger.warning("wanted")
    finally:
        public.removeFilter(other)
    assert caplog.messages == ["wanted"]


def test_without_a_handler_standard_error_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    """Nobody reads the pipe, and it holds 64 KiB."""
    configure_nothing(monkeypatch)
    stderr = read_standard_error(monkeypatch, stack)
    logger.warning("first")
    logger.info("not severe")
    for _ in range(1000):
        logger.warning("x" * 1000)
    found = b""
    with suppress(BlockingIOError):
        while piece := os.read(stderr, 65_536):
            found += piece
            log.flush()
    assert found.startswith(b"first\nxxx")
    assert b"\nthe log can be written again; records lost: " in found


def test_without_a_handler_a_redirected_standard_error_is_followed(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack, tmp_path: Path
) -> None:
    configure_nothing(monkeypatch)
    stderr = read_standard_error(monkeypatch, stack)
    logger.warning("before")
    with (tmp_path / "err").open("wb") as file:
        os.dup2(file.fileno(), 2)
    logger.warning("after")
    assert os.read(stderr, 100) == b"before\n"
    assert (tmp_path / "err").read_bytes() == b"after\n"


def test_what_the_program_puts_in_the_place_of_standard_error_gets_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_nothing(monkeypatch)
    logger.warning("heard")
    assert capsys.readouterr().err == "heard\n"
    monkeypatch.setattr(logging, "lastResort", None)
    logger.warning("nobody wants to hear it")
    assert capsys.readouterr().err == ""
