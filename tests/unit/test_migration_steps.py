"""The order of a cutover, and that whatever fails leaves exactly one owner: on hands that only note what they do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from duodaq.errors import CutoverError, LifecycleError
from duodaq.migration import Limits, cut_over, equivalents_of, handed_over, same_value
from duodaq.model import (
    ComponentReport,
    InstrumentDefinition,
    InstrumentState,
    Outcome,
    ParameterEntry,
    RuntimeName,
    holder_of,
)

V2 = InstrumentDefinition("m", "v2", "a:B", port="p")
V4 = InstrumentDefinition("m", "v4", "duodaq:Newport1830C", port="p")
STEPS = ("same_device", "settled", "take_down", "drained", "fence", "bring_up", "state")


class NotingHands:
    """A lab of one instrument, as far as a cutover sees it. `fails` is the step that raises, `hangs` one that waits."""

    def __init__(self, fails: str = "", *, back_fails: Exception | None = None) -> None:
        self.fails = fails
        self.back_fails = back_fails
        self.done: list[str] = []
        self.registered: InstrumentDefinition = V2
        self.running: InstrumentDefinition | None = V2
        self.writer = holder_of(V2)
        self.gate_open = True
        self.accepted: dict[str, Any] = {}
        self.hangs = ""
        self.hanging = asyncio.Event()

    async def _hang_if(self, step: str) -> None:
        if self.hangs == step:
            self.hanging.set()
            await asyncio.Event().wait()

    async def _does(self, step: str) -> None:
        self.done.append(step)
        await self._hang_if(step)
        if self.fails == step:
            self.fails = ""
            raise LifecycleError(f"{step} failed")

    def hold(self, instrument: str) -> None:
        self.done.append("hold")
        self.gate_open = False

    def resume(self, instrument: str) -> None:
        self.done.append("resume")
        self.gate_open = True

    async def settled(self, instrument: str, limit_s: float) -> bool:
        self.done.append("settled")
        return self.fails != "settled"

    async def same_device(self, definition: InstrumentDefinition) -> str:
        self.done.append("same_device")
        return "another device answers" if self.fails == "same_device" else ""

    async def has_no_place(self, definition: InstrumentDefinition, limit_s: float) -> str:
        self.done.append("has_no_place")
        return "its worker is away" if self.fails == "has_no_place" else ""

    async def take_down(self, definition: InstrumentDefinition, limit_s: float) -> ComponentReport:
        self.done.append(f"take_down {definition.runtime}")
        await self._hang_if("take_down")
        self.running = None
        return ComponentReport("v2.m", Outcome.LEAKED if self.fails == "take_down" else Outcome.CLEAN)

    async def fence(self, definition: InstrumentDefinition) -> None:
        await self._does("fence")
        assert self.running is None, "the fence moved while somebody was running"
        self.writer = holder_of(definition)

    async def drained(self, definition: InstrumentDefinition, limit_s: float) -> dict[str, int]:
        await self._does("drained")
        return {"power": 7}

    async def bring_up(self, definition: InstrumentDefinition, limit_s: float) -> None:
        self.done.append(f"bring_up {holder_of(definition)}")
        await self._hang_if("bring_up")
        if self.back_fails is not None and definition.runtime == "v2":
            raise self.back_fails
        if self.fails == "bring_up":
            self.fails = ""
            raise LifecycleError("it did not start")
        self.registered = self.running = definition

    def park(self, definition: InstrumentDefinition) -> None:
        self.registered, self.running = definition, None

    def state(self, instrument: str) -> InstrumentState:
        if self.running is None or (self.fails == "state" and self.running.runtime == "v4"):
            return InstrumentState.ERROR
        return InstrumentState.ACQUIRING

    def values(self, instrument: str) -> tuple[ParameterEntry, ...]:
        owner: RuntimeName = self.registered.runtime
        found = self.accepted if owner == "v4" else {"wavelength": 780}
        return tuple(ParameterEntry("m", name, value, "", 0, 1, owner) for name, value in found.items())


async def test_a_cutover_takes_its_steps_in_order() -> None:
    hands = NotingHands()
    now, passage = await cut_over(hands, V2, V4, lambda _: {"wavelength_nm": 780})
    assert hands.done == [
        "same_device", "has_no_place", "hold", "settled", "take_down v2", "drained", "fence", "bring_up v4.m@1",
        "resume",
    ]  # fmt: skip
    assert (now.epoch, now.numbers, now.settings) == (1, {"power": 7}, {"wavelength_nm": 780})
    assert now.options["acquire"] is True
    assert (passage.owner, hands.writer) == ("v4", "v4.m@1")


async def test_and_back_in_a_newer_epoch() -> None:
    hands = NotingHands()
    now, _ = await cut_over(hands, V2, V4)
    back, passage = await cut_over(hands, now, V2)
    assert (back.epoch, passage.owner, hands.writer) == (2, "v2", "v2.m@2")


@pytest.mark.parametrize("step", STEPS)
async def test_whatever_fails_exactly_one_owner_is_left_and_named(step: str) -> None:
    hands = NotingHands(step)
    if step == "take_down":  # who does not end in order is fenced off, and the move goes on
        _, passage = await cut_over(hands, V2, V4)
        assert (passage.owner, passage.old_ended) == ("v4", "leaked")
    else:
        with pytest.raises(CutoverError) as failed:
            await cut_over(hands, V2, V4)
        assert failed.value.owner == "v2"
        assert "v2 has it" in str(failed.value)
        assert hands.registered.runtime == "v2"
    assert hands.gate_open
    assert hands.running is hands.registered
    assert hands.writer == holder_of(hands.registered)


@pytest.mark.parametrize("error", [LifecycleError("it did not start"), ImportError("no such thing")])
@pytest.mark.parametrize("step", ["bring_up", "state"])
async def test_an_old_owner_that_does_not_come_back_stays_registered_and_says_so(step: str, error: Exception) -> None:
    hands = NotingHands(step, back_fails=error)
    with pytest.raises(CutoverError, match=r"v2 has it, and is not running.*recover") as failed:
        await cut_over(hands, V2, V4)
    assert failed.value.owner == "v2"
    assert (hands.registered.runtime, hands.running) == ("v2", None)
    assert hands.writer == holder_of(hands.registered)


@pytest.mark.parametrize(
    ("step", "owner"), [("take_down", "v2"), ("drained", "v2"), ("fence", "v2"), ("bring_up", "v2")]
)
async def test_a_lab_that_ends_in_the_middle_of_it_still_knows_an_owner(step: str, owner: RuntimeName) -> None:
    hands = NotingHands()
    hands.hangs = step
    moving = asyncio.create_task(cut_over(hands, V2, V4))
    await asyncio.wait_for(hands.hanging.wait(), 10)
    moving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moving
    assert hands.registered.runtime == owner
    assert hands.running in (None, hands.registered)
    assert hands.gate_open


async def test_a_setting_that_the_new_owner_reads_otherwise_undoes_it() -> None:
    hands = NotingHands()
    hands.accepted = {"wavelength_nm": 633}
    with pytest.raises(CutoverError, match=r"handed over as 780 and reads 633") as failed:
        await cut_over(hands, V2, V4, lambda _: {"wavelength_nm": 780})
    assert failed.value.step == "check"
    assert "take_down v4" in hands.done
    assert hands.running is not None
    assert hands.running.runtime == "v2"


async def test_a_new_owner_without_a_place_refuses_it_before_anything_waits() -> None:
    hands = NotingHands("has_no_place")
    with pytest.raises(CutoverError, match=r"refused at «place»: its worker is away.*v2 has it"):
        await cut_over(hands, V2, V4)
    assert hands.done == ["same_device", "has_no_place"]


async def test_a_command_that_does_not_end_refuses_it_and_nothing_was_touched() -> None:
    hands = NotingHands("settled")
    with pytest.raises(CutoverError, match="still in hand"):
        await cut_over(hands, V2, V4, limits=Limits(settle_s=0.01))
    assert not any(done.startswith(("take_down", "fence")) for done in hands.done)


def test_settings_go_over_under_the_new_names_and_never_what_moves() -> None:
    meter = equivalents_of("a:B", "newport1830c")
    assert meter is not None
    assert handed_over({"wavelength": 780, "gain": 3}, V2, V4, meter) == {"wavelength_nm": 780}
    listed = InstrumentDefinition("m", "v2", "a:B", port="p", watched=("wavelength",))
    assert handed_over({"wavelength_nm": 633.0, "unit": "W"}, V4, listed, meter) == {"wavelength": 633.0}
    stage = equivalents_of("pymeasure.instruments.newport:ESP300", "esp300")
    assert stage is not None
    assert handed_over({"x.position": 3.0, "x.enabled": True, "x.velocity": 2.0}, V2, V4, stage) == {"x.velocity": 2.0}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(780, 780.0, True), (1.0, 1.0000001, True), (1, 1.1, False), ("W", "W", True), ("W", "dBm", False)],
)
def test_settings_are_compared_as_devices_round(one: Any, other: Any, same: bool) -> None:
    assert same_value(one, other) is same
