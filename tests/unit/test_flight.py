"""What a worker notes of its requests, and what its supervisor reads of it."""

import os

import pytest

from pounce.ipc.flight import MOST_LINES, FlightRecord


@pytest.mark.parametrize(
    ("begun", "swept", "told"),
    [
        ([], [], ""),
        ([b"/one", b"/a"], [], "Request begun last: /a\nRequests in flight shortly before: none\n"),
        (
            [b"/a?b=%20"],
            ["GET /c", "POST /d"],
            "Request begun last: /a?b=%20\nRequests in flight shortly before:\nGET /c\nPOST /d\n",
        ),
    ],
)
def test_what_a_forked_child_notes_is_read_here(
    begun: list[bytes], swept: list[str], told: str
) -> None:
    record = FlightRecord()
    pid = os.fork()
    if pid == 0:
        for target in begun:
            record.begin(target)
        record.sweep(["PUT /earlier, for longer than those that follow"])
        record.sweep(swept)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert record.read() == told


def test_what_is_too_long_is_cut_short() -> None:
    record = FlightRecord()
    record.begin(b"/" + b"a" * 8000)
    record.sweep(["GET /" + "b" * 8000] * MOST_LINES)
    told = record.read()
    assert "begun last: /aaaa" in told
    assert "GET /bbbb" in told
    assert len(told) < 17_000
