"""What threads sleep on: whoever waits is woken, nobody is woken under the lock, no descriptor is left."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from duodaq.clock import Deadline
from duodaq.link import News
from duodaq.link import _news as module


@pytest.fixture(params=["event", "queue"])
def news(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> News:
    if request.param == "queue":
        monkeypatch.delattr(os, "eventfd")
    return News()


class Sleeper:
    """A thread that waits until `heard` is true."""

    def __init__(self, news: News, heard: Callable[[], bool], limit_s: float = 10.0) -> None:
        self._news = news
        self._heard = heard
        self._limit_s = limit_s
        self.failed: BaseException | None = None
        self.sleeps = threading.Event()
        self._thread = threading.Thread(target=self._sleep)
        self._thread.start()

    def _sleep(self) -> None:
        limit = Deadline(self._limit_s)
        try:
            with self._news:
                while not self._heard() and not limit.passed:
                    self.sleeps.set()
                    self._news.wait(limit.left_s)
        except BaseException as error:  # noqa: BLE001 - carried to the test
            self.failed = error

    def ended(self) -> bool:
        self._thread.join(5)
        return not self._thread.is_alive()


def test_all_who_wait_are_woken(news: News) -> None:
    told: list[int] = []
    sleepers = [Sleeper(news, lambda: bool(told)) for _ in range(3)]
    assert all(sleeper.sleeps.wait(5) for sleeper in sleepers)
    with news:
        told.append(1)
        news.notify_all()
    assert all(sleeper.ended() for sleeper in sleepers)
    news.close()


def test_a_wait_ends_with_its_time_and_the_lock_is_held_again(news: News) -> None:
    limit = Deadline(0.05)
    with news:
        news.wait(0.05)
        assert news._lock.locked()
        assert limit.left_s < 0.01
    news.close()


def test_nobody_is_rung_before_the_lock_is_free(news: News, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[bool] = []
    told: list[int] = []
    bell = module._new_bell()
    ring = type(bell).ring

    def watched(one: module._Bell) -> None:
        locked.append(news._lock.locked())
        ring(one)  # of the same kind

    monkeypatch.setattr(type(bell), "ring", watched)
    sleeper = Sleeper(news, lambda: bool(told))
    assert sleeper.sleeps.wait(5)
    with news:
        told.append(1)
        news.notify_all()
    assert sleeper.ended()
    assert locked == [False]
    news.close()


def test_a_ring_that_comes_late_is_no_more_than_a_wake_for_nothing(news: News) -> None:
    with news:
        news.wait(0)
    bell = news._bell
    assert bell is not None
    bell.ring()
    limit = Deadline(5)
    with news:
        news.wait(5)
    assert limit.left_s > 4
    with news:
        news.wait(0.01)
    news.close()


def test_closing_wakes_who_waits_and_leaves_no_descriptor(news: News) -> None:
    before = len(os.listdir("/proc/self/fd"))
    closed: list[int] = []
    sleeper = Sleeper(news, lambda: bool(closed))
    assert sleeper.sleeps.wait(5)
    closed.append(1)
    news.close()
    assert sleeper.ended()
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_that_nobody_knows_any_more_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        news = News()
        with news:
            news.wait(0)
    del news
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_wait_may_be_as_long_as_visa_can_ask_for(news: News) -> None:
    told: list[int] = []
    sleeper = Sleeper(news, lambda: bool(told), limit_s=4294967.294)
    assert sleeper.sleeps.wait(5)
    with news:
        told.append(1)
        news.notify_all()
    assert sleeper.ended()
    assert sleeper.failed is None
    news.close()
