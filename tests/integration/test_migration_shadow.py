"""A shadow on a running lab: none of the planted differences goes unseen, and right drivers have none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from duodaq import clock
from duodaq.app._live_shadow import LiveShadow
from duodaq.dual import DualRuntimeManager
from duodaq.errors import DuodaqError, LifecycleError, ReplyFormatError
from duodaq.migration import Beside, Shadow, ShadowReport, Tolerances, equivalents_between, shadow_recording
from duodaq.migration._shadow_main import waited_for_a_processor_s
from duodaq.model import (
    AxisDefinition,
    Execute,
    InstrumentDefinition,
    LabDefinition,
    Measurement,
    PollDefinition,
    PortDefinition,
    PowerReading,
    RuntimeDefinition,
    SetParameter,
    WireRecord,
)
from duodaq.testing._scripted_meter import ScriptedPowerMeter
from duodaq.testing._scripted_port import Answer, ScriptedTransport
from duodaq.v4 import handler
from duodaq.v4.instruments import Newport1830C, SetWavelength

EVERY_S = 0.02
METER = InstrumentDefinition(
    "meter", "v2", "duodaq.cli.demo.power_meter:PowerMeter", port="line",
    polls=(PollDefinition("power", EVERY_S, "W", call="read_power"),),
)  # fmt: skip
METER4 = InstrumentDefinition("meter", "v4", "duodaq:Newport1830C", port="line", args={"rate_hz": 1 / EVERY_S})


class Stage:
    """An ESP300, as little of it as the drivers here ask."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}
        self.line = ScriptedTransport(self.hear, "stage", b"\r")

    def hear(self, line: bytes) -> Answer | None:
        text = line.decode().strip()
        if "PA" in text:
            axis, _, place = text.partition("PA")
            self.places[axis] = place
            return None
        if text.rstrip("?").endswith("TP"):
            return Answer(f"{float(self.places.get(text[:1], '0')):.4f}\r\n".encode())
        return Answer({"VE?": b"ESP300 Version 3.04\r\n", "TB?": b"0, 1, NO ERROR DETECTED\r\n"}.get(text, b"0\r\n"))


DEVICES = {"newport1830c": ScriptedPowerMeter, "esp300": Stage}


def made(v2: InstrumentDefinition, codec: str) -> tuple[Any, PortDefinition, DualRuntimeManager]:
    device: Any = DEVICES[codec]()
    port = PortDefinition("line", tcp="nowhere:1", codec=codec, timeout_s=2.0)
    lab = LabDefinition("shadows", (port,), (v2,), RuntimeDefinition("v2", "inline"), RuntimeDefinition("v4", "inline"))
    return device, port, DualRuntimeManager(lab, transports={"line": device.line})


@asynccontextmanager
async def shadowing(
    v2: InstrumentDefinition, v4: InstrumentDefinition, codec: str = "newport1830c", *, here: bool = False
) -> AsyncIterator[tuple[DualRuntimeManager, LiveShadow, Any]]:
    device, port, manager = made(v2, codec)
    await manager.start()
    try:
        tolerances = Tolerances(window_s=0.3)
        beside = Beside(v2, v4, port, equivalents_between(v2, codec, v4), tolerances)
        live = LiveShadow(manager, beside, Shadow(beside) if here else None)
        await live.start()
        try:
            yield manager, live, device
        finally:
            await live.end()
    finally:
        await manager.shutdown()


async def until(live: LiveShadow, seen: Callable[[ShadowReport], bool]) -> ShadowReport:
    async with asyncio.timeout(20):
        while not seen(report := live.report()):
            await clock.pause(0.02)
    return report


def kinds(report: ShadowReport) -> dict[str, str]:
    return {row["subject"]: row["kind"] for row in report.findings}


async def test_between_the_home_made_meter_and_ours_there_is_no_difference() -> None:
    async with shadowing(METER, METER4) as (manager, live, device):
        await manager.command("meter", Execute("set_wavelength", (780,)))
        report = await until(live, lambda r: r.values["compared"] >= 20 and r.orders["matched"] >= 1)
        await clock.pause(0.4)
        report = live.report()
        assert report.findings == []
        assert report.within
        assert report.orders == {"matched": 1, "missing": 0, "extra": 0}
        assert report.values["same"] == report.values["compared"]
        assert "question «status»" in report.not_comparable
        assert set(report.timing_s) == {"V2's exchanges", "V4, from the reply to the value"}
        assert not any(line in (b"C", b"Q?", b"W?") for line in device.line.lines), "the shadow was on the wire"


