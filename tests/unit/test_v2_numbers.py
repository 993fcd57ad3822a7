"""A measurement's number is nobody else's from the moment that somebody may see it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from duodaq.errors import StoppedError
from duodaq.v2 import DataDistributor, Sequences
from duodaq.v2._figures import Figures
from duodaq.v2._publisher import ReadingPublisher
from duodaq.v2._reading import Reading
from duodaq.workers._page import PagedSequences, SharedPage


@pytest.fixture
def page() -> Iterator[SharedPage]:
    made = SharedPage()
    yield made
    made.close()


@pytest.fixture(params=["in memory", "on a page"])
def numbers(request: pytest.FixtureRequest, page: SharedPage) -> Sequences:
    return Sequences() if request.param == "in memory" else PagedSequences(page)


class Watched(DataDistributor):
    """Notes what the next number is while a measurement is being given away."""

    def __init__(self, numbers: Sequences, *, stopped: bool) -> None:
        super().__init__()
        self.numbers = numbers
        self.stopped = stopped
        self.seen: list[tuple[int, int]] = []

    def publish(self, item: object) -> None:
        self.seen.append((item.sequence, self.numbers.next_of("meter", "power")))
        if self.stopped:
            raise StoppedError("closed")


async def test_a_number_is_taken_before_its_measurement_is_given_away(numbers: Sequences) -> None:
    hub = Watched(numbers, stopped=False)
    publisher = ReadingPublisher("meter", hub, numbers, Figures())
    for _ in range(3):
        await publisher.publish("power", Reading(1.0, "W", 0))
    assert hub.seen == [(0, 1), (1, 2), (2, 3)]


async def test_a_number_that_nobody_got_is_given_to_the_next(numbers: Sequences) -> None:
    hub = Watched(numbers, stopped=True)
    publisher = ReadingPublisher("meter", hub, numbers, Figures())
    await publisher.publish("power", Reading(1.0, "W", 0))
    assert numbers.next_of("meter", "power") == 0
    numbers.used("meter", "power")
    numbers.used("meter", "power")
    numbers.returned("meter", "power", 0)
    assert numbers.next_of("meter", "power") == 2
