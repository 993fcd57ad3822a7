"""From a worker's hub to the lab's: in order, nothing lost, never stuck, large arrays without a copy."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from duodaq.clock import Deadline, pause
from duodaq.dataplane import Policy
from duodaq.errors import DataError
from duodaq.link import BlobRef, RingReader, receive_descriptors
from duodaq.model import Image, RuntimeName, Scalar, Vector
from duodaq.schema import frame_batch, pixels_of
from duodaq.v2 import DataDistributor
from duodaq.v4 import DataPublisher
from duodaq.workers import _outbox
from duodaq.workers._inbox import FeedBooks, Inbox
from duodaq.workers._messages import Batch, Item, Ring, Rows, decode_from_worker, encode
from duodaq.workers._outbox import Outbox


class Feed:
    """An outbox and an inbox with the wire between them, each message delivered by the loop."""

    def __init__(self, runtime: RuntimeName = "v2") -> None:
        self.here, self.there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.hub = DataDistributor()
        self.batches = DataPublisher()
        self.books = FeedBooks("worker", self.hub.name)
        self.kinds: list[str] = []
        self.credits: list[int] = []
        self.ring: RingReader | None = None
        self.outbox = Outbox(runtime, self._send, self.there)
        self.inbox = Inbox(self.hub, self.batches, self.books, self._acknowledge)

    def _send(self, message: Any) -> None:
        asyncio.get_running_loop().call_soon(self._hear, encode(message))

    def _hear(self, data: bytes) -> None:
        message = decode_from_worker(data)
        self.kinds.append(type(message).__name__)
        if isinstance(message, Ring):
            (fd,) = receive_descriptors(self.here)
            self.ring = RingReader(fd, self.credits.append, message.size * 3 // 4)
            os.close(fd)
            self.inbox.attach(self.ring)
        else:
            self.inbox.heard(message)

    def _acknowledge(self, count: int) -> None:
        self.outbox.taken(count)

    async def publish(self, *items: Any) -> None:
        for item in items:
            await self.outbox.v2_data.publish_wait(item, 10.0)

    async def aclose(self) -> bool:
        all_delivered = await self.outbox.aclose(5.0)
        await self.inbox.aclose(1.0)
        self.here.close()
        self.there.close()
        return all_delivered


@pytest.fixture
async def feed() -> AsyncIterator[Feed]:
    made = Feed()
    yield made
    await made.aclose()


def scalar(number: int, **facts: Any) -> Scalar:
    return Scalar("dmm", "voltage", "V", number, number, number / 2, "v2", **facts)


def image(number: int, side: int = 300) -> Image:
    return Image("cam", "frames", "counts", number, number, np.full((side, side), number % 251, np.uint16), "v2")


async def test_all_kinds_arrive_in_the_order_in_which_they_were_measured(feed: Feed) -> None:
    seen = feed.hub.subscribe("test", policy=Policy.BLOCK)
    sent: list[Any] = []
    for number in range(0, 60, 3):
        vector = Vector("osc", "trace", "V", number, number + 1, np.arange(5.0), "v2")
        sent += [scalar(number), vector, image(number + 2)]
    await feed.publish(*sent)
    came = [await seen.get(5.0) for _ in sent]
    assert [type(one) for one in came] == [type(one) for one in sent]
    assert [one.sequence for one in came] == [one.sequence for one in sent]
    for one, other in zip(came, sent, strict=True):
        if isinstance(other, Image):
            np.testing.assert_array_equal(one.pixels, other.pixels)
            assert not one.pixels.flags.owndata


@pytest.mark.parametrize(
    "metadata", [{"a": (1, 2)}, {"a": np.float64(2.0)}, {1: 2}, {"big": 2**70}, {"plain": [1, {"b": None}]}, {}]
)
async def test_the_metadata_of_a_number_arrives_as_it_was(feed: Feed, metadata: dict[Any, Any]) -> None:
    seen = feed.hub.subscribe("test")
    await feed.publish(scalar(1, metadata=metadata))
    came = (await seen.get(5.0)).metadata
    assert came == metadata
    assert [type(value) for value in came.values()] == [type(value) for value in metadata.values()]


@pytest.mark.parametrize(
    ("window", "window_bytes", "room"), [(1, 1, 1), (1, 10**6, 2), (100, 1, 1), (3, 1000, 7), (2048, 10**8, 1)]
)
async def test_a_lossless_reader_without_room_keeps_the_order_and_nothing_gets_stuck(
    feed: Feed, monkeypatch: pytest.MonkeyPatch, window: int, window_bytes: int, room: int
) -> None:
    monkeypatch.setattr(_outbox, "WINDOW", window)
    monkeypatch.setattr(_outbox, "WINDOW_BYTES", window_bytes)
    seen = feed.hub.subscribe("test", capacity=room, policy=Policy.BLOCK)
    sent = [scalar(n) if n % 3 else Vector("osc", "t", "V", n, n, np.ones(20), "v2") for n in range(300)]
    producing = asyncio.create_task(feed.publish(*sent))
    came = [(await seen.get(5.0)).sequence for _ in sent]
    await producing
    assert came == list(range(300))


async def test_a_full_ring_goes_by_value_and_comes_back_with_credits(feed: Feed, monkeypatch) -> None:
    monkeypatch.setattr(_outbox, "_RING_LEAST", 2**20)
    monkeypatch.setattr(_outbox, "_RING_BLOBS", 2)
    seen = feed.hub.subscribe("test", policy=Policy.BLOCK)
    await feed.publish(*(image(n) for n in range(20)))
    kept = [await seen.get(5.0) for _ in range(20)]
    for number, one in enumerate(kept):
        np.testing.assert_array_equal(one.pixels, image(number).pixels)
    assert False in {bool(one.pixels.flags.owndata) for one in kept}
    before = len(feed.credits)
    assert before < 20
    del one
    kept.clear()
    ends = Deadline(5.0)
    while len(feed.credits) <= before:
        assert not ends.passed
        await pause(0.005)
    feed.outbox.credited(feed.credits)


async def test_a_camera_ahead_of_the_manager_waits_before_the_ring_is_full(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_outbox, "WINDOW_BYTES", 3_000_000)
    published: list[int] = []
    feed.inbox = Inbox(feed.hub, DataPublisher(), feed.books, published.append)
    seen = feed.hub.subscribe("test", policy=Policy.BLOCK)
    publishing = asyncio.create_task(feed.publish(*(image(number, 1000) for number in range(12))))
    acknowledged = 0
    for number in range(12):
        assert (await seen.get(5.0)).sequence == number
        await pause(0.005)
        assert feed.kinds.count("Item") <= acknowledged + 2
        acknowledged = published[-1]
        feed.outbox.taken(acknowledged)
    await publishing


def frames(number: int, unit: str = "counts", side: int = 300) -> Any:
    pixels = np.full((side, side), number, np.uint16)
    facts = {"instrument": "cam", "channel": "frames", "t_ns": number, "sequence": number, "frame_number": number}
    return frame_batch(pixels, unit=unit, **facts)


async def test_batches_of_one_size_are_measured_once_and_those_that_prove_longer_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[int] = []
    plain = _outbox._stream_size
    monkeypatch.setattr(_outbox, "_stream_size", lambda batch: measured.append(1) or plain(batch))
    feed = Feed("v4")
    seen = feed.batches.subscribe("test", policy=Policy.BLOCK)
    counts = [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3)]
    for number, times in counts:
        sent = frames(number, "counts" if number < 3 else "c" * 5000, 300 if number < 6 else 200)
        await feed.outbox.v4_data.publish_wait(sent, 10.0)
        came = await seen.get(5.0)
        assert came.equals(sent)
        assert came.schema.equals(sent.schema, check_metadata=True)
        assert not pixels_of(came).flags.writeable
        assert len(measured) == times
    assert feed.ring is not None
    assert feed.ring.copies == 0
    assert await feed.aclose()


async def test_what_does_not_travel_is_counted_and_the_rest_goes_on(feed: Feed) -> None:
    seen = feed.hub.subscribe("test")
    await feed.publish(scalar(0), scalar(1, metadata={"own": open}), scalar(2))
    assert [(await seen.get(5.0)).sequence for _ in range(2)] == [0, 2]
    assert feed.outbox.undeliverable == 1


async def test_the_books_say_what_was_lost_with_the_worker(feed: Feed) -> None:
    seen = feed.hub.subscribe("test")
    await feed.publish(*(scalar(n) for n in range(10)))
    for _ in range(10):
        await seen.get(5.0)
    assert feed.books.close_accounts({"dmm.voltage": 13, "dmm.current": 2}) == {"dmm.voltage": 3, "dmm.current": 2}
    assert feed.books.close_accounts({"dmm.voltage": 13, "dmm.current": 2}) == {}


FORGED = [
    Item(5),
    Item(1, BlobRef(0, 0, 24, "<f8", (3,))),
    Batch(b""),
    Batch(b"body"),
    Batch(blob=BlobRef(0, 0, 24, "|u1", (24,))),
]


@pytest.mark.parametrize("message", FORGED, ids=range(len(FORGED)))
async def test_what_is_no_measurement_is_refused(feed: Feed, message: Item | Batch) -> None:
    with pytest.raises(DataError):
        feed.inbox.heard(message)


async def test_a_closed_lab_takes_nothing_and_the_outbox_still_ends(feed: Feed) -> None:
    feed.hub.close()
    await feed.publish(*(scalar(n) for n in range(5)))
    assert await feed.outbox.aclose(5.0)
    assert feed.kinds.count(Rows.__name__) >= 1


def test_what_bore_a_number_before_it_came_to_this_worker_is_not_lost_with_it() -> None:
    books = FeedBooks("worker", "v4")
    books.goes_on_at("meter.power", 25)
    books.take("meter.power", 3)
    books.settle("meter.power", 3)
    assert books.close_accounts({"meter.power": 30}) == {"meter.power": 2}


def test_an_older_number_of_a_stanza_that_starts_again_calls_nothing_lost() -> None:
    books = FeedBooks("worker", "v4")
    books.take("meter.power", 30)
    books.settle("meter.power", 30)
    books.goes_on_at("meter.power", 25)  # its runtime was restarted, with the stanza of a move long ago
    assert books.close_accounts({"meter.power": 30}) == {}


def test_a_stream_is_settled_once_all_of_it_is_published_or_called_lost() -> None:
    books = FeedBooks("worker", "v4")
    assert books.is_settled("meter.power", 0)
    books.take("meter.power", 3)
    assert not books.is_settled("meter.power", 3)
    books.settle("meter.power", 3)
    assert books.is_settled("meter.power", 3)
    assert not books.is_settled("meter.power", 5)
    books.close_accounts({"meter.power": 5})
    assert books.is_settled("meter.power", 5)
