"""What holds for all tests."""

import faulthandler
import importlib.util
import logging
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pounce.events.loggers import Logger, identity

DESCRIPTORS = 16384
"""What hundreds of clients and their server need; a login's soft limit is 1024."""


SERVES_HTTP3 = importlib.util.find_spec("aioquic") is not None
"""A free-threaded interpreter has no aioquic."""


class WithoutHTTP3(pytest.Module):
    """A file of tests that cannot even be imported; a run tells that it has skipped the file."""

    def collect(self) -> NoReturn:
        """Nothing."""
        pytest.skip(
            f"aioquic, which {self.name} needs, cannot be imported", allow_module_level=True
        )


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    """Skip the tests of HTTP/3 where it cannot be served."""
    if SERVES_HTTP3 or not module_path.name.startswith("test_http3"):
        return None
    return WithoutHTTP3.from_parent(parent, path=module_path)


AFTERWARDS = 60.0
"""Seconds that a test has to end in, once its time is up."""

_stderr = pytest.StashKey[int]()


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    """End pytest, with the stacks of its threads, where a test does not end in its timeout.

    The timeout is an exception, raised once: what cleans up behind it may wait without end, as
    uvloop's Loop.close() may in C.
    """
    stderr = item.config.stash[_stderr]
    faulthandler.dump_traceback_later(settings.timeout + AFTERWARDS, exit=True, file=stderr)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer() -> None:
    """The test has ended."""
    faulthandler.cancel_dump_traceback_later()


def pytest_configure(config: pytest.Config) -> None:
    """Have the programs that tests start begin as from a login, whoever has started the tests."""
    config.stash[_stderr] = os.dup(2)  # nothing is captured yet
    _raise_limit_of_descriptors()
    # nohup ignores SIGHUP, and a shell's & SIGINT and SIGQUIT; only a handler ends with exec(3).
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def _raise_limit_of_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < DESCRIPTORS:
        wanted = DESCRIPTORS if hard == unlimited else min(hard, DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.fixture(autouse=True)
def _directory_as_it_was() -> Iterator[None]:
    """Worker threads that ran in this process have gone to their application's directory."""
    before = Path.cwd()
    yield
    os.chdir(before)


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """A service that ran in this process has taken pounce's log; the next test reads it."""
    logger = logging.getLogger("pounce")
    before = [*logger.handlers], logger.level, logger.propagate
    last_resort = logging.lastResort
    yield
    Logger.routing = None
    identity.set(None)
    logger.handlers, level, logger.propagate = before
    logger.setLevel(level)
    logging.lastResort = last_resort


@pytest.fixture(autouse=True)
def _applications_are_right(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a test asserts within an application fails the test; the server only logs it."""
    yield
    for record in caplog.get_records("call"):
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, (AssertionError, pytest.fail.Exception)):
            pytest.fail(f"within the application: {error or record.getMessage()}")
