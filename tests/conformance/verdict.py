"""What a request reader makes of the bytes of one connection."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pounce.config.service import ServerConfig
from pounce.http1.events import NEED_DATA, BadRequest, Body, Event, RequestHead
from pounce.http1.fast_reader import FastReader
from pounce.http1.reader import RequestReader
from pounce.http1.strict_reader import StrictReader
from tests.conformance import corpus

CONFIG = ServerConfig(max_body_size=corpus.MAX_BODY_SIZE)
READERS = [StrictReader, FastReader]


@dataclass(slots=True)
class Seen:
    """A request as a reader reported it."""

    head: RequestHead
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False


@dataclass(slots=True)
class Verdict:
    """The requests that were read, and the status that refused the rest, if one did."""

    requests: list[Seen] = field(default_factory=list)
    status: int | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing more is to be read, as a server must see it."""
        last = self.requests[-1] if self.requests else None
        asked = last is not None and last.complete and not last.head.keep_alive
        return asked or self.status is not None

    @property
    def complete(self) -> list[Seen]:
        return [seen for seen in self.requests if seen.complete]

    def drain(self, reader: RequestReader, received: bytes = b"") -> None:
        """Take what events there are, *received* being the latest bytes."""
        if self.closed:
            return
        try:
            event = reader.receive(received)
            while event is not NEED_DATA:
                self._take(event)
                if self.closed:
                    break
                event = reader.next_event()
        except BadRequest as error:
            self.status = error.status

    def _take(self, event: Event) -> None:
        if isinstance(event, RequestHead):
            self.requests.append(Seen(event, complete=not event.has_body))
        elif isinstance(event, Body):
            self.requests[-1].body += event.data
        else:
            self.requests[-1].complete = True


def judge(reader: RequestReader, pieces: Iterable[bytes], *, eof: bool) -> Verdict:
    """Feed *pieces*, taking all events after each, and then, if *eof*, the end."""
    verdict = Verdict()
    for piece in pieces:
        verdict.drain(reader, piece)
    if eof and not verdict.closed:
        reader.eof()
        verdict.drain(reader)
    return verdict