async def test_between_pymeasures_esp300_and_ours_there_is_no_difference() -> None:
    pytest.importorskip("pymeasure")
    poll = PollDefinition("place", EVERY_S, "mm", read="x.position")
    v2 = InstrumentDefinition("stage", "v2", "pymeasure.instruments.newport:ESP300", port="line", polls=(poll,))
    axes = (AxisDefinition("x", 1, "mm", (-10.0, 25.0)),)
    v4 = InstrumentDefinition(
        "stage", "v4", "duodaq:Esp300", port="line", axes=axes, polls=(poll,), args={"rate_hz": 1}
    )
    async with shadowing(v2, v4, "esp300") as (manager, live, _device):
        await until(live, lambda r: r.values["compared"] >= 10)
        await manager.command("stage", SetParameter("x.position", 12.3456789))
        report = await until(live, lambda r: r.orders["matched"] >= 1)
        await clock.pause(0.4)
        report = live.report()
        assert report.findings == []
        assert report.values["same"] == report.values["compared"] > 10


async def recorded(codec: str, v2: InstrumentDefinition) -> tuple[PortDefinition, list[WireRecord]]:
    """What V2 leaves in the wire log in a little while, without a shadow."""
    meter, port, manager = made(v2, codec)
    await manager.start()
    try:
        async with asyncio.timeout(10):
            while meter.readings < 10:
                await clock.pause(0.01)
        await manager.command("meter", Execute("set_wavelength", (780,)))
    finally:
        await manager.shutdown()
    return port, list(manager.broker.log("line"))


async def test_a_recording_is_enough_for_a_shadow_and_shows_what_differs() -> None:
    port, records = await recorded("newport1830c", METER)
    same = equivalents_between(METER, "newport1830c", METER4)
    right = await shadow_recording(Beside(METER, METER4, port, same), records)
    assert right.findings == []
    assert right.values["same"] == right.values["compared"] >= 5
    assert "recording" in right.not_comparable["orders"]
    wrong = await shadow_recording(Beside(METER, replace(METER4, driver=Rounding), port, same), records)
    assert kinds(wrong) == {"power": "rounding"}


async def test_a_recording_without_the_instrument_is_refused() -> None:
    port, records = await recorded("newport1830c", METER)
    other = replace(METER, id="other")
    with pytest.raises(LifecycleError, match="asked nothing"):
        await shadow_recording(
            Beside(other, replace(METER4, id="other"), port, equivalents_between(METER, "newport1830c", METER4)),
            records,
        )


class InMilliwatts(Newport1830C):
    """Right numbers, in a unit that it does not name."""

    async def measure(self, channel: str) -> Measurement:
        reading = await self.driver.read_power()
        return self.publish_scalar("power", reading.value * 1e3, "W", reading.t_ns)


class NamedMilliwatts(Newport1830C):
    async def measure(self, channel: str) -> Measurement:
        reading = await self.driver.read_power()
        return self.publish_scalar("power", reading.value * 1e3, "mW", reading.t_ns)


class Rounding(Newport1830C):
    async def measure(self, channel: str) -> Measurement:
        reading = await self.driver.read_power()
        return self.publish_scalar("power", float(f"{reading.value:.3g}"), reading.unit, reading.t_ns)


class LosesTheLastDigit(Newport1830C):
    """Seven digits come, six go on."""

    async def measure(self, channel: str) -> Measurement:
        reading = await self.driver.read_power()
        return self.publish_scalar("power", float(f"{reading.value:.6g}"), reading.unit, reading.t_ns)


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        (InMilliwatts, "unit"),
        (NamedMilliwatts, "unit"),
        (Rounding, "rounding"),
        (LosesTheLastDigit, "rounding"),
    ],
)
async def test_a_wrong_unit_and_rounding_are_found(planted: Any, kind: str) -> None:
    async with shadowing(METER, replace(METER4, driver=planted)) as (_, live, _device):
        report = await until(live, lambda r: bool(r.findings) and r.values["compared"] >= 3)
        assert kinds(report) == {"power": kind}


class WritesMore(Newport1830C):
    @handler(SetWavelength)
    async def set_wavelength(self, message: SetWavelength) -> float:
        await self.driver.set_filter(1)
        return await super().set_wavelength(message)


class WritesLess(Newport1830C):
    @handler(SetWavelength)
    async def set_wavelength(self, message: SetWavelength) -> float:
        return message.wavelength_nm


