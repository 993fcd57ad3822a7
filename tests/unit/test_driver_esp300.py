"""The ESP300 driver against a scripted controller, on virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from duodaq.clock import pause
from duodaq.drivers import codec
from duodaq.drivers.esp300 import Esp300Driver
from duodaq.errors import LifecycleError, RefusedError, ReplyTimeoutError, StoppedError
from duodaq.model import AxisDefinition, AxisState, PortDefinition
from duodaq.ports import Broker
from duodaq.testing import virtual_time
from duodaq.testing._scripted_port import Answer, ScriptedTransport


class Controller:
    """One axis that moves at 1 mm/s of the loop's clock."""

    def __init__(self) -> None:
        self.position = 0.0
        self.target = 0.0
        self.arrives_s = 0.0
        self.errors: list[bytes] = []
        self.refuse: dict[bytes, bytes] = {}
        self.garble: list[bytes] = []
        self.motor_on = True
        self.stuck = False

    @property
    def moving(self) -> bool:
        return self.stuck or asyncio.get_running_loop().time() < self.arrives_s

    def answer(self, line: bytes) -> bytes | None:
        if line[1:3] in self.refuse:
            self.errors.append(self.refuse[line[1:3]])
            return None
        if line in (b"1MD?", b"1TP") and self.garble:
            return self.garble.pop() + b"\r\n"
        match line:
            case b"VE?":
                return b"ESP300 Version 3.04\r\n"
            case b"TB?":
                return (self.errors.pop(0) if self.errors else b"0, 1, NO ERROR DETECTED") + b"\r\n"
            case b"1SN?":
                return b"2\r\n"
            case b"1VA?":
                return b"1\r\n"
            case b"1TP" | b"1DP?":
                return b"%.4f\r\n" % (self.position if self.moving else self.target)
            case b"1TV":
                return b"0\r\n"
            case b"1MD?":
                return b"0\r\n" if self.moving else b"1\r\n"
            case b"1MO?":
                return b"1\r\n" if self.motor_on else b"0\r\n"
            case b"1MO":
                self.motor_on = True
            case b"1ST" | b"ST":
                self.target, self.arrives_s, self.stuck = self.position, 0.0, False
            case _ if line.startswith(b"1PA"):
                self.target = float(line[3:])
                self.arrives_s = asyncio.get_running_loop().time() + abs(self.target - self.position)
        return None


@asynccontextmanager
async def stage():
    device = Controller()
    line = ScriptedTransport(device.answer, terminator=b"\r")
    broker = Broker()
    await broker.add(PortDefinition("stage", timeout_s=0.5), codec("esp300"), line)
    await broker.open("stage")

    async def break_in(data: bytes, ends_moving: bool) -> int:
        return await broker.stop("stage", data, "test", ends_moving=ends_moving)

    driver = Esp300Driver(broker.port("stage"), "test", [AxisDefinition("x", 1, "mm", (0.0, 25.0))], break_in)
    await driver.open()
    line.lines.clear()
    try:
        yield driver, device, line, broker
    finally:
        await broker.aclose()


@virtual_time
async def test_an_error_that_waited_before_a_move_is_not_blamed_on_it() -> None:
    async with stage() as (driver, device, _, _):
        device.errors.append(b"6, 1, COMMAND DOES NOT EXIST")
        await driver.move_absolute("x", 2.0)


@virtual_time
async def test_a_refusal_at_once_raises_and_nothing_waits_for_the_motion() -> None:
    async with stage() as (driver, device, line, _):
        device.refuse[b"PA"] = b"106, 1, AXIS-1 POSITIVE SOFTWARE LIMIT"
        with pytest.raises(RefusedError) as caught:
            await driver.move_absolute("x", 2.0)
        assert (caught.value.code, caught.value.text) == (106, "AXIS-1 POSITIVE SOFTWARE LIMIT")
        assert b"1MD?" not in line.lines
        assert (await driver.read_axis("x")).state is AxisState.LIMIT_SWITCH


@virtual_time
async def test_a_limit_switch_on_the_way_raises_after_the_motion() -> None:
    async with stage() as (driver, device, _, _):
        move = asyncio.ensure_future(driver.move_absolute("x", 2.0))
        await pause(1)
        device.errors.append(b"104, 1, AXIS-1 POSITIVE HARDWARE LIMIT")
        with pytest.raises(RefusedError) as caught:
            await move
        assert caught.value.code == 104
        assert (await driver.read_axis("x")).state is AxisState.LIMIT_SWITCH


@virtual_time
async def test_an_error_of_another_axis_does_not_fail_this_ones_move() -> None:
    async with stage() as (driver, device, _, _):
        move = asyncio.ensure_future(driver.move_absolute("x", 2.0))
        await pause(1)
        device.errors += [b"204, 1, AXIS-2 HARDWARE LIMIT", b"6, 1, COMMAND DOES NOT EXIST"]
        await move


