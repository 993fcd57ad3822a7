"""What a script gives by mistake to a scan or a move is refused in a sentence that says what is wanted."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

from duodaq.app import AlarmsHandle, LabClient, Reading, user_name
from duodaq.app._scan_calls import expect_metadata
from duodaq.bluesky import AxisDevice, ScanInterruptedError
from duodaq.errors import LifecycleError, OutOfRangeError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:bluesky.*")

AXIS = {"name": "x", "unit": "mm", "limits": (0.0, 25.0)}
STAGE = {"id": "stage", "runtime": "v4", "driver": "duodaq:Esp300", "axes": [AXIS]}
DMM = {"id": "dmm", "runtime": "v2", "driver": "a:B", "axes": []}


class Silent:
    """A lab that says what it consists of, and notes what else is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def request(self, op: str, params: dict[str, Any]) -> Any:
        if op == "describe":
            return {"lab": "bench", "instruments": [STAGE, DMM]}
        self.asked.append(op)
        known = {"scan_begin": {"number": 1}, "scan_point": {"holds": [], "abort": None}}
        return known.get(op, [])

    def submit(self, op: str, params: dict[str, Any], convert: Any = None) -> concurrent.futures.Future[Any]:
        self.asked.append(op)
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result(None)
        return future

    def wait(self, future: concurrent.futures.Future[Any]) -> Any:
        return future.result()

    def close(self) -> None: ...


def a_scan(lab: LabClient, **options: Any) -> Any:
    return lab.scan(lab.stage.x, [1.0], lab.dmm, **options)