class WritesRounded(Newport1830C):
    @handler(SetWavelength)
    async def set_wavelength(self, message: SetWavelength) -> float:
        return await super().set_wavelength(SetWavelength(round(message.wavelength_nm, -1)))


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        (WritesMore, {"filter": "extra"}),
        (WritesLess, {"wavelength": "missing"}),
        (WritesRounded, {"wavelength": "rounding"}),
    ],
)
async def test_an_extra_a_missing_and_another_order_are_found(planted: Any, found: dict[str, str]) -> None:
    async with shadowing(METER, replace(METER4, driver=planted)) as (manager, live, _device):
        await until(live, lambda r: r.values["compared"] >= 1)
        await manager.command("meter", Execute("set_wavelength", (777,)))
        report = await until(live, lambda r: bool(r.findings))
        assert kinds(report) == found


async def test_an_order_to_another_axis_is_found() -> None:
    pytest.importorskip("pymeasure")
    poll = PollDefinition("place", EVERY_S, "mm", read="x.position")
    v2 = InstrumentDefinition("stage", "v2", "pymeasure.instruments.newport:ESP300", port="line", polls=(poll,))
    swapped = (AxisDefinition("x", 2, "mm", (-10.0, 25.0)),)
    v4 = InstrumentDefinition("stage", "v4", "duodaq:Esp300", port="line", axes=swapped, args={"rate_hz": 10})
    async with shadowing(v2, v4, "esp300") as (manager, live, _device):
        await until(live, lambda r: r.questions.get("axis 1: position", {}).get("v2", 0) > 3)
        await manager.command("stage", SetParameter("x.position", 3.5))
        report = await until(live, lambda r: len(r.findings) >= 2)
        assert kinds(report) == {"axis 1: move to": "axis", "axis 1: position": "axis"}


async def test_slower_polling_is_found() -> None:
    async with shadowing(METER, replace(METER4, args={"rate_hz": 8.0})) as (_, live, _device):
        report = await until(live, lambda r: "reading" in kinds(r))
        assert kinds(report) == {"reading": "rate"}


async def test_a_shadow_without_a_processor_says_nothing_of_how_often_v4_asks() -> None:
    async with shadowing(METER, replace(METER4, args={"rate_hz": 8.0}), here=True) as (_, live, _device):
        live.shadow.note_starved(30.0)
        report = await until(live, lambda r: "pace of question «reading»" in r.not_comparable)
        assert "no processor for 30.0 s" in report.not_comparable["pace of question «reading»"]
        assert kinds(report) == {}


def test_the_kernel_says_how_long_a_thread_waits_for_a_processor() -> None:
    assert waited_for_a_processor_s() > 0


class Swallows(Newport1830C):
    """Takes what cannot be read for the last good value."""

    async def measure(self, channel: str) -> Measurement:
        try:
            reading = await self.driver._read_power()
        except ReplyFormatError:
            reading = PowerReading(0.0, "W", clock.utc_ns(), None)
        return self.publish_scalar("power", reading.value, reading.unit, reading.t_ns)


async def test_an_error_that_v4_swallows_is_found() -> None:
    async with shadowing(METER, replace(METER4, driver=Swallows)) as (_, live, device):
        await until(live, lambda r: r.values["compared"] >= 3)
        device.garbles = 1
        report = await until(live, lambda r: "readings" in kinds(r))
        assert kinds(report) == {"readings": "error"}
        assert (report.errors["v2"], report.errors["v4"]) == (1, 0)


class Crashes(Newport1830C):
    """Raises what it should not, once it has read well for a while."""

    count = 0

    async def measure(self, channel: str) -> Measurement:
        self.count += 1
        if self.count > 5:
            raise KeyError("nobody thought of it")
        return await super().measure(channel)


async def test_an_actor_that_gives_up_is_found() -> None:
    async with shadowing(METER, replace(METER4, driver=Crashes)) as (_, live, _device):
        report = await until(live, lambda r: "its actor" in kinds(r))
        assert kinds(report)["its actor"] == "error"
        assert report.errors["v4"] >= 1
        assert not report.within


class Refuses(Newport1830C):
    operations: ClassVar[Any] = {**Newport1830C.operations}

    @handler(SetWavelength)
    async def set_wavelength(self, message: SetWavelength) -> float:
        raise ReplyFormatError("it cannot be set")


async def test_an_error_of_a_command_on_one_side_is_found() -> None:
    async with shadowing(METER, replace(METER4, driver=Refuses)) as (manager, live, _device):
        await manager.command("meter", Execute("set_wavelength", (777,)))
        report = await until(live, lambda r: len(r.findings) >= 2)
        assert kinds(report) == {"set_wavelength": "error", "wavelength": "missing"}
        assert (report.errors["v2"], report.errors["v4"]) == (0, 1)