@virtual_time
async def test_a_garbled_reading_is_asked_for_again_while_it_moves() -> None:
    async with stage() as (driver, device, _, _):
        device.garble += [b"?!", b"#"]
        await driver.move_absolute("x", 1.0)


@virtual_time
async def test_progress_rises_with_the_position() -> None:
    async with stage() as (driver, device, _, _):
        seen: list[float] = []
        move = asyncio.ensure_future(driver.move_absolute("x", 2.0, lambda fraction, text: seen.append(fraction)))
        await pause(0.5)
        device.position = 1.0
        await move
        assert seen[0] == 0.0
        assert seen[-1] == pytest.approx(0.5)


@virtual_time
async def test_a_motor_that_is_off_is_switched_on_for_a_move_but_not_after_a_fault() -> None:
    async with stage() as (driver, device, line, _):
        device.motor_on = False
        await driver.move_absolute("x", 1.0)
        assert b"1MO" in line.lines
        device.motor_on = False
        device.refuse[b"PA"] = b"103, 1, AXIS-1 FOLLOWING ERROR"
        with pytest.raises(RefusedError):
            await driver.move_absolute("x", 2.0)
        device.motor_on = False
        line.lines.clear()
        with pytest.raises(RefusedError):
            await driver.move_absolute("x", 2.0)
        assert b"1MO" not in line.lines
        assert await driver.set_enabled("x", True) is True


@virtual_time
async def test_an_axis_that_never_arrives_is_stopped() -> None:
    async with stage() as (driver, device, line, _):
        move = asyncio.ensure_future(driver.move_absolute("x", 2.0))
        await pause(0.5)
        device.stuck = True
        with pytest.raises(ReplyTimeoutError, match="still moves"):
            await move
        assert line.lines[-1] == b"1ST"


@virtual_time
async def test_a_stop_between_asking_and_sending_leaves_the_move_unsent() -> None:
    async with stage() as (driver, _, line, broker):
        async with broker.port("stage").lease("somebody"):
            move = asyncio.ensure_future(driver.move_absolute("x", 2.0))
            await pause(0.01)
            await driver.stop()
        with pytest.raises(StoppedError):
            await move
        assert not [sent for sent in line.lines if sent.startswith(b"1PA")]
        assert line.lines[0] == b"ST"


@virtual_time
async def test_an_axis_is_busy_with_one_motion_at_a_time() -> None:
    async with stage() as (driver, _, _, _):
        move = asyncio.ensure_future(driver.move_absolute("x", 2.0))
        await pause(0.5)
        with pytest.raises(LifecycleError, match="busy with a move"):
            await driver.home("x")
        await move


@virtual_time
async def test_a_move_behind_a_stop_waits_until_the_axis_stands() -> None:
    async with stage() as (driver, _, _, _):
        first = asyncio.ensure_future(driver.move_absolute("x", 5.0))
        await pause(0.5)
        await driver.stop("x")
        await driver.move_absolute("x", 0.2)
        with pytest.raises(StoppedError):
            await first
        assert await driver.read_position("x") == pytest.approx(0.2)


@virtual_time
async def test_a_move_that_waits_behind_a_stop_is_not_begun_when_another_stop_comes() -> None:
    async with stage() as (driver, _, line, _):
        first = asyncio.ensure_future(driver.move_absolute("x", 5.0))
        await pause(0.5)
        await driver.stop("x")
        second = asyncio.ensure_future(driver.move_absolute("x", 0.2))
        await pause(0)
        await driver.stop("x")
        for move in (first, second):
            with pytest.raises(StoppedError):
                await move
        assert b"1PA0.2" not in line.lines


@virtual_time
async def test_a_move_that_ends_short_was_stopped_by_somebody_else() -> None:
    async with stage() as (driver, device, _, _):
        move = asyncio.ensure_future(driver.move_absolute("x", 2.0))
        await pause(0.5)
        device.position, device.target, device.arrives_s = 0.5, 0.5, 0.0
        with pytest.raises(StoppedError, match=r"stands at 0\.5 mm"):
            await move


@virtual_time
async def test_a_stop_that_cuts_a_reading_of_the_motion_still_ends_it_as_stopped() -> None:
    async with stage() as (driver, device, line, _):
        answer = device.answer
        line.script = lambda sent: Answer(b"0\r\n", 0.2) if sent == b"1MD?" and device.moving else answer(sent)
        move = asyncio.ensure_future(driver.move_absolute("x", 5.0))
        await pause(1.1)
        assert line.lines[-1] == b"1MD?"
        await driver.stop()
        with pytest.raises(StoppedError, match="stands at"):
            await move
