"""Journal entries as they arrive at the journal's socket."""

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pounce.events.log import Spooled, flush, open_spool, routing, use
from pounce.events.loggers import get_logger
from pounce.systemd.journal import (
    JournalSocket,
    encode_entry,
    encode_record,
    stderr_is_journal,
)

Entry = dict[str, str]


class Journal:
    """The receiving end of the native journal protocol."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(25)

    def entry(self) -> Entry:
        data, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 20, 1)
        for descriptor in descriptors:
            with os.fdopen(descriptor, "rb") as file:
                data = os.pread(descriptor, 1 << 26, 0)
                with pytest.raises(PermissionError):  # sealed: nobody can change it any more
                    os.pwrite(file.fileno(), b"x", 0)
        return parse(data)


def parse(data: bytes) -> Entry:
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            [size] = struct.unpack_from("<Q", data)
            value, data = data[8 : 8 + size], data[8 + size :]
            assert data[:1] == b"\n"
            data = data[1:]
        fields[name.decode()] = value.decode()
    return fields


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "socket")
    yield journal
    journal.socket.close()


@pytest.fixture
def log(journal: Journal) -> Iterator[logging.Logger]:
    spool = open_spool(JournalSocket(journal.path))
    use(routing("debug", Spooled(spool, encode_record)))
    yield get_logger("pounce.test", 1)
    spool.close()


def test_an_entry_tells_what_and_where(log: logging.Logger, journal: Journal) -> None:
    log.info("serving %d workers", 4)
    entry = journal.entry()
    assert int(entry.pop("CODE_LINE")) > 1
    assert entry == {
        "MESSAGE": "serving 4 workers",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "pounce",
        "LOGGER": "pounce.test",
        "CODE_FILE": __file__,
        "CODE_FUNC": "test_an_entry_tells_what_and_where",
    }


def test_fields_of_the_record_are_added(log: logging.Logger, journal: Journal) -> None:
    log.info("ready", extra={"pounce": {"POUNCE_WORKER": 3, "POUNCE_GENERATION": 2}})
    entry = journal.entry()
    assert (entry["POUNCE_WORKER"], entry["POUNCE_GENERATION"]) == ("3", "2")


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.DEBUG, "7"),
        (logging.INFO, "6"),
        (logging.WARNING, "4"),
        (logging.ERROR, "3"),
        (logging.CRITICAL, "2"),
        (logging.INFO + 5, "6"),
        (5, "7"),
        (100, "2"),
    ],
)
def test_levels_become_syslog_priorities(
    log: logging.Logger, journal: Journal, level: int, priority: str
) -> None:
    log.handle(log.makeRecord(log.name, level, __file__, 1, "message", (), None))
    assert journal.entry()["PRIORITY"] == priority


def test_a_traceback_is_one_entry(log: logging.Logger, journal: Journal) -> None:
    try:
        int("many")
    except ValueError:
        log.exception("request failed")
    message = journal.entry()["MESSAGE"].splitlines()
    assert message[0] == "request failed"
    assert message[-1] == "ValueError: invalid literal for int() with base 10: 'many'"


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ("plain", b"F=plain\n"),
        ("", b"F=\n"),
        ("a=b", b"F=a=b\n"),
        ("two\nlines", b"F\n\x09\0\0\0\0\0\0\0two\nlines\n"),
        ("naïve", "F=naïve\n".encode()),
        ("\udcff", b"F=\\udcff\n"),
        (7, b"F=7\n"),
    ],
)
def test_encoding(value: object, data: bytes) -> None:
    assert encode_entry({"F": value}) == data


def test_a_value_cannot_forge_a_field(log: logging.Logger, journal: Journal) -> None:
    log.info("innocent\nPRIORITY=0\nPOUNCE_WORKER=9")
    entry = journal.entry()
    assert entry["PRIORITY"] == "6"
    assert "POUNCE_WORKER" not in entry


def test_an_entry_larger_than_a_datagram_is_passed_sealed(
    log: logging.Logger, journal: Journal
) -> None:
    message = "x" * (8 << 20)
    log.info(message)
    assert journal.entry()["MESSAGE"] == message


def test_threads_share_a_handler(log: logging.Logger, journal: Journal) -> None:
    threads = [threading.Thread(target=log.info, args=(f"{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    messages = {journal.entry()["MESSAGE"] for _ in threads}
    for thread in threads:
        thread.join()
    assert messages == {str(n) for n in range(8)}


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_logs_too(log: logging.Logger, journal: Journal) -> None:
    pid = os.fork()
    if pid == 0:
        log.info("child %d", os.getpid())
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert journal.entry()["MESSAGE"] == f"child {pid}"


def test_the_journal_may_be_restarted(log: logging.Logger, journal: Journal) -> None:
    log.info("before")
    journal.entry()
    journal.socket.close()
    journal.path.unlink()
    log.info("meanwhile")
    reborn = Journal(journal.path)
    log.info("after")
    assert [reborn.entry()["MESSAGE"] for _ in range(2)] == ["meanwhile", "after"]
    reborn.socket.close()


def test_a_stuck_journal_costs_records_but_no_time(log: logging.Logger, journal: Journal) -> None:
    start = time.monotonic()
    for number in range(5000):
        log.info("%d %s", number, "x" * 1000)
    assert time.monotonic() - start < 30
    told: list[str] = []
    while not told or not told[-1].startswith("the log"):
        told.append(journal.entry()["MESSAGE"])
        flush()
    *numbers, report = told
    counted = int(report.split("records lost: ")[1].split()[0])
    assert len(numbers) + counted == 5000
    assert numbers[0].startswith("0 ")
    assert numbers[-1].startswith("4999 ")
    assert "its reader was too slow" in report


def test_a_large_entry_waits_for_a_stuck_journal(log: logging.Logger, journal: Journal) -> None:
    for number in range(1000):
        log.info("%d", number)
    log.info("y" * (1 << 20))
    message = ""
    while not message.startswith("y"):
        message = journal.entry()["MESSAGE"]
        flush()
    assert message == "y" * (1 << 20)


def test_without_a_journal_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        JournalSocket(tmp_path / "socket")


def test_stderr_is_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert stderr_is_journal()
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
    assert not stderr_is_journal()
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not stderr_is_journal()