class Stumbles(Newport1830C):
    """Does what it should, and raises then what no driver should."""

    @handler(SetWavelength)
    async def set_wavelength(self, message: SetWavelength) -> float:
        await super().set_wavelength(message)
        raise TypeError("of all things")


async def test_whatever_a_command_raises_on_one_side_is_found() -> None:
    async with shadowing(METER, replace(METER4, driver=Stumbles)) as (manager, live, _device):
        await until(live, lambda r: r.values["compared"] >= 1)
        await manager.command("meter", Execute("set_wavelength", (777,)))
        report = await until(live, lambda r: bool(r.findings))
        assert kinds(report) == {"set_wavelength": "error"}
        assert "of all things" in report.findings[0]["v4"]


class ForgetsTheEnd(Newport1830C):
    @handler(SetWavelength)
    async def set_wavelength(self, message: SetWavelength) -> float:
        await self.driver._port.write(f"W{message.wavelength_nm:04.0f}".encode(), holder="v4.meter")
        return message.wavelength_nm


class EndsOtherwise(ForgetsTheEnd):
    @handler(SetWavelength)
    async def set_wavelength(self, message: SetWavelength) -> float:
        await self.driver._port.write(f"W{message.wavelength_nm:04.0f}\r\n".encode(), holder="v4.meter")
        return message.wavelength_nm


@pytest.mark.parametrize(
    ("planted", "found", "noted"),
    [(ForgetsTheEnd, {"commands": "end"}, False), (EndsOtherwise, {}, True)],
)
async def test_a_command_without_its_end_is_found_and_another_end_is_told(
    planted: Any, found: dict[str, str], noted: bool
) -> None:
    async with shadowing(METER, replace(METER4, driver=planted)) as (manager, live, _device):
        await until(live, lambda r: r.values["compared"] >= 1)
        await manager.command("meter", Execute("set_wavelength", (777,)))
        report = await until(live, lambda r: r.orders["matched"] >= 1)
        assert kinds(report) == found
        assert ("the ends of commands" in report.not_comparable) is noted


@pytest.mark.parametrize(
    ("numbers", "found"),
    [((1, 2, 3), {}), ((1, 3, 2), {"channel place of y": "axis", "channel place of phi": "axis"})],
)
async def test_swapped_axes_are_found_though_both_are_asked_and_nothing_moves(
    numbers: tuple[int, ...], found: dict[str, str]
) -> None:
    pytest.importorskip("pymeasure")
    names = ("x", "y", "phi")
    polls = tuple(PollDefinition(f"place of {name}", EVERY_S, "mm", read=f"{name}.position") for name in names)
    v2 = InstrumentDefinition("stage", "v2", "pymeasure.instruments.newport:ESP300", port="line", polls=polls)
    axes = tuple(AxisDefinition(name, n, "mm", (-10.0, 25.0)) for name, n in zip(names, numbers, strict=True))
    v4 = replace(v2, runtime="v4", driver="duodaq:Esp300", axes=axes, args={"rate_hz": 1})
    async with shadowing(v2, v4, "esp300") as (_, live, _device):
        report = await until(live, lambda r: r.values["compared"] >= 30 and kinds(r).keys() >= found.keys())
        assert kinds(report) == found


class NeverMeasures(Newport1830C):
    async def measure(self, channel: str) -> Measurement:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_channel_that_v4_has_and_never_measures_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duodaq.migration._shadow._SILENT_S", 0.5)
    async with shadowing(METER, replace(METER4, driver=NeverMeasures), here=True) as (_, live, _device):
        report = await until(live, lambda r: bool(r.findings))
        assert kinds(report) == {"channel power": "silent"}


async def test_what_v4_has_no_name_for_is_not_comparable_and_nobody_waits_for_it() -> None:
    async with shadowing(METER, METER4) as (manager, live, _device):
        with pytest.raises(DuodaqError):
            await manager.command("meter", Execute("dance"))
        await live.refresh()
        report = live.report()
        assert report.not_comparable["command dance"] == "V4 has nothing of that name"


async def test_a_command_before_v4_is_there_is_no_difference() -> None:
    same = equivalents_between(METER, "newport1830c", METER4)
    port = PortDefinition("line", tcp="nowhere:1", codec="newport1830c")
    shadow = Shadow(Beside(METER, METER4, port, same))
    try:
        shadow.commanded(1, Execute("set_wavelength", (780,)), "a trace")
        shadow.became(1, None, None)
        await shadow.start()
        order = WireRecord(clock.utc_ns(), "line", ">", b"W780\n", "v2.meter", 7, "a trace")
        shadow.take(order)
        await clock.pause(0)
        report = shadow.report()
    finally:
        await shadow.aclose()
    assert (report.findings, report.orders) == ([], {"matched": 0, "missing": 0, "extra": 0})
    assert "command set_wavelength at the start" in report.not_comparable


