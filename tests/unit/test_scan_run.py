"""Scans on Bluesky's engine over an axis and readers that are only pretended: how they end, and what they keep."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import duodaq
from duodaq.bluesky import ScanInterruptedError, run_scan
from duodaq.errors import OutOfRangeError, PortTimeoutError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:bluesky.*")


@dataclasses.dataclass
class Value:
    value: Any
    unit: str
    t_ns: int = 1_700_000_000_000_000_000


def done(result: Any) -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


class FakeAxis:
    name, unit, limits = "stage_x", "mm", (0.0, 25.0)

    def __init__(self, on_move: Callable[[float], Any] = lambda _: None) -> None:
        self.here = 0.0
        self.moves: list[float] = []
        self.stops = 0
        self._on_move = on_move

    def move_soon(self, position: float) -> concurrent.futures.Future[Any]:
        self.moves.append(position)
        self.here = position + 0.001
        return done(self._on_move(position))

    def read_position(self) -> Value:
        return Value(self.here, "mm")

    def read_position_soon(self) -> concurrent.futures.Future[Any]:
        return done(self.read_position())

    def stop(self) -> None:
        self.stops += 1


class FakeReader:
    def __init__(self, id: str, *names: str, fails_at: int = -1, value: Any = 1.5) -> None:
        self.id, self.names, self.fails_at, self.value, self.reads = id, names, fails_at, value, 0

    def channels(self) -> list[str]:
        return list(self.names)

    def read_soon(self, channel: str) -> concurrent.futures.Future[Any]:
        self.reads += 1
        if self.reads == self.fails_at:
            return done(PortTimeoutError("no reply", instrument=self.id))
        return done(Value(self.value, "V"))


def test_every_point_has_the_position_that_was_read_and_the_setpoint_beside_it() -> None:
    axis, reader = FakeAxis(), FakeReader("dmm", "voltage")
    run = run_scan(axis, [0.0, 1.0, 2.0], [reader], progress=False, metadata={"sample": "knife 3"})
    assert run.complete
    assert len(run) == 3
    assert run["stage_x"].tolist() == [0.001, 1.001, 2.001]
    assert run["stage_x_setpoint"].tolist() == [0.0, 1.0, 2.0]
    assert run["voltage"].tolist() == [1.5] * 3
    assert run.units == {"stage_x": "mm", "stage_x_setpoint": "mm", "voltage": "V"}
    assert run.start["sample"] == "knife 3"
    assert repr(run) == "<scan of stage_x: 3 of 3 points, complete>"


def test_channels_of_one_name_are_told_apart_by_their_instrument() -> None:
    run = run_scan(FakeAxis(), [0.0], [FakeReader("a", "power"), FakeReader("b", "power", "rate")], progress=False)
    assert set(run.fields()) >= {"a_power", "b_power", "rate"}


def test_points_come_out_as_tables_with_units() -> None:
    run = run_scan(FakeAxis(), [0.0, 1.0], [FakeReader("c", "trace", value=np.arange(3.0))], progress=False)
    data = run.to_xarray()
    assert data.trace.dims == ("stage_x", "trace_0")
    assert data.trace.attrs["units"] == "V"
    table = run.to_arrow()
    assert table["trace"].to_pylist() == [[0.0, 1.0, 2.0]] * 2
    assert table.schema.field("stage_x").metadata == {b"unit": b"mm"}


def test_what_is_given_with_a_scan_is_in_the_run_and_in_both_of_its_tables() -> None:
    given = {"sample": "knife 3", "power_mW": 2.5, "offsets": np.arange(2)}
    run = run_scan(FakeAxis(), [0.0], [FakeReader("dmm", "voltage")], progress=False, metadata=given)
    assert run.metadata.keys() == given.keys()
    attributes = run.to_xarray().attrs
    assert (attributes["sample"], attributes["power_mW"], attributes["scan_uid"]) == ("knife 3", 2.5, run.uid)
    written = run.to_arrow().schema.metadata
    assert written[b"sample"] == b"knife 3"
    assert written[b"offsets"] == b"[0, 1]"
    assert written[b"scan_uid"] == run.uid.encode()


def test_a_position_beyond_the_limits_is_refused_before_anything_moves() -> None:
    axis = FakeAxis()
    with pytest.raises(OutOfRangeError, match="26 mm is outside the limits 0 … 25 mm — nothing moved"):
        run_scan(axis, [0.0, 26.0], [FakeReader("dmm", "voltage")], progress=False)
    with pytest.raises(OutOfRangeError, match="at least one position"):
        run_scan(axis, [], [], progress=False)
    assert axis.moves == []


def test_a_reading_that_fails_ends_the_scan_with_its_cause_and_the_points_so_far() -> None:
    with pytest.raises(ScanInterruptedError, match="failed after 3 of 5 points: dmm: no reply") as caught:
        run_scan(FakeAxis(), [0, 1, 2, 3, 4], [FakeReader("dmm", "voltage", fails_at=4)], progress=False)
    assert isinstance(caught.value.__cause__, PortTimeoutError)
    assert len(caught.value.run) == 3
    assert not caught.value.run.complete


def test_a_move_that_fails_ends_the_scan_with_its_cause() -> None:
    axis = FakeAxis(lambda position: OutOfRangeError("limit switch") if position > 1 else None)
    with pytest.raises(ScanInterruptedError, match="failed after 2 of 3 points: limit switch"):
        run_scan(axis, [0, 1, 2], [FakeReader("dmm", "voltage")], progress=False)


def test_documents_are_told_as_they_come() -> None:
    names: list[str] = []
    run_scan(
        FakeAxis(), [0, 1], [FakeReader("dmm", "voltage")], progress=False, on_document=lambda n, _: names.append(n)
    )
    assert names == ["start", "descriptor", "event", "event", "stop"]


def ctrl_c(name: str, document: dict[str, Any]) -> None:
    """Ctrl-C after the second point, as a terminal gives it to the program."""
    if name == "event" and document["seq_num"] == 2:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)


def test_ctrl_c_is_told_by_the_error_and_the_engine_adds_nothing_of_its_own(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    axis = FakeAxis()
    try:
        with pytest.raises(
            duodaq.ScanInterruptedError, match=r"^interrupted by Ctrl-C after \d+ of 900 points"
        ) as caught:
            run_scan(
                axis, [0.0] * 900, [FakeReader("dmm", "voltage")], settle_s=0.01, progress=False, on_document=ctrl_c
            )
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr() == ("", "")
    run = caught.value.run
    assert 2 <= len(run) < 900
    assert (run.stop["exit_status"], run.stop["reason"]) == ("abort", "interrupted by Ctrl-C")
    assert str(caught.value).endswith("points — the points are in `run` of this error")
    run.directory = "runs/one"
    assert str(caught.value).endswith(" — the recording is runs/one; the points are in `run` of this error")
