"""The camera's thread against a camera that hangs, and the settings as values."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from duodaq.clock import block, pause
from duodaq.drivers.pvcam import CameraSettings, Frame, FrameCount, Roi
from duodaq.drivers.pvcam._thread import CameraThread
from duodaq.errors import LifecycleError, MailboxFullError, OutOfRangeError, ReplyTimeoutError


class FakeCamera:
    """Frames as fast as they are asked for; `hang` blocks like a call of a vendor's library."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.closed = False
        self.finished = 0
        self.number = 0
        self.count = FrameCount()

    def start_live(self) -> None:
        self.number = 0

    def finish(self) -> None:
        self.finished += 1

    def close(self) -> None:
        self.closed = True

    def status(self) -> str:
        return "EXPOSURE_IN_PROGRESS"

    def poll(self, timeout_ms: int) -> Frame | None:
        block(0.001)
        self.number += 1
        return Frame(self.number, np.zeros((2, 2), np.uint16), 0, CameraSettings(), Roi(0, 0, 2, 2))

    def hang(self) -> None:
        self.release.wait(20)


@pytest.fixture
def camera():
    fake = FakeCamera()
    yield fake
    fake.release.set()


async def test_a_caller_is_freed_at_its_deadline_while_the_call_hangs(camera) -> None:
    thread = CameraThread(camera, "test")
    thread.start()
    with pytest.raises(ReplyTimeoutError) as caught:
        await thread.call(camera.hang, 0.1)
    assert caught.value.fate == "unknown"
    with pytest.raises(ReplyTimeoutError) as waiting:
        await thread.call(camera.status, 0.1)
    assert waiting.value.fate == "not done"
    assert await thread.stop(0.1) is False
    camera.release.set()
    assert await thread.stop(2) is True
    assert camera.closed
    with pytest.raises(LifecycleError):
        await thread.call(camera.status, 1)


async def test_the_stream_waits_for_room_and_loses_no_frame_that_it_took(camera) -> None:
    taken: list[int] = []
    refusals = iter([True, True, False] * 1000)

    def sink(frame: Frame) -> None:
        if next(refusals):
            raise MailboxFullError("full")
        taken.append(frame.number)

    thread = CameraThread(camera, "test")
    thread.start()
    await thread.call(lambda: thread.begin_stream(sink, print, 1.0), 1)
    while len(taken) < 5:
        await pause(0.01)
    await thread.call(thread.end_stream, 1)
    assert taken == list(range(1, len(taken) + 1))
    assert camera.finished == 1
    assert await thread.stop(2)


async def test_a_sink_that_fails_ends_the_stream_and_says_why(camera) -> None:
    ended: list[Exception] = []

    def sink(frame: Frame) -> None:
        raise ValueError("broken sink")

    thread = CameraThread(camera, "test")
    thread.start()
    await thread.call(lambda: thread.begin_stream(sink, ended.append, 1.0), 1)
    while not ended:
        await pause(0.01)
    assert str(ended[0]) == "broken sink"
    assert not thread.streaming
    assert await thread.stop(2)


def test_frame_numbers_tell_how_many_were_lost() -> None:
    count = FrameCount()
    assert [count.take(number) for number in (1, 2, 5, 6)] == [0, 0, 2, 0]
    count.restart()
    assert count.take(3) == 2
    assert (count.received, count.lost) == (5, 4)


@pytest.mark.parametrize(
    "options",
    [
        {"roi": [1, 2, 3]},
        {"roi": [0, 0, 0, 5]},
        {"roi": {"x": 1}},
        {"binning": 0},
        {"binning": (1, 2, 3)},
        {"exposure_s": -1},
        {"fps": 3},
    ],
)
def test_settings_that_can_never_be_right_are_refused(options) -> None:
    with pytest.raises(OutOfRangeError):
        CameraSettings().changed(**options)


def test_settings_are_taken_as_people_write_them() -> None:
    settings = CameraSettings().changed(roi={"x": 1, "y": 2, "width": 3, "height": 4}, binning=2, exposure_s=0.5)
    assert settings == CameraSettings(Roi(1, 2, 3, 4), (2, 2), 0.5)
