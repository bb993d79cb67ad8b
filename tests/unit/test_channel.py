from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pounce.ipc.channel import (
    Channel,
    ChannelClosed,
    Drain,
    Failed,
    Message,
    Ready,
    Reopen,
    Serve,
    Stop,
)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


Ends = tuple[Channel, Channel]


def sent(ends: Ends, *messages: Message) -> list[Message]:
    for message in messages:
        ends[0].send(message)
    return list(ends[1].receive())


def test_each_message_arrives_whole_and_in_order(ends: Ends) -> None:
    messages: list[Message] = [
        Serve(),
        Drain(hand_over=True),
        Drain(hand_over=False),
        Reopen(),
        Ready(),
        Failed("no", 70),
    ]
    assert sent(ends, *messages) == messages


def test_both_directions(ends: Ends) -> None:
    ours, theirs = ends
    theirs.send(Ready())
    ours.send(Serve())
    assert list(ours.receive()) == [Ready()]
    assert list(theirs.receive()) == [Serve()]


def test_nothing_to_receive(ends: Ends) -> None:
    assert list(ends[0].receive()) == []


def test_a_report_sent_before_the_end_is_still_read(ends: Ends) -> None:
    ours, theirs = ends
    theirs.send(Failed("it broke", 70))
    theirs.close()
    messages = ours.receive()
    assert next(messages) == Failed("it broke", 70)
    with pytest.raises(ChannelClosed, match="end of file"):
        next(messages)


def test_sending_to_a_closed_end(ends: Ends) -> None:
    ends[1].close()
    with pytest.raises(ChannelClosed):
        ends[0].send(Serve())


def test_using_an_end_closed_here(ends: Ends) -> None:
    ends[0].close()
    with pytest.raises(ChannelClosed):
        ends[0].send(Serve())
    with pytest.raises(ChannelClosed):
        list(ends[0].receive())


def test_what_finds_no_room_is_sent_later_in_its_order(ends: Ends) -> None:
    ours, theirs = ends
    count = 0
    while not ours.waiting:
        ours.send(Stop(float(count)))
        count += 1
    ours.send(Stop(float(count)))
    assert ours.waiting == 2
    received = list(theirs.receive())
    ours.flush()
    assert ours.waiting == 0
    received += theirs.receive()
    assert received == [Stop(float(each)) for each in range(count + 1)]


def test_nobody_reads(ends: Ends) -> None:
    def send_on_and_on() -> None:
        for _ in range(100_000):
            ends[0].send(Serve())

    with pytest.raises(ChannelClosed):
        send_on_and_on()


@given(reason=st.text(st.characters(codec=None), max_size=200))
def test_any_text_arrives_as_it_was(reason: str) -> None:
    ours, theirs = Channel.pair()
    try:
        assert sent((ours, theirs), Failed(reason, 70)) == [Failed(reason, 70)]
    finally:
        ours.close()
        theirs.close()


@pytest.mark.parametrize(
    "character",
    [
        pytest.param("x", id="one byte"),
        pytest.param("é", id="two bytes"),
        pytest.param("漢", id="three bytes"),
        pytest.param("\N{PILE OF POO}", id="four bytes"),
        pytest.param("\x00", id="a control, escaped in six bytes"),
        pytest.param("\udc80", id="an undecodable byte, escaped in six bytes"),
    ],
)
def test_a_long_reason_loses_its_middle_only(ends: Ends, character: str) -> None:
    reason = "Traceback" + character * 1_000_000 + "ValueError"
    [failed] = sent(ends, Failed(reason, 70))
    assert isinstance(failed, Failed)
    assert failed.exit_code == 70
    assert failed.reason.startswith("Traceback" + character)
    assert failed.reason.endswith(character + "ValueError")
    assert "characters left out" in failed.reason


@pytest.mark.parametrize("data", [b"?", b"[]", b"{}", b'{"type": "Other"}', b'{"type": "Stop"}'])
def test_what_is_no_message_closes_the_channel(
    ends: Ends, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    ours, theirs = ends
    ours._sock.send(data)
    with pytest.raises(ChannelClosed):
        list(theirs.receive())
    assert "is no message" in caplog.text
