"""Scans as the lab knows them: who moves what, paused and aborted from anywhere, and those that need no notebook."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import duodaq
from duodaq import clock
from duodaq.app import Client, Lab, LabClient, LabService, _scans
from duodaq.app._channel import LocalChannel
from duodaq.bluesky import ScanInterruptedError, ScanRun
from duodaq.cli import _scan_work
from duodaq.cli._scans import scans
from duodaq.errors import LifecycleError, NotInControlError, OutOfRangeError
from duodaq.testing import RailActor, logged, rail_lab

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:bluesky.*")


class Beside(LocalChannel):
    """Another client of a lab in this program: it is another program as far as the lab knows."""

    def __init__(self, first: LocalChannel) -> None:
        self._thread, self.lab, self._closed = first._thread, first.lab, False
        self._session = LabService(first.lab).session(Client("bob", "script"))

    def close(self) -> None:
        self._thread.run(self._leave())
        self._closed = True

    async def _leave(self) -> None:
        self._session.close()


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[LocalChannel]:
    one = LocalChannel(Lab(rail_lab(tmp_path)))
    yield one
    one.close()


@pytest.fixture
def lab(channel: LocalChannel) -> LabClient:
    return LabClient(channel)


@pytest.fixture
def other(channel: LocalChannel) -> LabClient:
    return LabClient(Beside(channel))


def until(condition: Callable[[], Any]) -> None:
    deadline = clock.Deadline(30)
    while not condition():
        assert not deadline.passed, "it did not come to that"
        clock.block(0.01)


class Begun:
    """A scan of a notebook, under way in a thread."""

    def __init__(self, lab: LabClient, positions: list[float], **options: Any) -> None:
        self.outcome: ScanRun | Exception | None = None
        self._thread = threading.Thread(target=self._scan, args=(lab, positions, options))
        self._thread.start()

    def _scan(self, lab: LabClient, positions: list[float], options: dict[str, Any]) -> None:
        try:
            self.outcome = lab.scan(lab.rail.x, positions, lab.other, progress=False, **options)
        except Exception as error:  # noqa: BLE001 - it is what came of it
            self.outcome = error

    def end(self) -> ScanRun | Exception | None:
        self._thread.join(30)
        return self.outcome


def rail() -> RailActor:
    return RailActor.all["rail"]


def is_on_its_way() -> bool:
    return rail().has["x"] > 0.0


def test_a_scan_has_control_of_what_it_moves_until_it_ends(lab: LabClient, other: LabClient) -> None:
    seen: list[str] = []

    def heard(name: str, _: Any) -> None:
        if name == "event":
            seen.append(str(other.rail.holder()))
            with pytest.raises(NotInControlError, match=r"scan 1 of"):
                other.rail.x.move(5.0)
            assert other.other.x.read_position().value == 0.0
            other.other.set("gain", 2.0)
            (status,) = other.scans.status()
            assert (status.state, status.axes, status.planned, status.detached) == ("running", ["rail.x"], 2, False)

    run = lab.scan(lab.rail.x, [1.0, 2.0], lab.other, progress=False, on_document=heard)
    assert run.complete
    assert len(seen) == 2
    assert seen[0].startswith("scan 1 of ")
    assert lab.holders() == {}
    (status,) = lab.scans.status()
    assert (status.state, status.done, status.run, status.directory) == ("complete", 2, run.uid, str(run.directory))
    assert repr(lab.scans[1]) == "<scan 1 of rail.x: 2 of 2 points, complete>"
    assert [point["rail_x"] for point in lab.scans[-1].points().to_arrow().to_pylist()] == [1.0, 2.0]
    other.rail.x.move(5.0)
    other.rail.control("bob")
    with pytest.raises(NotInControlError, match="bob"):
        lab.scan(lab.rail.x, [1.0], lab.other, progress=False)
    assert rail().has["x"] == 5.0, "nothing moved"


def test_a_scan_is_paused_resumed_and_aborted_by_others(lab: LabClient, other: LabClient) -> None:
    RailActor.step_s = 1.0  # for as long as that it is on its way
    begun = Begun(lab, [20.0, 1.0])
    until(is_on_its_way)
    scan = other.scans[-1]
    scan.pause()
    RailActor.step_s = 0.0
    until(lambda: scan.status().state == "paused")
    (why,) = scan.status().holds
    assert why.startswith("paused by ")
    assert scan.status().done == 1, "what moves arrives"
    assert rail().has["x"] == 20.0
    RailActor.step_s = 1.0
    assert scan.resume().number == scan.number
    until(lambda: rail().has["x"] != 20.0)
    status = scan.abort()
    assert (status.state, status.done) == ("aborted", 1)
    assert status.why.startswith("aborted by ")
    error = begun.end()
    assert isinstance(error, ScanInterruptedError)
    assert len(error.run) == 1
    assert 2.0 < rail().has["x"] < 20.0, "it was stopped on its way"
    with pytest.raises(LifecycleError, match="has ended: aborted"):
        scan.pause()
    assert lab.holders() == {}


def test_a_scan_that_ctrl_c_has_ended_is_aborted_and_says_where_its_points_are(lab: LabClient) -> None:
    def ctrl_c(name: str, _: Any) -> None:
        main = threading.main_thread().ident
        if name == "event" and main is not None:
            signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(ScanInterruptedError) as caught:
            lab.scan(lab.rail.x, [1.0, 2.0], lab.other, settle_s=0.5, progress=False, on_document=ctrl_c)
    finally:
        signal.signal(signal.SIGINT, before)
    status = lab.scans[-1].status()
    assert (status.state, status.why) == ("aborted", "interrupted by Ctrl-C after 1 of 2 points")
    assert f"the recording is {status.directory}; the points are in `run`" in str(caught.value)
    assert [point["rail_x"] for point in caught.value.run.to_arrow().to_pylist()] == [1.0]
    assert lab.scans[-1].points().stop["reason"] == "interrupted by Ctrl-C"


@pytest.mark.parametrize("every_s", [0.0, 0.002, 0.02])
def test_who_presses_ctrl_c_again_and_again_at_a_scan_he_attached_to_ends_it(
    lab: LabClient, monkeypatch: pytest.MonkeyPatch, every_s: float
) -> None:
    monkeypatch.setattr(RailActor, "step_s", 0.05)
    attached = threading.Event()

    def ctrl_c(*_: Any) -> None:
        if attached.is_set():
            raise KeyboardInterrupt

    def press() -> None:
        main = threading.main_thread().ident
        attached.wait(30)
        until(lambda: rail().has["x"] > 0.3)
        for _ in range(30):
            signal.pthread_kill(main or 0, signal.SIGINT)
            clock.block(every_s)

    scan = lab.scan(lab.rail.x, [0.2, 20.0], lab.other, detach=True)
    before, pressing = signal.signal(signal.SIGINT, ctrl_c), threading.Thread(target=press)
    pressing.start()

    def attach() -> None:
        attached.set()
        try:
            scan.attach(progress=False)
        finally:
            attached.clear()

    try:
        with pytest.raises(ScanInterruptedError) as caught:
            attach()
    finally:
        pressing.join()
        signal.signal(signal.SIGINT, before)
    assert len(caught.value.run) == 1
    assert scan.status().state == "aborted"
    at = rail().has["x"]
    clock.block(0.1)
    assert rail().has["x"] == at < 5.0, "it stands where it was stopped"


def test_ctrl_c_while_attaching_begins_ends_the_scan(lab: LabClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RailActor, "step_s", 0.05)
    scan = lab.scan(lab.rail.x, [0.2, 20.0], lab.other, detach=True)
    looked, status = [True], type(scan).status

    def pressed(self: Any) -> Any:
        if looked:
            looked.clear()
            raise KeyboardInterrupt
        return status(self)

    monkeypatch.setattr(type(scan), "status", pressed)
    with pytest.raises(ScanInterruptedError):
        scan.attach(progress=False)
    assert scan.status().state == "aborted"


def test_a_scan_that_is_aborted_before_its_first_document_is_interrupted_with_no_points(
    lab: LabClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = _scans.Scans.begin

    def begun_and_aborted(self: _scans.Scans, *what: Any) -> Any:
        status = begin(self, *what)
        scan = self._scans[status.number]
        self._abort(scan, "aborted as it began")
        _scans._signal(scan, signal.SIGKILL)  # as it does to a program that does not end by itself
        return status

    monkeypatch.setattr(_scans.Scans, "begin", begun_and_aborted)
    scan = lab.scan(lab.rail.x, [0.2, 20.0], lab.other, detach=True)
    with pytest.raises(ScanInterruptedError, match=r"ended after 0 of 2 points: aborted as it began") as caught:
        scan.attach(progress=False)
    run = caught.value.run
    assert (len(run), run.directory, run.axes, run.fields()) == (0, None, ("rail.x",), [])
    assert repr(run) == "<scan of rail.x: 0 of 2 points, aborted>"
    assert run.to_arrow().num_rows == 0
    assert "0 of 2" in run._repr_html_()
    with pytest.raises(LifecycleError, match="is not recorded"):
        scan.points()


@pytest.mark.parametrize("every_s", [0.0, 0.002, 0.02])
@pytest.mark.parametrize("kind", ["scan", "grid"])
def test_who_presses_ctrl_c_again_and_again_keeps_the_points_and_the_axis_stands(
    lab: LabClient, monkeypatch: pytest.MonkeyPatch, kind: str, every_s: float
) -> None:
    monkeypatch.setattr(RailActor, "step_s", 0.05)
    presses, scanning = 30, threading.Event()

    def ctrl_c(*_: Any) -> None:
        if scanning.is_set():
            raise KeyboardInterrupt

    def press() -> None:
        main = threading.main_thread().ident
        until(lambda: rail().has["x"] > 0.3)
        for _ in range(presses):
            signal.pthread_kill(main or 0, signal.SIGINT)
            clock.block(every_s)

    def scan() -> None:
        scanning.set()
        try:
            if kind == "scan":
                lab.scan(lab.rail.x, [0.2, 20.0], lab.other, progress=False)
            else:
                lab.grid((lab.other.x, [0.0]), (lab.rail.x, [0.2, 20.0]), read=lab.other, progress=False)
        finally:
            scanning.clear()

    before, pressing = signal.signal(signal.SIGINT, ctrl_c), threading.Thread(target=press)
    pressing.start()
    try:
        with pytest.raises(ScanInterruptedError) as caught:
            scan()
        assert signal.getsignal(signal.SIGINT) is ctrl_c
    finally:
        pressing.join()
        signal.signal(signal.SIGINT, before)
    status = lab.scans[-1].status()
    assert (status.state, status.why) == ("aborted", "interrupted by Ctrl-C after 1 of 2 points")
    assert len(caught.value.run) == 1
    assert lab.scans[-1].points().stop["exit_status"] == "abort"
    assert lab.holders() == {}
    at = rail().has["x"]
    clock.block(0.1)
    assert rail().has["x"] == at < 5.0, "it stands where it was stopped"


def test_a_scan_whose_program_stands_still_is_ended_without_it(
    lab: LabClient, other: LabClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duodaq.app._scans._KILL_S", 0.3)
    goes_on = threading.Event()

    def stand_still(name: str, _: dict[str, Any]) -> None:
        if name == "event":
            goes_on.wait(60)

    begun = Begun(lab, [2.0, 3.0, 4.0], on_document=stand_still)
    try:
        until(lambda: lab.scans.status() and lab.scans[1].status().directory and rail().has["x"] == 2.0)
        until(lambda: duodaq.open_run(str(lab.scans[1].status().directory)).scans)
        until(lambda: len(other.scans[1].points()) == 1)
        other.rail.control("bob", take_over=True)
        status = other.scans[1].wait(10)
        assert (status.state, status.why.partition(";")[2]) == ("aborted", " its program did not end within 0.3 s")
        until(lambda: other.status()["recording"] is None)
        (kept,) = duodaq.open_run(str(status.directory)).scans
        assert (len(kept), kept.stop["exit_status"], kept.stop["reason"]) == (1, "abort", status.why)
        other.rail.x.move(9.0)
    finally:
        goes_on.set()
    error = begun.end()
    assert isinstance(error, ScanInterruptedError), error
    assert (len(error.run), rail().has["x"]) == (1, 9.0), "it moves nothing when it wakes up"
    assert str(error).startswith("ended, since bob ("), "and not that its documents are not kept any more"
    assert error.run.aborted.startswith("ended, since bob (")


def test_a_stop_all_ends_every_scan_for_good(lab: LabClient, channel: LocalChannel, other: LabClient) -> None:
    paused = other.scan(other.other.x, [20.0, 1.0], other.rail, settle_s=600.0, detach=True)
    until(lambda: RailActor.all["other"].has["x"] == 20.0)
    paused.pause()
    resting = Begun(lab, [20.0, 1.0], settle_s=600.0)
    until(lambda: rail().has["x"] == 20.0)
    until(lambda: paused.status().state == "paused")
    other.stop_all()
    other.reset_stop("anna")
    error = resting.end()
    assert isinstance(error, ScanInterruptedError)
    assert "aborted by stop-all after 0 of 2 points" in str(error)
    with contextlib.suppress(LifecycleError):  # it has ended
        paused.resume()
    assert paused.wait(30).why == "aborted by stop-all"
    assert [(one.state, one.why) for one in lab.scans.status()] == [("aborted", "aborted by stop-all")] * 2
    assert (rail().has["x"], RailActor.all["other"].has["x"]) == (20.0, 20.0), "nothing moved on"
    assert paused.points().stop["reason"] == "aborted by stop-all"


def test_a_stop_all_past_the_manager_ends_a_scan_on_its_way(lab: LabClient, channel: LocalChannel) -> None:
    RailActor.step_s = 1.0
    begun = Begun(lab, [20.0, 1.0])
    until(is_on_its_way)

    async def stopped() -> None:
        channel.lab.manager.guard._stopped_all({"by": "duodaq stop-all"})

    channel._thread.run(stopped())
    lab.reset_stop("anna")
    error = begun.end()
    assert isinstance(error, ScanInterruptedError)
    assert "aborted by stop-all after 0 of 2 points" in str(error), "and not that its move failed"
    assert lab.scans[-1].status().why == "aborted by stop-all"
    assert rail().has["x"] < 20.0


def test_taking_control_over_ends_a_scan_in_mid_move(lab: LabClient, other: LabClient) -> None:
    RailActor.step_s = 1.0
    begun = Begun(lab, [20.0, 21.0])
    until(is_on_its_way)
    other.rail.control("bob", take_over=True)
    error = begun.end()
    assert isinstance(error, ScanInterruptedError)
    status = lab.scans[-1].status()
    assert status.state == "aborted"
    assert re.fullmatch(r"ended, since bob \(.*\) has taken control over,", status.why)
    assert f"{status.why} after 0 of 2 points" in str(error)
    assert rail().has["x"] < 20.0, "it was stopped on its way"
    RailActor.step_s = 0.0
    other.rail.x.move(5.0)
    holder = other.rail.holder()
    assert holder is not None
    assert holder.name == "bob"


def test_a_scan_that_lost_control_does_not_go_on_when_it_is_given_up(lab: LabClient, other: LabClient) -> None:
    begun = Begun(lab, [20.0, 21.0], settle_s=600.0)
    until(lambda: rail().has["x"] == 20.0)
    other.rail.control("bob", take_over=True)
    assert other.rail.release()
    error = begun.end()
    assert isinstance(error, ScanInterruptedError)
    assert "has taken control over" in str(error)
    assert rail().has["x"] == 20.0


def test_stopping_what_a_scan_moves_ends_it(lab: LabClient, other: LabClient) -> None:
    begun = Begun(lab, [20.0, 21.0], settle_s=600.0)
    until(lambda: rail().has["x"] == 20.0)
    other.other.stop()
    assert other.scans[-1].status().state == "running", "it moves another"
    other.rail.x.stop()
    assert re.search(r"aborted by .*, who stopped rail, after 0 of 2 points", str(begun.end()))


def test_a_client_scans_an_instrument_once_at_a_time(lab: LabClient) -> None:
    begun = Begun(lab, [20.0, 21.0], settle_s=600.0)
    until(lambda: rail().has["x"] == 20.0)
    for detach in (False, True):
        with pytest.raises(NotInControlError, match="scan 1 of"):
            lab.scan(lab.rail.x, [8.0], lab.other, detach=detach)
    assert not lab.rail.release(), "its scan has control, whatever else the client does"
    lab.rail.control("anna")
    with pytest.raises(NotInControlError, match="scan 1 of"):
        lab.scan(lab.rail.x, [8.0], lab.other, progress=False)
    assert lab.rail.release()
    assert str(lab.rail.holder()).startswith("scan 1 of")
    lab.scans[-1].abort()
    assert isinstance(begun.end(), ScanInterruptedError)
    assert rail().has["x"] == 20.0
    assert lab.holders() == {}


def test_only_the_program_that_scans_says_how_far_it_is_and_that_it_ended(lab: LabClient, other: LabClient) -> None:
    begun = Begun(lab, [20.0, 21.0], settle_s=600.0)
    until(lambda: rail().has["x"] == 20.0)
    said: dict[str, Any] = {"scan": 1, "done": 2}
    for op in ("scan_point", "scan_end"):
        with pytest.raises(NotInControlError, match="only the program that scans says that of scan 1 of"):
            other._channel.request(op, {**said, "complete": True})
    assert (lab.scans[1].status().state, lab.scans[1].status().done) == ("running", 0)
    with pytest.raises(NotInControlError, match="scan 1 of"):
        other.rail.set("gain", 7.0)
    other.scans[1].abort()
    begun.end()


def test_a_grid_has_control_of_all_it_moves_or_does_not_begin(lab: LabClient, other: LabClient) -> None:
    other.other.control("bob")
    with pytest.raises(NotInControlError, match="bob"):
        lab.grid((lab.rail.x, [0, 1]), (lab.other.x, [0, 1]), read=lab.rail, progress=False)
    assert [*lab.holders()] == ["other"], "what was lent went back"
    assert lab.scans.status() == []


def test_a_detached_scan_needs_nobody(lab: LabClient, other: LabClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for given, error in (({"record": False}, TypeError), ({"on_document": print}, TypeError)):
        with pytest.raises(error):
            lab.scan(lab.rail.x, [1.0], lab.other, detach=True, **given)
    with pytest.raises(OutOfRangeError, match="outside the limits 0 … 25"):
        lab.scan(lab.rail.x, [1.0, 26.0], lab.other, detach=True)
    assert lab.scans.status() == []

    RailActor.step_s = 1.0
    lab.rail.control("anna")
    scan = lab.scan(lab.rail.x, [20.0, 2.0, 3.0], lab.other, detach=True, sample="knife 7", n=3)
    assert scan.status().detached
    with pytest.raises(NotInControlError, match="scan 1 of anna"):
        lab.rail.x.move(5.0)
    until(is_on_its_way)
    other.scans[1].pause()
    RailActor.step_s = 0.0
    until(lambda: scan.status().state == "paused")
    scan.resume()
    monkeypatch.setattr(_scan_work, "connect", lambda _: contextlib.nullcontext(other))
    attached = CliRunner().invoke(scans, ["attach", "1"])
    assert attached.exit_code == 0, attached.output
    assert "Scan 1 is complete, 3 of 3 points; they are in" in attached.output
    assert CliRunner().invoke(scans, ["abort", "1"]).exit_code == 1
    assert "rail.x" in CliRunner().invoke(scans).output
    points = other.scans[1].attach(progress=False)
    assert points["rail_x"].tolist() == [20.0, 2.0, 3.0]
    assert points.metadata["n"] == 3
    status = other.scans[1].status()
    assert (status.state, status.done) == ("complete", 3)
    holder = lab.rail.holder()
    assert holder is not None
    assert holder.name == "anna", "it has control again"
    assert duodaq.open_run(str(status.directory)).labels.sample == "knife 7"


def test_a_detached_scan_ends_with_its_lab_and_its_points_are_kept(
    lab: LabClient, channel: LocalChannel, tmp_path: Path
) -> None:
    RailActor.step_s = 1.0
    scan = lab.scan(lab.rail.x, [24.0, 1.0], lab.other, detach=True)
    until(is_on_its_way)
    scan.pause()
    RailActor.step_s = 0.0
    until(lambda: scan.status().state == "paused")
    program = channel.lab.scans._scans[1].program
    report = lab.close()
    assert program is not None
    assert program.poll() is not None
    assert [one.why for one in report.components if one.component == "scans"] == [""]
    assert channel.lab.scans.status(1).why == "aborted by the end of the lab"
    (kept,) = duodaq.runs(tmp_path / "runs")[-1].scans
    assert (len(kept), kept.stop["exit_status"]) == (1, "abort")
    assert kept.stop["reason"] == "aborted by the end of the lab"


def test_a_recording_lasts_until_the_last_scan_in_it_has_ended(lab: LabClient, other: LabClient) -> None:
    first = Begun(lab, [20.0, 21.0], settle_s=600.0)
    until(lambda: lab.scans.status() and lab.scans[1].status().directory)

    def heard(name: str, document: Any) -> None:
        if name == "event" and document["seq_num"] == 1:
            other.scans[1].abort()
            assert isinstance(first.end(), ScanInterruptedError)

    run = other.scan(other.other.x, [1.0, 2.0, 3.0], other.rail, progress=False, on_document=heard)
    ended, whole = duodaq.open_run(str(run.directory)).scans
    assert (ended.stop["exit_status"], len(ended)) == ("abort", 0)
    assert whole.complete
    assert whole["other_x"].tolist() == [1.0, 2.0, 3.0]
    assert lab.status()["recording"] is None


def test_a_scan_goes_on_in_another_recording_when_somebody_ends_its_own(lab: LabClient, other: LabClient) -> None:
    by_hand = lab.start_recording()
    told: list[Any] = []

    def heard(name: str, document: Any) -> None:
        if name == "event" and document["seq_num"] in (1, 3):
            told.append(other.stop_recording()["directory"])

    with logged() as lines:
        run = lab.scan(lab.rail.x, [1.0, 2.0, 3.0, 4.0], lab.other, progress=False, on_document=heard)
    assert run.complete
    assert told[0] == str(by_hand)
    assert len({*told, str(run.directory)}) == 3
    warnings = [one for one in lines if one["event"].startswith("the recording of a scan was ended")]
    assert [one["earlier"] for one in warnings] == [told[:1], told]
    status = lab.scans[-1].status()
    assert (status.state, status.done, status.directory) == ("complete", 4, str(run.directory))
    (kept,) = duodaq.open_run(str(run.directory)).scans
    assert kept.complete
    assert kept.to_arrow().equals(run.to_arrow())
    assert lab.scans[-1].points()["rail_x"].tolist() == [1.0, 2.0, 3.0, 4.0]
    (part,) = duodaq.open_run(told[0]).scans
    assert (part.complete, len(part)) == (False, 1)
    assert lab.status()["recording"] is None, "what was begun for it ends with it"
