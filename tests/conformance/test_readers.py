"""Every case of the corpus through every request reader, however its bytes arrive."""

import random
from collections.abc import Callable, Iterable, Iterator

import pytest

from pounce.http1.reader import RequestReader
from tests.conformance import corpus
from tests.conformance.corpus import Case, ExpectedRequest
from tests.conformance.verdict import CONFIG, READERS, Seen, Verdict, judge

Split = Callable[[bytes], Iterable[bytes]]


def by_size(size: int) -> Split:
    return lambda data: (data[at : at + size] for at in range(0, len(data), size))


def at_random(seed: int) -> Split:
    def pieces(data: bytes) -> Iterator[bytes]:
        choice = random.Random(seed)
        largest = choice.choice([3, 20, 200, 20_000])
        at = 0
        while at < len(data):
            end = at + choice.randint(1, largest)
            yield data[at:end]
            at = end

    return pieces


SPLITS: dict[str, Split] = {
    "at once": lambda data: [data],
    "one by one": by_size(1),
    "in pairs": by_size(2),
    **{f"at random, seed {seed}": at_random(seed) for seed in range(6)},
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", corpus.ALL, ids=lambda case: case.name)
def test_verdict(case: Case, reader: type[RequestReader]) -> None:
    for name, split in SPLITS.items():
        verdict = judge(reader(CONFIG), split(case.raw), eof="incomplete" in case.outcome)
        try:
            _check(verdict, case)
        except (AssertionError, ValueError) as error:
            error.add_note(f"when its bytes arrive {name}")
            raise


def _check(verdict: Verdict, case: Case) -> None:
    for seen, expected in zip(verdict.requests, case.requests, strict=True):
        _compare(seen, expected)
    if "incomplete" in case.outcome:
        assert verdict.status in case.statuses | {400}
    elif case.statuses:
        assert verdict.status in case.statuses
    else:
        assert verdict.status is None
        assert verdict.closed == ("close" in case.outcome)


def _compare(seen: Seen, expected: ExpectedRequest) -> None:
    head = seen.head
    assert (head.method, head.target) == (expected.method, expected.target)
    assert head.http_version == expected.version
    for name in {name for name, _ in expected.headers}:
        assert _values(head.headers, name) == _values(expected.headers, name)
    assert seen.complete == expected.complete
    if expected.complete:
        assert bytes(seen.body) == expected.body
        assert head.has_body or not expected.body


def _values(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for found, value in fields if found == name]
