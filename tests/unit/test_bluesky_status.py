"""What a Bluesky device hands out while it reads: repeated, cancelled, and gone when nobody has it any more."""

from __future__ import annotations

import concurrent.futures
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from duodaq.bluesky import AxisDevice
from duodaq.bluesky._repeat import REPEATS, nobody, read_patiently
from duodaq.bluesky._status import FutureStatus, after
from duodaq.errors import DeliveryError, PortTimeoutError


class FakeAxis:
    name, unit, limits = "stage_x", "mm", (0.0, 25.0)

    def __init__(self) -> None:
        self.value, self.t_ns, self.move = 0.0, 0, concurrent.futures.Future[Any]()

    def move_soon(self, position: float) -> concurrent.futures.Future[Any]:
        return self.move

    def read_position(self) -> FakeAxis:
        return self

    def read_position_soon(self) -> concurrent.futures.Future[Any]:
        raise AssertionError("nothing here reads a position without waiting for it")

    def stop(self) -> None:
        self.move.cancel()


Reads = list[concurrent.futures.Future[float]]


@contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def reading(reads: Reads) -> concurrent.futures.Future[float]:
    reads.append(concurrent.futures.Future())
    return reads[-1]


def test_a_read_that_is_over_and_its_status_go_without_the_collector() -> None:
    reads: Reads = []
    with no_collector():
        patient = read_patiently(lambda: reading(reads), "power", nobody)
        status = FutureStatus([patient])
        told: list[bool] = []
        status.add_callback(lambda ended: told.append(ended.success))
        reads[0].set_result(1.5)
        assert (patient.result(), told) == (1.5, [True])
        gone = [weakref.ref(patient), weakref.ref(status), weakref.ref(reads.pop())]
        del patient, status
        assert [ref() for ref in gone] == [None, None, None]


def test_a_read_that_was_lost_is_repeated_and_the_last_loss_is_told() -> None:
    reads: Reads = []
    repeated: list[str] = []
    patient = read_patiently(lambda: reading(reads), "power", repeated.append)
    for number in range(REPEATS + 1):
        assert not patient.done()
        reads[number].set_exception(DeliveryError("its worker died", fate="unknown"))
    assert repeated == ["power"] * REPEATS
    with pytest.raises(DeliveryError, match="its worker died"):
        patient.result(0)


def test_cancelling_a_read_cancels_the_one_under_way() -> None:
    reads: Reads = []
    patient = read_patiently(lambda: reading(reads), "power", nobody)
    reads[0].set_exception(DeliveryError("its worker died", fate="unknown"))
    assert patient.cancel()
    assert reads[1].cancelled()
    assert len(reads) == 2


def test_a_status_says_the_failure_of_any_of_its_reads_once_all_have_ended() -> None:
    reads: Reads = []
    one, two = reading(reads), reading(reads)
    status = FutureStatus([one, two])
    one.set_exception(PortTimeoutError("no reply"))
    assert (status.done, status.success) == (False, False)
    assert isinstance(status.exception(), PortTimeoutError)
    two.set_result(1.0)
    assert (status.done, status.success) == (True, False)


def test_what_begins_after_a_status_that_was_ended_before_its_reads_waits_for_them() -> None:
    reads: Reads = []
    status = FutureStatus([reading(reads)])
    status.finish()
    assert status.success
    then = after(status, lambda: reading(reads))
    assert len(reads) == 1
    reads[0].cancel()
    assert len(reads) == 2
    reads[1].set_result(2.0)
    assert then.result(0) == 2.0
    assert status.success


@pytest.mark.parametrize(("here", "setpoint"), [(3.0, 3.0), (-0.001, 0.0), (25.02, 25.0), (-3.0, -3.0)])
def test_an_axis_is_on_its_way_to_where_it_was_sent_and_once_it_stands_to_where_it_is(
    here: float, setpoint: float
) -> None:
    axis = FakeAxis()
    device = AxisDevice(axis)
    assert device.locate() == {"setpoint": 0.0, "readback": 0.0}
    device.set(20.0)
    axis.value = here
    assert device.locate() == {"setpoint": 20.0, "readback": here}
    device.stop()
    assert device.locate() == {"setpoint": setpoint, "readback": here}
