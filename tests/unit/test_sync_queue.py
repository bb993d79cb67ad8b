"""The queue between a loop and its threads, and the way back, under many threads."""

import asyncio
import threading
from collections import Counter
from functools import partial

from pounce.threads.outbox import Call, Outbox
from pounce.threads.queue import RequestQueue, Seat

PATIENCE = 20.0
END = -1


def test_every_item_is_taken_once() -> None:
    queue: RequestQueue[int] = RequestQueue()
    taken: list[list[int]] = [[] for _ in range(8)]

    def work(mine: list[int]) -> None:
        seat = Seat()
        while (item := queue.take(seat)) != END:
            mine.append(item)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for first in range(0, 5_000, 7):
        queue.put(range(first, min(first + 7, 5_000)))
        queue.wake()
    queue.put([END] * len(threads))
    while any(thread.is_alive() for thread in threads):
        queue.wake()
        threads[0].join(0.001)
        threads = [thread for thread in threads if thread.is_alive()] or threads[:1]
    assert Counter(item for mine in taken for item in mine) == Counter(range(5_000))
    assert all(mine == sorted(mine) for mine in taken)


def test_nobody_is_woken_for_nothing() -> None:
    queue: RequestQueue[int] = RequestQueue()
    assert not queue.wake()
    queue.put([1])
    assert not queue.wake(), "nobody sleeps"
    assert queue.take(Seat()) == 1
    assert not queue.wake()


def test_the_last_to_fall_asleep_is_woken_first() -> None:
    queue: RequestQueue[int] = RequestQueue()
    order: list[str] = []
    asleep = threading.Semaphore(0)

    def work(name: str) -> None:
        seat = Seat()
        sleep = seat.sleep

        def noted_sleep() -> None:
            asleep.release()
            sleep()

        seat.sleep = noted_sleep
        queue.take(seat)
        order.append(name)

    threads = {}
    for name in ("first", "second"):
        threads[name] = threading.Thread(target=work, args=(name,))
        threads[name].start()
        assert asleep.acquire(timeout=PATIENCE)
    for name in ("second", "first"):
        queue.put([0])
        queue.wake()
        threads[name].join(PATIENCE)
    assert order == ["second", "first"]


def test_nothing_posted_is_lost_or_overtaken() -> None:
    received: dict[int, list[int]] = {sender: [] for sender in range(4)}
    per_sender = 2_000

    async def main() -> None:
        outbox = Outbox(asyncio.get_running_loop())
        ended = asyncio.Event()

        def take(sender: int, number: int) -> None:
            received[sender].append(number)
            if sum(map(len, received.values())) == per_sender * len(received):
                ended.set()

        def send(sender: int) -> None:
            for number in range(per_sender):
                outbox.post(Call(partial(take, sender, number)))

        threads = [threading.Thread(target=partial(send, sender)) for sender in received]
        for thread in threads:
            thread.start()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        for thread in threads:
            thread.join()

    asyncio.run(main())
    assert all(numbers == list(range(per_sender)) for numbers in received.values())


def test_the_loop_is_not_told_of_what_it_looks_for_anyway() -> None:
    made: list[int] = []

    async def main() -> None:
        outbox = Outbox(asyncio.get_running_loop())
        outbox.expect()
        outbox.post(Call(partial(made.append, 1)))
        await asyncio.sleep(0)
        assert not made
        outbox.deliver()
        assert made == [1]
        ended = asyncio.Event()
        outbox.post(Call(ended.set))
        await ended.wait()

    asyncio.run(main())


def test_a_call_that_fails_keeps_no_other_from_being_made() -> None:
    made: list[int] = []
    told: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
        outbox = Outbox(loop)
        ended = asyncio.Event()
        outbox.post(Call(partial(made.append, 1)))
        outbox.post(Call(partial(int, "no number")))
        outbox.post(Call(partial(made.append, 2)))
        outbox.post(Call(ended.set))
        await ended.wait()

    asyncio.run(main())
    assert made == [1, 2]
    assert len(told) == 1
    assert "no number" in told[0]


def test_a_closed_loop_is_told_nothing() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    made: list[int] = []
    Outbox(loop).post(Call(partial(made.append, 1)))
    assert not made
