"""Whatever goes wrong is a line in the log and a figure among the metrics: a table of all faults, struck one by one."""

from __future__ import annotations

import errno
import inspect
import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.faults.fault_table import ITSELF, PEACE
from tests.faults.meter_line import MeterLine

from duodaq.app import Lab, _recording, samples_of
from duodaq.clock import Deadline, pause
from duodaq.errors import DuodaqError
from duodaq.model import (
    AlarmDefinition,
    Execute,
    InstrumentDefinition,
    LabDefinition,
    PollDefinition,
    PortDefinition,
    ReadChannel,
    Recover,
    RuntimeDefinition,
)
from duodaq.storage import Recorder
from duodaq.telemetry import listen_to_log
from duodaq.testing import RefusingDisk

PATIENTS = Path(__file__).with_name("patients.py")
WITHIN_S = 20.0


class Ward:
    """Two patients in worker processes of their own, since one worker is replaced five times a minute at most."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines = {name: MeterLine() for name in ("one", "two")}
        self.lab = Lab(
            LabDefinition(
                "ward",
                ports=tuple(
                    PortDefinition(name, serial={"path": name}, codec="newport1830c", timeout_s=0.2)
                    for name in self.lines
                ),
                instruments=tuple(self._patient(name) for name in self.lines),
                v2=RuntimeDefinition("v2", "process", memory_bytes=150 * 2**20),
                alarms=(AlarmDefinition("hot", "one", "power", high=1.0),),
            ),
            transports=self.lines,
        )
        self.said: list[tuple[str, Mapping[str, Any]]] = []

    def _patient(self, name: str) -> InstrumentDefinition:
        return InstrumentDefinition(
            name, "v2", f"{PATIENTS}:Patient", port=name, args={"orders": str(self.folder / name)}, worker="own",
            polls=(PollDefinition("power", 0.02, "W", call="power"),), deadline_s=0.4, kill_after_s=0.4, passive=True,
        )  # fmt: skip

    def figures(self) -> dict[tuple[str, ...], float]:
        """Every counter and gauge, by its name and labels."""
        return {(s.name, *s.labels): s.value for s in samples_of(self.lab) if isinstance(s.value, int | float)}

    async def suffer(self, name: str, kind: str) -> None:
        deadline_s = 5.0 if kind == "memory bomb" else 0.4
        await self.command(name, Execute("suffer", (kind,)), deadline_s)

    async def command(self, name: str, command: Any, deadline_s: float = 1.0) -> None:
        try:
            await self.lab.command(name, command, deadline_s)
        except DuodaqError:
            return

    async def recovers(self, name: str) -> None:
        ends = Deadline(WITHIN_S)
        while True:
            try:
                await self.lab.command(name, ReadChannel("power"), 1.0)
            except DuodaqError:
                assert not ends.passed, f"{name} did not recover"
                await pause(0.01)
            else:
                break
        seen = self.lab.manager._watch._seen  # by a look of its own: an error that follows is one that came since
        await until(lambda: seen.get(f"v2.{name}") == "acquiring")


@dataclass(frozen=True)
class Fault:
    """How it is brought about, with which patient, and what is to be seen of it: sentences, any of, and a figure."""

    strike: Callable[[Ward, str], Awaitable[None]]
    sentences: tuple[str, ...]
    figure: tuple[str, ...]


def suffering(kind: str, sentences: tuple[str, ...], *figure: str) -> Fault:
    return Fault(lambda ward, name: ward.suffer(name, kind), sentences, figure)


async def unplug(ward: Ward, name: str) -> None:
    ward.lines[name].unplug()
    await ward.command(name, ReadChannel("power"))
    ward.lines[name].replug()


async def fall_silent(ward: Ward, name: str) -> None:
    line = ward.lines[name]
    before, line.answer = line.answer, lambda _: b""
    await ward.command(name, ReadChannel("power"))
    line.answer = before


async def garble(ward: Ward, name: str) -> None:
    line = ward.lines[name]
    failed = ("duodaq_polls", name, "power", "failed")
    failed_before = ward.figures().get(failed, 0)
    before, line.answer = line.answer, lambda _: b"\xff?!\n"
    await ward.command(name, ReadChannel("power"))
    await until(lambda: ward.figures().get(failed, 0) > failed_before)  # a poll, too, has met it
    line.answer = before


async def not_start(ward: Ward, name: str) -> None:
    said_before = len(ward.said)
    (ward.folder / name).touch()
    with pytest.raises(DuodaqError, match="the device does not answer"):
        await ward.lab.manager.restart_instrument(name)
    await until(lambda: ward.figures().get(("duodaq_instrument_state", name, "v2", "error")))
    said = "instrument is in error"  # a watch says so, which looks twenty times a second
    await until(lambda: any(event.get("event") == said for _, event in ward.said[said_before:]))
    (ward.folder / name).unlink()
    await ward.command(name, Recover(), 2.0)


async def fill_the_disk(ward: Ward, name: str) -> None:
    full: list[bool] = []

    def recorder(*args: Any, **facts: Any) -> Recorder:
        disk = RefusingDisk(lambda op, _: errno.ENOSPC if full and op != "create" else None)
        return Recorder(*args, disk=disk, **facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_recording, "Recorder", recorder)
        await ward.lab.start_recording(ward.folder / "run")
    full.append(True)
    await until(lambda: ward.lab.recorder is not None and ward.lab.recorder.refusing)
    assert ward.figures()["duodaq_recording_refusing",] == 1
    full.clear()
    await ward.lab.stop_recording()


async def read_too_slowly(ward: Ward, name: str) -> None:
    its_own = f"{name}.power"
    subscription = ward.lab.manager.v2_data.subscribe(
        "sleeper", capacity=1, accepts=lambda m: f"{m.instrument}.{m.channel}" == its_own
    )
    await until(lambda: subscription.dropped > 3)
    subscription.close()


async def kill_the_watchdog(ward: Ward, name: str) -> None:
    pid = ward.lab.manager.guard.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: ward.lab.manager.guard.pid not in (pid, None))


async def get_hot(ward: Ward, name: str) -> None:
    line = ward.lines["one"]
    before, line.answer = line.answer, lambda _: b"+2.0E+00\n"
    await until(lambda: ward.lab.alarms.status()[0].state == "raised")
    line.answer = before
    await until(lambda: ward.lab.alarms.status()[0].state == "normal")


async def stop_all(ward: Ward, name: str) -> None:
    await ward.lab.stop_all()
    ward.lab.reset_stop("a test")


FAILED = ("command failed",)
DIED = ("worker died",)
RESTARTS = ("duodaq_worker_restarts", "v2.NAME")
NONSENSE = {
    kind: suffering(kind, DIED, *RESTARTS)
    for kind in (
        "garbage", "wrong message", "message for the other side", "oversized message", "forged measurement",
        "forged place in the ring", "forged content in the ring",
    )
}  # fmt: skip
FAULTS: dict[str, Fault] = {
    # what a driver does to its process
    "exception": suffering("exception", FAILED, "duodaq_commands", "NAME", "failed"),
    "exception without words": suffering("exception without words", FAILED, "duodaq_commands", "NAME", "failed"),
    "os._exit": suffering("os._exit", DIED, *RESTARTS),
    "SIGSEGV": suffering("SIGSEGV", DIED, *RESTARTS),
    "SIGKILL": suffering("SIGKILL", DIED, *RESTARTS),
    "forks and exits": suffering("forks and exits", DIED, *RESTARTS),
    "C call": suffering("C call", ("worker is ended",), *RESTARTS),
    "busy loop": suffering("busy loop", ("worker is ended",), *RESTARTS),
    "lock-holding call": suffering("lock-holding call", ("worker is ended",), *RESTARTS),
    "output flood": suffering("output flood", ("output left out", "worker is ended"), *RESTARTS),
    "memory bomb": suffering("memory bomb", (*FAILED, *DIED), "duodaq_commands", "NAME", "failed"),
    **NONSENSE,
    # what happens to its line, its start, its data
    "unplugged": Fault(unplug, ("port lost",), ("duodaq_port_reconnects", "NAME")),
    "silent": Fault(fall_silent, FAILED, ("duodaq_port_errors", "NAME")),
    "garbled": Fault(garble, FAILED, ("duodaq_polls", "NAME", "power", "failed")),
    "does not start": Fault(not_start, ("instrument is in error",), ("duodaq_instrument_changes", "NAME", "error")),
    "full disk": Fault(fill_the_disk, ("recording is interrupted",), ("duodaq_alarm_raised", "lab: recording")),
    "slow reader": Fault(
        read_too_slowly,
        ("slow reader is losing data",),
        ("duodaq_dropped", "v2", "NAME.power", "sleeper", "drop-oldest"),
    ),
    # what happens to the lab
    "watchdog": Fault(
        kill_the_watchdog,
        ("the watchdog died and is started again",),
        ("duodaq_watchdog_restarts",),
    ),
    "alarm": Fault(get_hot, ("alarm raised",), ("duodaq_alarm_raised", "hot")),
    "stop-all": Fault(stop_all, ("stop-all",), ("duodaq_stops_all",)),
}
STRUCK = {
    "one": ("exception", "SIGSEGV", "C call", "garbled", "full disk", "does not start", "alarm", "stop-all"),
    "two": ("exception without words", "SIGKILL", "garbage", "memory bomb", "unplugged", "silent", "slow reader"),
}
REST = [name for name in FAULTS if not any(name in struck for struck in STRUCK.values())]


async def until(condition: Callable[[], Any]) -> None:
    ends = Deadline(WITHIN_S)
    while not condition():
        assert not ends.passed, f"it did not come to that: {inspect.getsource(condition)}"
        await pause(0.01)


async def see(ward: Ward, name: str, kind: str) -> None:
    """Strike, and find both in the end."""
    fault = FAULTS[kind]
    figure = tuple(part.replace("NAME", name) for part in fault.figure)
    before, said_before = ward.figures().get(figure, 0), len(ward.said)
    await fault.strike(ward, name)
    await ward.recovers(name)

    def sentences() -> set[str]:
        return {str(event.get("event")) for _, event in ward.said[said_before:]}

    ends = Deadline(WITHIN_S)
    while not (sentences() & set(fault.sentences) and ward.figures().get(figure, 0) > before):
        if kind == "memory bomb" and sentences() & set(DIED) and ward.figures()["duodaq_worker_restarts", f"v2.{name}"]:
            return  # what its allocator said to the bomb was its end
        if ends.passed:
            similar = {key: value for key, value in ward.figures().items() if key[0] == figure[0]}
            pytest.fail(f"{kind}: said {sentences()}; {figure} was {before}, now: {similar}")
        await pause(0.01)


async def see_all(folder: Path, struck: Mapping[str, tuple[str, ...]]) -> None:
    ward = Ward(folder)
    deaf = listen_to_log(lambda level, event: ward.said.append((level, dict(event))))
    try:
        async with ward.lab:
            for name, kinds in struck.items():
                await ward.recovers(name)
                for kind in kinds:
                    await see(ward, name, kind)
    finally:
        deaf()


@pytest.fixture(autouse=True)
def log_from_info_on() -> Any:
    import logging

    logger = logging.getLogger("duodaq")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


@pytest.mark.parametrize("name", STRUCK)
@pytest.mark.fault(*(kind for kinds in STRUCK.values() for kind in kinds), by=ITSELF)
async def test_every_fault_is_a_line_in_the_log_and_a_figure(tmp_path: Path, name: str) -> None:
    await see_all(tmp_path, {name: STRUCK[name]})


@pytest.mark.soak
@pytest.mark.parametrize("kind", REST)
@pytest.mark.fault(*REST, by=ITSELF)
async def test_so_are_the_rest_of_them(tmp_path: Path, kind: str) -> None:
    await see_all(tmp_path, {"one": (kind,)})


@pytest.mark.fault(by=PEACE)
def test_the_table_has_every_fault_that_a_patient_can_suffer() -> None:
    kinds = set(re.findall(r'case "([^"]+)":', PATIENTS.read_text(encoding="utf-8")))
    assert kinds - set(FAULTS) == set()
    assert len(kinds) >= 15