def a_grid(lab: LabClient, **options: Any) -> Any:
    return lab.grid((lab.stage.x, [1.0]), read=lab.dmm, **options)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda lab: lab.scan("stage.x", [1.0], read=[]), r"an axis such as lab.stage.x \(without quotes\); 'stage.x'"),
        (lambda lab: lab.scan(lab.dmm, [1.0], read=[]), "lab.dmm is an instrument; it has no axes"),
        (lambda lab: lab.scan(lab.stage, [1.0], read=[]), "name one of its axes: lab.stage.x"),
        (lambda lab: lab.scan(lab.stage.x, 1.0, read=[]), "numbers in a list, such as .*; 1.0 is none"),
        (lambda lab: lab.scan(lab.stage.x, ["1"], read=[]), "'1' is no number"),
        (lambda lab: lab.scan(lab.stage.x, [1.0], read="dmm"), r"read=\[lab.dmm\]; 'dmm' is none"),
        (lambda lab: lab.scan(lab.stage.x, [1.0], read=["dmm"]), r"read=\[lab.dmm\]; 'dmm' is none"),
        (lambda lab: lab.scan(lab.stage.x, [1.0], read=lab.stage.x), r"read=\[lab.dmm\]; <axis stage.x"),
        (lambda lab: a_scan(lab, settle="100 ms"), r"takes no 'settle'.*settle_s=0.1: seconds"),
        (lambda lab: a_scan(lab, settle_time=0.1, detach=True), r"takes no 'settle_time'.*settle_s=0.1: seconds"),
        (lambda lab: a_scan(lab, delay=1), "takes no 'delay'.*settle_s=0.1: seconds"),
        (lambda lab: a_scan(lab, progress_bar=False), "takes no 'progress_bar'.*progress=False"),
        (lambda lab: a_scan(lab, detached=True), "takes no 'detached'.*detach=True"),
        (lambda lab: a_scan(lab, recorded=False), "takes no 'recorded'.*record=False"),
        (lambda lab: a_scan(lab, num=11), r"takes no 'num'.*the positions are numbers in a list"),
        (lambda lab: a_scan(lab, snake=True), r"lab\.scan takes no 'snake'.*lab.grid"),
        (lambda lab: a_scan(lab, settle_s="100 ms"), "settle_s is a number of seconds; '100 ms' is no number"),
        (lambda lab: a_grid(lab, settle="100 ms"), r"lab\.grid takes no 'settle'.*settle_s=0.1: seconds"),
        (lambda lab: a_grid(lab, wait=1, detach=True), "takes no 'wait'.*settle_s=0.1: seconds"),
        (lambda lab: a_grid(lab, snaked=True), "takes no 'snaked'.*snake=False"),
        (lambda lab: a_grid(lab, settle_s="1"), "settle_s is a number of seconds; '1' is no number"),
        (lambda lab: lab.stage.x.move("three"), "stage.x moves to a number, in mm; 'three' is no number"),
        (lambda lab: lab.stage.x.move([3.0]), r"\[3.0\] is no number"),
        (lambda lab: lab.stage.x.move_by(None), "in mm; None is no number"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_asked_of_the_lab(ask: Callable[[LabClient], Any], said: str) -> None:
    channel = Silent()
    with pytest.raises(TypeError, match=said):
        ask(LabClient(channel))
    assert channel.asked == []


@pytest.mark.parametrize("ask", [a_scan, a_grid])
def test_a_time_to_settle_that_is_none_is_refused_before_anything_is_asked(ask: Callable[..., Any]) -> None:
    for given in (-1.0, float("nan"), 1e9):
        channel = Silent()
        with pytest.raises(OutOfRangeError, match=r"no time to settle.*nothing moved"):
            ask(LabClient(channel), settle_s=given)
        assert channel.asked == []


def test_what_is_said_of_a_scan_is_taken_whatever_it_is_called() -> None:
    said = {
        "sample": "knife 3",
        "operator": "ada",
        "note": "",
        "tags": ["a"],
        "process": "anneal",
        "n": 3,
        "setting": 1,
        "background": "dark frame",
        "bar": 2.0,
        "store": "box 3",
    }
    expect_metadata("grid", said)
    expect_metadata("scan", said)


def test_the_tail_of_a_wire_is_what_was_recorded_last_unless_it_is_said_which() -> None:
    asked: list[Any] = []

    class Noting(Silent):
        def request(self, op: str, params: dict[str, Any]) -> Any:
            asked.append(params.get("after"))
            return {"records": []} if op == "wire_tail" else super().request(op, params)

    lab = LabClient(Noting())
    asked.clear()
    lab.wire_tail("stage")
    lab.wire_tail("stage", after=None)
    lab.wire_tail("stage", 7)
    assert asked == [-20, None, 7]


def test_a_number_of_numpy_is_a_number() -> None:
    channel = Silent()
    LabClient(channel).stage.x.move(np.float64(3.0))
    assert channel.asked == ["command"]


class Turned:
    """What pint's Quantity of so many degrees looks like from outside: `float` takes radians of it."""

    def __init__(self, magnitude: float) -> None:
        self.magnitude = magnitude

    def to(self, unit: str) -> Turned:
        if unit != "deg":
            raise TypeError("not of that kind")
        return self

    def __float__(self) -> float:
        return np.deg2rad(self.magnitude)


def test_what_has_a_unit_arrives_in_the_axiss_own_unit_or_not_at_all() -> None:
    sent: list[Any] = []

    class Turning(Silent):
        def request(self, op: str, params: dict[str, Any]) -> Any:
            rotator = {**STAGE, "axes": [{"name": "r", "unit": "deg", "limits": (0.0, 360.0)}, AXIS]}
            return {"lab": "bench", "instruments": [rotator, DMM]} if op == "describe" else super().request(op, params)

        def submit(self, op: str, params: dict[str, Any], convert: Any = None) -> concurrent.futures.Future[Any]:
            sent.append(params["fields"]["args"])
            return super().submit(op, params, convert)

    lab = LabClient(Turning())
    lab.stage.r.move(cast("Any", Turned(180.0)))
    lab.stage.r.move_by(cast("Any", Turned(10.0)))
    assert sent == [("r", 180.0), ("r", 10.0)]
    for ask in (
        lambda: lab.stage.x.move(cast("Any", Turned(1.0))),
        lambda: lab.scan(lab.stage.x, cast("Any", [Turned(1.0)]), lab.dmm),
        lambda: AxisDevice(lab.stage.x).set(cast("Any", Turned(1.0))),
        lambda: lab.stage.x.move(cast("Any", Reading("dmm", "voltage", 1.5, "V", 0, 0))),
    ):
        with pytest.raises(TypeError, match="cannot be told in mm"):
            ask()
    AxisDevice(lab.stage.r).set(cast("Any", Turned(90.0)))
    assert sent[2:] == [("r", 90.0)]


def test_one_instrument_to_read_needs_no_list() -> None:
    channel = Silent()
    lab = LabClient(channel)
    with pytest.raises(ScanInterruptedError):  # this lab answers nothing that could be a point
        lab.scan(lab.stage.x, np.array([1.0, 2.0]), read=lab.dmm, progress=False)
    assert "channels" in channel.asked


class Telling(Silent):
    """A lab that still has its stage, and not the multimeter."""

    def request(self, op: str, params: dict[str, Any]) -> Any:
        answer = super().request(op, params)
        return {"instruments": [{"id": "stage", "runtime": "v2"}]} if op == "status" else answer


def test_a_lab_is_shown_from_one_status_also_with_an_instrument_that_is_gone() -> None:
    channel = Telling()
    assert repr(LabClient(cast("Any", channel))) == "<lab bench: stage (v2), dmm (gone)>"
    assert channel.asked == ["status"]


def test_an_instrument_that_is_gone_is_an_error_of_the_labs_own() -> None:
    lab = LabClient(cast("Any", Telling()))
    assert (lab.stage.runtime, repr(lab.stage)) == ("v2", "<stage: duodaq:Esp300 in v2>")
    for ask in (lab.dmm.status, lambda: lab.dmm.runtime):
        with pytest.raises(LifecycleError, match="dmm: it is not in the lab any more"):
            ask()
    assert repr(lab.dmm) == "<dmm: a:B, not in the lab any more>"


def test_a_user_without_an_entry_is_called_by_his_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    assert user_name() == "4711"
    channel = Silent()
    AlarmsHandle(cast("Any", Noting(channel))).acknowledge("hot")
    assert channel.asked == ["4711"]


class Noting:
    """Notes who acknowledges."""

    def __init__(self, to: Silent) -> None:
        self._to = to

    def request(self, op: str, params: dict[str, Any]) -> Any:
        self._to.asked.append(params["who"])
        return {"name": "hot", "instrument": "a", "channel": "b", "state": "normal"}
