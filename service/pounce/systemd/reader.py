"""Reading a service's entries from the journal, by their fields.

`systemd.journal.Reader` waits for the journal with the global lock held, which would stop a worker
or a supervisor; so only commands, in a process of their own, read.
"""

import select
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pounce.errors import PounceError

# Entries of a service that `--follow` begins with, as journalctl(1) does.
_LAST = 10

_FIELDS = {"worker": "POUNCE_WORKER", "generation": "POUNCE_GENERATION"}

Entry = dict[str, Any]
"""The fields of an entry; __REALTIME_TIMESTAMP is a datetime (systemd.journal-fields(7))."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which entries of *unit* are meant: those of a *worker*, of a *generation*, at least as severe
    as *priority* (0 to 7, syslog(3)), not older than *since*. None leaves the choice open.
    """

    unit: str
    worker: str | None = None
    generation: int | None = None
    priority: int | None = None
    since: datetime | None = None

    def alternatives(self) -> list[dict[str, list[str]]]:
        """What an entry has to match: every field of one alternative, with any of the values."""
        chosen = {_FIELDS[name]: getattr(self, name) for name in _FIELDS}
        fields = {name: [str(value)] for name, value in chosen.items() if value is not None}
        severe = [] if self.priority is None else [str(each) for each in range(self.priority + 1)]
        levels = {"PRIORITY": severe} if severe else {}
        own = {"_SYSTEMD_UNIT": [self.unit], **fields, **levels}
        # What systemd itself says of the unit belongs to no worker.
        managers = {"UNIT": [self.unit], "_PID": ["1"], **levels}
        return [own] if fields else [own, managers]


def entries(query: Query, *, follow: bool = False) -> Iterator[Entry]:
    """The entries that *query* means, the oldest first; with *follow* also those yet to come.

    Following begins with the last few, unless the query says since when. Raises PounceError where
    systemd-python is missing.
    """
    reader = _open(query)
    if query.since is not None:
        reader.seek_realtime(max(0.0, query.since.timestamp()))  # an unsigned number there
    elif follow:
        reader.seek_tail()
        # The first entry itself, where there are fewer.
        if first := reader.get_previous(_LAST):
            yield first
    else:
        reader.seek_head()
    yield from _rest(reader)
    # Not Reader.wait(): it goes on waiting after a signal.
    poll = select.poll()
    poll.register(reader, reader.get_events())
    while follow:
        poll.poll(reader.get_timeout_ms())
        reader.process()
        yield from _rest(reader)


def _rest(reader: Any) -> Iterator[Entry]:
    while entry := reader.get_next():
        yield entry


def _open(query: Query) -> Any:
    try:
        from systemd import journal
    except ImportError:
        raise PounceError(
            "reading the journal needs systemd-python, which is not installed here",
            hint="install python3-systemd (Debian, Fedora), or: pip install 'pounce[systemd]'",
        ) from None
    reader = journal.Reader()
    for number, alternative in enumerate(query.alternatives()):
        if number:
            reader.add_disjunction()
        for name, values in alternative.items():
            for value in values:
                reader.add_match(**{name: value})
    return reader
