"""Moments as people write them: the simple forms of systemd.time(7)."""

import re
from contextlib import suppress
from datetime import datetime, timedelta

_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), timedelta(seconds=1)),
    **dict.fromkeys(("m", "min", "minute", "minutes"), timedelta(minutes=1)),
    **dict.fromkeys(("h", "hr", "hour", "hours"), timedelta(hours=1)),
    **dict.fromkeys(("d", "day", "days"), timedelta(days=1)),
    **dict.fromkeys(("w", "week", "weeks"), timedelta(weeks=1)),
}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*")
_CLOCKS = ("%H:%M:%S", "%H:%M")

FORMS = '"2026-11-30 14:05", "14:05", "today", "yesterday", "10 min ago" or "-2h"'
"""Examples, for help and errors."""


def parse(text: str, now: datetime) -> datetime:
    """The moment that *text* means, local time without a zone, as *now* is. Raises ValueError.

    Without a zone, since that of *now* need not be the one that the moment had: clocks change.
    """
    words = text.strip().lower()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    named = {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}
    if words in named:
        return named[words]
    if words.startswith("-") or words.endswith("ago"):
        try:
            return now - _span(words.removeprefix("-").removesuffix("ago"))
        except OverflowError:
            raise ValueError(f"before the first day: {text!r}") from None
    for form in _CLOCKS:
        with suppress(ValueError):
            return datetime.combine(now, datetime.strptime(words, form).time())
    found = datetime.fromisoformat(text.strip())
    return found.astimezone().replace(tzinfo=None) if found.tzinfo else found


def _span(text: str) -> timedelta:
    parts = _SPAN.findall(text)
    units = [_UNITS.get(unit) for _, unit in parts]
    if not parts or None in units or _SPAN.sub("", text).strip():
        raise ValueError(f"no span of time: {text!r}")
    return sum((float(number) * _UNITS[unit] for number, unit in parts), timedelta())
