"""Moments as people write them."""

import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from pounce.systemd.moments import parse

NOW = datetime(2026, 11, 30, 12, 34, 56)
MIDNIGHT = datetime(2026, 11, 30)

MOMENTS = {
    "now": NOW,
    "today": MIDNIGHT,
    "Yesterday": MIDNIGHT - timedelta(days=1),
    "10 min ago": NOW - timedelta(minutes=10),
    "2h 5 minutes ago": NOW - timedelta(hours=2, minutes=5),
    "-1.5h": NOW - timedelta(minutes=90),
    "-30s": NOW - timedelta(seconds=30),
    "1 week ago": NOW - timedelta(days=7),
    "09:15": MIDNIGHT + timedelta(hours=9, minutes=15),
    "09:15:30": MIDNIGHT + timedelta(hours=9, minutes=15, seconds=30),
    "2026-11-29": MIDNIGHT - timedelta(days=1),
    "2026-11-29 10:00": MIDNIGHT - timedelta(hours=14),
    " 2026-11-29T10:00:01 ": MIDNIGHT - timedelta(hours=14) + timedelta(seconds=1),
    "2026-11-30 14:00+02:00": MIDNIGHT + timedelta(hours=13),
    "2026-07-01 14:00+02:00": datetime(2026, 7, 1, 14),
}


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where clocks are an hour behind UTC's in winter, and two in summer."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    os.environ.pop("TZ")
    time.tzset()


@pytest.mark.parametrize("text", MOMENTS)
def test_a_moment(text: str) -> None:
    assert parse(text, NOW) == MOMENTS[text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "10",
        "ago",
        "-",
        "5 parsecs ago",
        "10 min",
        "3 x 4 min ago",
        "25:00",
        "99999999999 days ago",
    ],
)
def test_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match=r"no span|first day|[Ii]nvalid isoformat|hour must"):
        parse(text, NOW)


def test_a_moment_before_the_clocks_changed() -> None:
    assert parse("2026-07-01 14:05", NOW).timestamp() == 1_782_907_500