async def test_a_report_is_for_people_and_for_programs() -> None:
    async with shadowing(METER, replace(METER4, driver=Rounding)) as (_, live, _device):
        report = await until(live, lambda r: bool(r.findings))
    text = report.to_markdown()
    assert text.startswith("# Shadow of meter: 1 differences\n")
    assert "| rounded otherwise | power |" in text
    assert report.to_dict()["within"] is False


async def test_who_reads_often_is_no_reason_to_call_v4_slow_and_its_readings_are_compared() -> None:
    async with shadowing(METER, METER4) as (manager, live, _device):
        for _ in range(300):  # far more often than V4 is asked to read beside it
            await manager.command("meter", Execute("read_power"))
        report = await until(live, lambda r: r.values["compared"] >= 3)
    assert report.findings == []
    assert report.questions["reading"]["v2"] > 2 * report.questions["reading"]["v4"]
    assert "some readings" in report.not_comparable


class AsksTwice:
    """A driver that asks for more than it returns, and something else last."""

    def __init__(self, serial: Any) -> None:
        self.serial = serial

    def read_power(self) -> float:
        found = []
        for question in (b"D?\n", b"Q?\n"):
            self.serial.write(question)
            found.append(float(self.serial.readline()))
        return found[0]


@pytest.mark.parametrize(("driver", "says"), [(AsksTwice, False), (METER.driver, True)])
async def test_a_number_is_a_measurement_where_it_is_known_what_it_is_made_of(driver: Any, says: bool) -> None:
    unpolled = replace(METER, driver=driver, options={"acquire": False})  # of a poll it is known
    async with shadowing(unpolled, METER4) as (manager, live, _device):
        async with asyncio.timeout(10):
            while live.report().questions.get("reading", {}).get("v4", 0) < 10:
                await manager.command("meter", Execute("read_power"))
        report = live.report()
    assert report.findings == []
    assert (report.values["compared"] > 0) is says


async def test_a_shadow_that_fails_itself_takes_no_result_from_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    async with shadowing(METER, METER4, here=True) as (manager, live, _device):
        monkeypatch.setattr("duodaq.migration._shadow.command_in_v4", lambda *_: 1 / 0)
        monkeypatch.setattr(live.shadow, "_take_result", lambda *_: 1 / 0)
        assert (await manager.command("meter", Execute("read_power"))) > 0
        assert "ZeroDivisionError" in live.report().not_comparable["a command"]


async def test_a_shadow_goes_on_behind_an_exchange_that_it_fails_at(monkeypatch: pytest.MonkeyPatch) -> None:
    async with shadowing(METER, METER4, here=True) as (_, live, _device):
        await until(live, lambda r: r.values["compared"] >= 1)
        take, failures = live.shadow._exchanges.take, iter([ZeroDivisionError()])

        def fail_once(record: WireRecord) -> Any:
            if (error := next(failures, None)) is not None:
                raise error
            return take(record)

        monkeypatch.setattr(live.shadow._exchanges, "take", fail_once)
        report = await until(live, lambda r: "an exchange" in r.not_comparable)
        before = report.values["compared"]
        await until(live, lambda r: r.values["compared"] > before + 3)


async def test_a_question_that_nobody_can_answer_excuses_one_failure_and_no_more() -> None:
    async with shadowing(METER, METER4, here=True) as (_, live, _device):
        shadow = live.shadow
        shadow.line.stand_ins["nonsense"] = {"none": 1}
        for what in ("one", "another"):
            shadow.note_error(what, ReplyFormatError("of whatever kind"))
        assert kinds(shadow.report()) == {"another": "error"}
        assert "never had" in shadow.report().not_comparable["one"]


@pytest.mark.parametrize(("failures", "differs"), [(1, False), (3, True)])
async def test_failed_readings_are_excused_by_number(
    monkeypatch: pytest.MonkeyPatch, failures: int, differs: bool
) -> None:
    async with shadowing(METER, METER4, here=True) as (_, live, _device):
        shadow = live.shadow
        shadow.line.stand_ins["nonsense"] = {"none": 1}
        figures = {"instruments": {"meter": {"poll_failures": {"power": failures}}}}
        monkeypatch.setattr(shadow.runtime, "metrics", lambda: figures)
        report = shadow.report()
        assert report.not_comparable["failed readings of V4"].startswith("1 of them")
        assert ("readings" in kinds(report)) is differs
        assert report.errors["v4"] == failures
