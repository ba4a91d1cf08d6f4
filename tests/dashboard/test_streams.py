"""Readers of the stream: who is too slow loses messages and is told so."""

from __future__ import annotations

import asyncio

from actorpool.dashboard.streams import MOST_FRAMES, MOST_STREAMS, Streams, frame


def test_a_slow_reader_gets_a_gap_and_then_the_rest():
    async def scene():
        streams = Streams()
        stream = streams.open(state=False)
        for number in range(MOST_FRAMES + 5):
            streams.send([frame({"n": number}, number=number)])
        reading = stream.frames()
        got = [await reading.__anext__() for _ in range(MOST_FRAMES + 1)]
        streams.send([frame({"n": 999}, number=999)])
        return got, [await reading.__anext__() for _ in range(2)]

    got, rest = asyncio.run(scene())
    assert got[1] == b'id: 0\ndata: {"n":0}\n\n'
    assert rest == [b'event: gap\ndata: {"dropped":5}\n\n', b'id: 999\ndata: {"n":999}\n\n']


def test_a_burst_of_many_messages_is_no_backlog_and_its_loss_is_told_by_their_number():
    async def scene():
        streams = Streams()
        stream = streams.open(state=False)
        burst = [frame({}, number=number) for number in range(1000)]
        for _ in range(MOST_FRAMES + 1):
            streams.send(burst)
        reading = stream.frames()
        got = [await reading.__anext__() for _ in range(MOST_FRAMES + 1)]
        streams.send([frame({}, number=1)])
        return got[1], await reading.__anext__()

    first, rest = asyncio.run(scene())
    assert first.count(b"\n\n") == 1000
    assert rest == b'event: gap\ndata: {"dropped":1000}\n\n'


def test_state_goes_only_to_those_who_want_it():
    async def scene():
        streams = Streams()
        readers = [streams.open(state=False), streams.open(state=True)]
        streams.send([frame({}, "state")], state=True)
        streams.send([frame({}, number=1)])
        readings = [reader.frames() for reader in readers]
        for reading in readings:
            await reading.__anext__()
        return [await reading.__anext__() for reading in readings]

    assert asyncio.run(scene()) == [b"id: 1\ndata: {}\n\n", b"event: state\ndata: {}\n\n"]


def test_there_is_a_bound_to_streams_and_none_opens_at_the_end():
    async def scene():
        streams = Streams()
        opened = [streams.open(False) for _ in range(MOST_STREAMS + 1)]
        streams.drop(opened[0])
        again = streams.open(False)
        streams.close()
        return opened[-1], again, streams.open(False), [data async for data in opened[1].frames()]

    last, again, late, rest = asyncio.run(scene())
    assert last is None
    assert again is not None
    assert late is None
    assert rest == [b"retry: 2000\n\n"]


def test_text_with_line_feeds_stays_one_message():
    assert frame({"why": "a\n\nid: 7\n"}, number=1).count(b"\n\n") == 1
