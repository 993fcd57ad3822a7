"""What goes wrong is a line that names it and a figure at /metrics in both runtimes and in every kind of worker."""

from __future__ import annotations

import ast
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.faults.fault_table import ITSELF, PEACE
from tests.faults.meter_line import MeterLine

from duodaq.app import Lab, exposition
from duodaq.clock import Deadline, pause
from duodaq.model import (
    Command,
    Execute,
    InstrumentDefinition,
    LabDefinition,
    PollDefinition,
    PortDefinition,
    ReadChannel,
    Recover,
    RuntimeDefinition,
    RuntimeName,
)
from duodaq.telemetry import listen_to_log

PATIENTS = Path(__file__).with_name("patients.py")
WITHIN_S = 15.0
PLACES = [(runtime, mode) for runtime in ("v2", "v4") for mode in ("inline", "thread", "process")]
GOOD = {b"D?\n": b"+1.0E-03\n", b"W?\n": b"632\n"}


def well(question: bytes) -> bytes:
    return GOOD.get(question, b"1\n")


class Place:
    """One patient, ``ill``, on a port of that name, and a driver that blocks, in one kind of worker."""

    def __init__(self, folder: Path, runtime: RuntimeName, mode: Literal["inline", "thread", "process"]) -> None:
        self.runtime, self.mode = runtime, mode
        self.line, self.orders = MeterLine(), folder / "orders"
        self.line.answer = well
        facts: dict[str, Any] = {"port": "ill", "deadline_s": 0.4, "kill_after_s": 0.4}
        args: dict[str, Any] = {"orders": str(self.orders)}
        if runtime == "v2":
            polls = (PollDefinition("power", 0.02, "W", call="power"),)
            ill = InstrumentDefinition(
                "ill", "v2", f"{PATIENTS}:Patient", args=args, polls=polls, passive=True, **facts
            )
        else:
            acquire, args = {"acquire": True}, {**args, "rate_hz": 50}
            ill = InstrumentDefinition("ill", "v4", f"{PATIENTS}:PatientActor", args=args, options=acquire, **facts)
        blocked = InstrumentDefinition(
            "blocked", "v2", f"{PATIENTS}:Blocker", worker="thread", deadline_s=0.2, kill_after_s=0.2
        )
        memory = 150 * 2**20 if mode == "process" else None
        self.lab = Lab(
            LabDefinition(
                "place",
                ports=(PortDefinition("ill", serial={"path": "ill"}, codec="newport1830c", timeout_s=0.2),),
                instruments=(ill, blocked),
                **{runtime: RuntimeDefinition(runtime, mode, memory)},
            ),
            transports={"ill": self.line},
        )
        self.said: list[Mapping[str, Any]] = []

    def figure(self, series: str) -> float:
        """What /metrics says of one series, as Prometheus reads it; 0 if it is not there."""
        for line in exposition(self.lab).decode().splitlines():
            if line.startswith(f"{series} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    async def ask(self, command: Command, instrument: str = "ill", deadline_s: float = 1.0) -> Exception | None:
        try:
            await self.lab.command(instrument, command, deadline_s)
        except Exception as error:  # noqa: BLE001  whatever an actor's handler raised is its asker's
            return error
        return None

    async def recovers(self) -> None:
        async def is_well() -> bool:
            wells = [await self.ask(ReadChannel("power")), await self.ask(Execute("who"), "blocked")]
            return wells == [None, None]

        ends = Deadline(WITHIN_S)
        while not await is_well():
            assert not ends.passed, self.lab.manager.instruments()
            await pause(0.01)
        seen = self.lab.manager._watch._seen  # by a look of its own: an error that follows is one that came since
        await until(lambda: seen.get(f"{self.runtime}.ill") == "acquiring", self)

    def heard(self, since: int, fault: Fault) -> bool:
        key, value = fault.names
        lines = [line for line in self.said[since:] if line.get("event") == fault.sentence]
        return any(line.get(key) == value for line in lines)


@dataclass(frozen=True)
class Fault:
    """How it is brought about; the sentence of its line, and what that names; the series that it moves, by runtime."""

    strike: Callable[[Place], Awaitable[Any]]
    sentence: str
    names: tuple[str, Any]
    figures: Mapping[str, str]

    def figure(self, place: Place) -> str:
        return self.figures.get(place.runtime, self.figures.get("", "")).replace("MODE", f"{place.runtime}-process")


async def fall_silent(place: Place) -> None:
    place.line.answer = lambda _: b""
    assert await place.ask(ReadChannel("power")) is not None
    place.line.answer = well


async def garble(place: Place) -> None:
    since = len(place.said)
    place.line.answer = lambda _: b"\xff?!\n"
    await until(lambda: place.heard(since, FAULTS["garbled"]), place)
    place.line.answer = well


async def unplug(place: Place) -> None:
    place.line.unplug()
    assert await place.ask(ReadChannel("power")) is not None
    place.line.replug()


async def not_start(place: Place) -> None:
    since = len(place.said)
    place.orders.touch()
    with pytest.raises(Exception, match="the device does not answer"):
        await place.lab.manager.restart_instrument("ill")
    await until(lambda: place.heard(since, FAULTS["does not start"]), place)
    place.orders.unlink()
    await place.ask(Recover(), deadline_s=2.0)


async def hang(place: Place) -> None:
    assert await place.ask(Execute("block", (0.8,)), "blocked", 0.2) is not None


def suffering(kind: str, sentence: str = "worker died") -> Fault:
    async def strike(place: Place) -> None:
        assert await place.ask(Execute("suffer", (kind,)), deadline_s=0.4) is not None

    return Fault(strike, sentence, ("instruments", ["ill"]), {"": 'duodaq_worker_restarts_total{worker="MODE"}'})


def failing(kind: str) -> Fault:
    async def strike(place: Place) -> None:
        assert await place.ask(Execute("suffer", (kind,))) is not None

    return Fault(strike, "command failed", ("instrument", "ill"), FAILED)


FAILED = {
    "v2": 'duodaq_commands_total{fate="failed",instrument="ill"}',
    "v4": 'duodaq_messages_total{instrument="ill",outcome="failed"}',
}
POLLS = {
    "v2": 'duodaq_polls_total{channel="power",instrument="ill",outcome="failed"}',
    "v4": 'duodaq_polls_total{channel="power",instrument="ill",outcome="failed"}',
}
READING = {"v2": "reading failed", "v4": "polling failed"}
CHANGES = {"": 'duodaq_instrument_changes_total{instrument="ill",state="error"}'}
FAULTS: dict[str, Fault] = {
    "exception": failing("exception"),
    "exception without words": failing("exception without words"),
    "silent": Fault(fall_silent, "command failed", ("instrument", "ill"), {"": 'duodaq_port_errors_total{port="ill"}'}),
    "garbled": Fault(garble, "instrument is in error", ("instrument", "ill"), POLLS),
    "unplugged": Fault(unplug, "port lost", ("port", "ill"), {"": 'duodaq_port_reconnects_total{port="ill"}'}),
    "does not start": Fault(not_start, "instrument is in error", ("instrument", "ill"), CHANGES),
    "hangs": Fault(
        hang, "instrument hangs", ("instrument", "blocked"), {"": 'duodaq_hangs_total{instrument="blocked"}'}
    ),
}
DEATHS: dict[str, Fault] = {
    "os._exit": suffering("os._exit"),
    "SIGSEGV": suffering("SIGSEGV"),
    "SIGKILL": suffering("SIGKILL"),
    "forks and exits": suffering("forks and exits"),
    "C call": suffering("C call", "worker is ended"),
    "busy loop": suffering("busy loop", "worker is ended"),
    "lock-holding call": suffering("lock-holding call", "worker is ended"),
    "output flood": suffering("output flood", "worker is ended"),
    **{
        kind: suffering(kind)
        for kind in (
            "garbage", "wrong message", "message for the other side", "oversized message", "forged measurement",
            "forged place in the ring", "forged content in the ring",
        )
    },
}  # fmt: skip
QUICK = ("SIGKILL", "garbage", "C call")


async def until(condition: Callable[[], Any], place: Place) -> None:
    ends = Deadline(WITHIN_S)
    while not condition():
        assert not ends.passed, [line for line in place.said if line.get("event") != "instrument state"][-20:]
        await pause(0.01)


async def see(place: Place, name: str, fault: Fault) -> None:
    """Strike, and find both in the end."""
    figure = fault.figure(place)
    before, since = place.figure(figure), len(place.said)
    await fault.strike(place)
    await until(lambda: place.heard(since, fault), place)
    await place.recovers()
    await until(lambda: place.figure(figure) > before, place)
    if name == "garbled":
        reading = Fault(fault.strike, READING[place.runtime], fault.names, {})
        assert place.heard(since, reading), "each reading that failed is a line, too"
    odd = [line for line in place.said[since:] if "odd" in str(line.get("event"))]
    assert odd == [], "what happens to every lab is no oddity"


async def see_all(place: Place, faults: Mapping[str, Fault]) -> None:
    deaf = listen_to_log(lambda _, event: place.said.append(dict(event)))
    try:
        async with place.lab:
            await place.recovers()
            for name, fault in faults.items():
                await see(place, name, fault)
    finally:
        deaf()


@pytest.fixture(autouse=True)
def log_from_info_on() -> Iterator[None]:
    logger = logging.getLogger("duodaq")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


@pytest.mark.parametrize(("runtime", "mode"), PLACES)
@pytest.mark.fault(*FAULTS, by=ITSELF)
async def test_what_goes_wrong_is_a_line_and_a_figure_wherever_it_lives(
    tmp_path: Path, runtime: Any, mode: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    await see_all(Place(tmp_path, runtime, mode), FAULTS)
    assert capfd.readouterr().out == "", "nothing of ours lands on stdout"


@pytest.mark.parametrize("runtime", ["v2", "v4"])
@pytest.mark.fault(*QUICK, by=ITSELF)
async def test_so_is_the_death_of_a_worker_which_names_its_instruments(tmp_path: Path, runtime: Any) -> None:
    await see_all(Place(tmp_path, runtime, "process"), {name: DEATHS[name] for name in QUICK})


@pytest.mark.soak
@pytest.mark.parametrize("runtime", ["v2", "v4"])
@pytest.mark.parametrize("name", [name for name in DEATHS if name not in QUICK])
@pytest.mark.fault(*DEATHS, by=ITSELF)
async def test_so_are_all_other_deaths(tmp_path: Path, runtime: Any, name: str) -> None:
    await see_all(Place(tmp_path, runtime, "process"), {name: DEATHS[name]})


@pytest.mark.fault(by=PEACE)
def test_the_table_has_every_fault_that_a_patient_can_suffer() -> None:
    patients = ast.walk(ast.parse(PATIENTS.read_text(encoding="utf-8")))
    values = [case.pattern.value for case in patients if isinstance(case, ast.match_case)
              and isinstance(case.pattern, ast.MatchValue)]  # fmt: skip
    kinds = {value.value for value in values if isinstance(value, ast.Constant)}
    assert len(kinds) >= 15
    assert kinds - FAULTS.keys() - DEATHS.keys() == {"memory bomb"}
