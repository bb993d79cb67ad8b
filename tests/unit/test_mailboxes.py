"""Mailboxes, among processes."""

import os
from collections.abc import Iterator

import pytest

from pounce.ipc.mailboxes import Mailboxes


@pytest.fixture
def boxes() -> Iterator[Mailboxes]:
    boxes = Mailboxes(3)
    yield boxes
    boxes.close()


def test_each_is_given_once(boxes: Mailboxes) -> None:
    assert [boxes.acquire() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(IndexError, match="every mailbox is in use"):
        boxes.acquire()
    boxes.release(1)
    assert [boxes.is_owned(index) for index in range(4)] == [True, False, True, False]
    assert boxes.acquire() == 1


def test_more_are_provided_as_they_are_needed(boxes: Mailboxes) -> None:
    for number in range(10):
        boxes.provide(2)
        assert boxes.acquire() == number
    boxes.put(9, b"x")
    assert boxes.take(9) == b"x"


def test_a_process_loses_what_is_for_those_that_came_later(boxes: Mailboxes) -> None:
    """But it is known there that they have owners, whose connections are not to be reset."""
    later, came = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(later, 1)
        boxes.put(3, b"from the child")
        os._exit(0 if boxes.is_owned(3) else 1)
    boxes.provide(4)
    for _ in range(4):
        boxes.acquire()
    os.write(came, b"!")
    assert os.waitpid(child, 0)[1] == 0
    assert boxes.take(3) is None
    os.close(later)
    os.close(came)


def test_messages_stay_whole_and_in_order(boxes: Mailboxes) -> None:
    boxes.acquire()
    messages = [b"x", b"y" * 60_000, b"z"]
    for message in messages:
        boxes.put(0, message)
    assert [boxes.take(0) for _ in range(4)] == [*messages, None]


def test_a_full_mailbox_loses_what_comes(boxes: Mailboxes) -> None:
    boxes.acquire()
    for _ in range(10_000):
        boxes.put(0, b"x" * 1500)
    taken = 0
    while boxes.take(0) is not None:
        taken += 1
    assert 50 < taken < 10_000


def test_a_new_owner_finds_it_empty(boxes: Mailboxes) -> None:
    boxes.put(boxes.acquire(), b"for the last one")
    boxes.release(0)
    assert boxes.acquire() == 0
    assert boxes.take(0) is None


def test_other_processes_see_the_same(boxes: Mailboxes) -> None:
    boxes.acquire()
    child = os.fork()
    if child == 0:
        boxes.put(0, b"from the child")
        boxes.acquire()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert boxes.take(0) == b"from the child"
    assert boxes.is_owned(1)


def test_somebody_may_still_need_what_comes(boxes: Mailboxes) -> None:
    assert not boxes.awaited
    first, second = boxes.acquire(), boxes.acquire()
    boxes.rest(first)
    assert boxes.awaited
    boxes.rest(second)
    assert not boxes.awaited
    assert boxes.is_owned(first)
    boxes.release(first)
    assert boxes.acquire() == first
    assert boxes.awaited
