"""Entries as `pounce log` shows them: any process of a service may write odd ones."""

from datetime import datetime
from typing import Any

import pytest

from pounce.cli.log import _line

WHEN = datetime(2026, 11, 30, 12, 0, 1)

ENTRIES: list[tuple[dict[str, Any], str]] = [
    (
        {"SYSLOG_IDENTIFIER": "pounce", "_PID": 7, "MESSAGE": "it serves"},
        "Nov 30 12:00:01 pounce[7]: it serves",
    ),
    (
        {"_PID": 7, "POUNCE_WORKER": "0", "POUNCE_GENERATION": "2", "MESSAGE": "Traceback:\nline"},
        "Nov 30 12:00:01 -[7] worker 0 generation 2: Traceback:\n    line",
    ),
    ({"MESSAGE": ["first", "last"]}, "Nov 30 12:00:01 -[-]: last"),
    ({"MESSAGE": b"\xff\x00"}, "Nov 30 12:00:01 -[-]: \N{REPLACEMENT CHARACTER}\\x00"),
    ({"MESSAGE": "\x1b]0;pwned\x07"}, "Nov 30 12:00:01 -[-]: \\x1b]0;pwned\\x07"),
    ({}, "Nov 30 12:00:01 -[-]: "),
]


@pytest.mark.parametrize(("entry", "line"), ENTRIES)
def test_an_entry(entry: dict[str, Any], line: str) -> None:
    assert _line({"__REALTIME_TIMESTAMP": WHEN, **entry}) == line
