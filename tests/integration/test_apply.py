"""A lab file is applied to a running lab: what is named changes, all else goes on, and what fails is as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from duodaq.app import Client, Lab, LabService, acting
from duodaq.clock import Deadline, pause
from duodaq.errors import ConfigError, LifecycleError, NotInControlError, UnsafeStateError
from duodaq.model import Execute, InstrumentState, ReadChannel, Scalar, StartAcquisition
from duodaq.storage.reading import open_run
from duodaq.workers._starter import CAN_FORK

KINDS = ["inline", *(["process"] if CAN_FORK else [])]

DRIVERS = """\
import threading


class Dial:
    def __init__(self, serial):
        self.serial = serial
        self.asked()

    def asked(self):
        self.serial.write(b"A?\\n")
        return float(self.serial.readline())

    def close(self):
        self.serial.write(b"BYE?\\n")
        self.serial.readline()


class Ticker:
    def __init__(self, step=1.0):
        self.step = step
        self.thread = threading.get_ident()
        self.count = 0.0

    def tick(self):
        self.count += self.step
        return self.count

    def who(self):
        return id(self), self.thread


class Broken(Ticker):
    def __init__(self, step=1.0):
        raise OSError("nothing is plugged in")


class Sum:
    def __init__(self, of):
        self.of = of

    def total(self):
        return self.of.call("tick")
"""

LAB = """\
[lab]
name = "NAME"

[runtimes.v2]
worker = "KIND"

[ports.line]
tcp = "127.0.0.1:FIRST"
codec = "scpi"
timeout = "20 s"

[instruments.dial]
runtime = "v2"
driver = "./drivers.py:Dial"
port = "line"
deadline = "30 s"
poll.angle = { call = "asked", unit = "deg", every = "20 ms" }
passive = true

[instruments.ticker]
runtime = "v2"
driver = "./drivers.py:Ticker"
poll.ticks = { call = "tick", every = "10 ms" }
passive = true

[instruments.scpi]
runtime = "v4"
driver = "duodaq:ScpiActor"
port = "bus"

[ports.bus]
tcp = "127.0.0.1:SECOND"
codec = "scpi"
timeout = "20 s"

[flight_recorder]
keep = 0
"""


class Device:
    """Something at a TCP port of this machine that answers each question with a number, and remembers what it heard."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self.clients = 0
        self.number = 0

    async def open(self, stack: AsyncExitStack) -> Device:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.number = server.sockets[0].getsockname()[1]

        async def close() -> None:
            server.close()
            await server.wait_closed()

        stack.push_async_callback(close)
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients += 1
        try:
            while line := await reader.readline():
                self.heard.append(line.strip())
                if line.strip().endswith(b"?"):
                    reply = '+0,"No error"' if line.startswith(b"SYST") else self.answer
                    writer.write(reply.encode() + b"\n")
        finally:
            self.clients -= 1
            writer.close()


class Bench:
    """A running lab in a folder of its own, its file, and the devices at its ports."""

    def __init__(self, lab: Lab, file: Path, devices: list[Device]) -> None:
        self.lab = lab
        self.file = file
        self.first, self.second, self.spare = devices

    def rewrite(self, *changes: tuple[str, str], more: str = "") -> None:
        text = self.file.read_text()
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        self.file.write_text(text + more)

    def without(self, stanza: str) -> None:
        text = self.file.read_text()
        begin = text.index(f"[{stanza}]")
        end = text.find("\n[", begin)
        self.file.write_text(text[:begin] + (text[end + 1 :] if end >= 0 else ""))

    async def apply(self) -> dict[str, Any]:
        return (await self.lab.changes.apply(self.file)).to_dict()

    async def begin_to_apply(self) -> asyncio.Task[Any]:
        """Until it has begun, and not a step more."""
        asking = asyncio.create_task(self.apply())
        while not self.lab.changes.busy:
            assert not asking.done()
            await pause(0)
        return asking

    def state(self, instrument: str) -> Any:
        return next(one for one in self.lab.manager.instruments() if one.id == instrument)

    def there(self) -> set[str]:
        return {one.id for one in self.lab.manager.instruments()}

    async def read(self, instrument: str, channel: str) -> Scalar:
        return await self.lab.manager.command(instrument, ReadChannel(channel))


def poll_every_s(run: Any, instrument: str) -> float:
    """How often an instrument was polled, as the provenance of a run says."""
    known = {one["id"]: one for one in run.provenance["definition"]["instruments"]}
    return known[instrument]["polls"][0]["every_s"]


@pytest.fixture
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    kind = getattr(request, "param", "inline")
    async with AsyncExitStack() as stack:
        devices = [await Device(answer).open(stack) for answer in ("10", "20", "30")]
        (tmp_path / "drivers.py").write_text(DRIVERS)
        text = LAB.replace("NAME", "applied").replace("KIND", kind)
        text = text.replace("FIRST", str(devices[0].number)).replace("SECOND", str(devices[1].number))
        file = tmp_path / "lab.toml"
        file.write_text(text)
        lab = Lab.from_file(file)
        await lab.start()
        stack.push_async_callback(lab.shutdown)
        yield Bench(lab, file, devices)


async def until(condition: Callable[[], object], limit_s: float = 20.0) -> None:
    deadline = Deadline(limit_s)
    while not condition():
        assert not deadline.passed, "it did not come to that"
        await pause(0.005)


class Untouched:
    """What must not change of an instrument that nobody named: its object, thread and worker, and not one number."""

    def __init__(self, bench: Bench, hub: Any) -> None:
        self._bench = bench
        self._seen = hub.subscribe("untouched", capacity=100_000, accepts=lambda one: one.instrument == "ticker")
        self._before: Any = None

    async def note(self) -> None:
        self._before = await self._facts()

    async def _facts(self) -> Any:
        status = self._bench.state("ticker")
        who = await self._bench.lab.command("ticker", Execute("who"))
        return who, status.pid, status.since_ns, status.restarts, status.state

    async def check(self) -> None:
        """Also: each of its measurements came, in order, with the number behind that of the one before."""
        assert await self._facts() == self._before
        numbers: list[int] = []
        while len(numbers) < 5:
            numbers += [one.sequence for one in await self._seen.get_many(10_000)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        self._seen.close()


@pytest.mark.parametrize("bench", KINDS, indirect=True)
async def test_what_is_named_changes_and_the_others_notice_nothing(bench: Bench) -> None:
    others = Untouched(bench, bench.lab.manager.v2_data)
    await others.note()
    scpi, heard = bench.state("scpi"), len(bench.second.heard)
    last = (await bench.read("dial", "angle")).sequence
    bench.rewrite(
        ('call = "asked", unit = "deg", every = "20 ms"', 'call = "asked", unit = "deg", every = "40 ms"'),
        more=f'[ports.more]\ntcp = "127.0.0.1:{bench.spare.number}"\ncodec = "scpi"\ntimeout = "20 s"\n'
        '[instruments.third]\nruntime = "v2"\ndriver = "./drivers.py:Dial"\nport = "more"\npassive = true\n'
        'poll.angle = { call = "asked", unit = "deg", every = "20 ms" }\n',
    )
    report = await bench.apply()
    assert report["complete"], report
    assert [unit["subjects"] for unit in report["units"]] == [["port more"], ["instrument dial"], ["instrument third"]]
    assert bench.first.heard.count(b"BYE?") == 1
    third = await bench.read("third", "angle")
    assert (third.value, third.unit) == (30.0, "deg")
    assert (await bench.read("dial", "angle")).sequence > last
    assert bench.state("scpi") == scpi
    assert {*bench.second.heard[heard:]} <= {b"*IDN?"}  # whoever asks, it is not for this change
    await others.check()
    known = {one.id: one for one in bench.lab.definition.instruments}
    assert known["dial"].polls[0].every_s == 0.04
    assert "third" in known
    assert [one.name for one in bench.lab.manager.lab.ports] == ["line", "bus", "more"]
    assert (await bench.apply())["plan"]["empty"]


@pytest.mark.parametrize("bench", KINDS, indirect=True)
async def test_who_goes_is_gone_with_its_port_and_its_entries_are_stale(bench: Bench) -> None:
    others = Untouched(bench, bench.lab.manager.v2_data)
    await others.note()
    states = bench.lab.manager.subscribe_state("test")
    bench.without("instruments.dial")
    bench.without("ports.line")
    report = await bench.apply()
    assert report["complete"], report
    assert bench.there() == {"ticker", "scpi"}
    assert b"BYE?" in bench.first.heard
    await until(lambda: not bench.first.clients)
    assert [port.name for port in bench.lab.health().ports] == ["bus"]
    with pytest.raises(LifecycleError, match="no instrument 'dial'"):
        await bench.read("dial", "angle")
    said: list[tuple[str, str]] = []
    while ("v2.dial", "removed") not in said:
        change = await states.get()
        said.append((change.subject, change.new))
    states.close()
    await others.check()


@pytest.mark.parametrize("bench", KINDS, indirect=True)
async def test_a_port_that_cannot_be_opened_leaves_the_lab_as_it_was(bench: Bench) -> None:
    others = Untouched(bench, bench.lab.manager.v2_data)
    await others.note()
    before = bench.lab.definition
    bench.rewrite((f"127.0.0.1:{bench.first.number}", "127.0.0.1:1"))
    report = await bench.apply()
    (unit,) = report["units"]
    assert not report["complete"]
    assert not unit["done"]
    assert sorted(unit["subjects"]) == ["instrument dial", "port line"]
    assert "127.0.0.1:1" in unit["why"]
    assert unit["stands"] == {}
    assert (await bench.read("dial", "angle")).value == 10.0
    assert bench.lab.definition.ports == before.ports
    assert bench.lab.definition.instruments == before.instruments
    await others.check()


@pytest.mark.parametrize("bench", KINDS, indirect=True)
async def test_an_instrument_that_does_not_start_is_what_it_was_before_and_the_rest_is_done(bench: Bench) -> None:
    bench.rewrite(
        ("./drivers.py:Ticker", "./drivers.py:Broken"),
        ('every = "20 ms"', 'every = "50 ms"'),
        more='[instruments.new]\nruntime = "v2"\ndriver = "./drivers.py:Broken"\n',
    )
    count = (await bench.read("ticker", "ticks")).sequence
    report = await bench.apply()
    assert [(unit["subjects"], unit["done"]) for unit in report["units"]] == [
        (["instrument dial"], True),
        (["instrument ticker"], False),
        (["instrument new"], False),
    ]
    assert "nothing is plugged in" in report["units"][1]["why"]
    assert report["units"][1]["stands"] == {}
    assert bench.there() == {"dial", "ticker", "scpi"}
    assert (await bench.read("ticker", "ticks")).sequence > count
    known = {one.id: one for one in bench.lab.definition.instruments}
    assert known["ticker"].driver == "./drivers.py:Ticker"
    assert known["dial"].polls[0].every_s == 0.05
    assert "new" not in known


async def test_who_cannot_be_brought_back_is_there_in_error_and_said_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = bench.lab.manager
    add, kept = manager.add, []

    async def add_without_luck(instrument: Any, *, keep: bool = False) -> None:
        kept.append(keep)
        await add(replace(instrument, driver="./drivers.py:Broken"), keep=keep)

    monkeypatch.setattr(manager, "add", add_without_luck)
    bench.rewrite(('every = "10 ms"', 'every = "15 ms"'))
    (unit,) = (await bench.apply())["units"]
    assert kept == [False, True]
    assert not unit["done"]
    assert "nothing is plugged in" in unit["stands"]["ticker"]
    assert bench.state("ticker").state is InstrumentState.ERROR


async def test_a_wrong_file_a_latched_stop_and_a_second_plan_change_nothing(bench: Bench) -> None:
    before, status = bench.lab.definition, bench.lab.manager.instruments()
    good = bench.file.read_text()
    digest = (await bench.lab.changes.plan(bench.file)).digest
    bench.rewrite(('every = "20 ms"', 'every = "25 ms"'))
    with pytest.raises(LifecycleError, match="not what it was when the plan was made"):
        await bench.lab.changes.apply(bench.file, digest)
    bench.file.write_text(good.replace("[instruments.dial]", "[instruments.dial]\ncolour = 3"))
    with pytest.raises(ConfigError, match="colour"):
        await bench.apply()
    bench.file.write_text(good.replace('every = "20 ms"', 'every = "25 ms"'))
    await bench.lab.stop_all()
    with pytest.raises(UnsafeStateError, match="a stop is latched"):
        await bench.apply()
    bench.lab.reset_stop("test")
    assert bench.lab.definition is before
    assert {(one.id, one.since_ns) for one in bench.lab.manager.instruments()} == {
        (one.id, one.since_ns) for one in status
    }


async def test_who_asked_may_leave_and_the_change_is_carried_out(bench: Bench) -> None:
    bench.rewrite(('every = "20 ms"', 'every = "30 ms"'))
    asking = await bench.begin_to_apply()
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()
    await until(lambda: {one.id: one for one in bench.lab.definition.instruments}["dial"].polls[0].every_s == 0.03)
    assert (await bench.read("dial", "angle")).value == 10.0


async def test_what_a_scan_reads_is_left_to_it_until_it_has_ended(bench: Bench) -> None:
    asker, scanner = Client("asker"), Client("anna", "notebook")
    with acting(scanner):
        scan = bench.lab.scans.begin([], ["ticker"], 2)
    bench.rewrite(('every = "10 ms"', 'every = "15 ms"'))
    for client in (asker, scanner):
        with acting(client), pytest.raises(NotInControlError, match=r"scan 1 of anna \(notebook\)") as refused:
            await bench.apply()
        assert "duodaq scans abort 1" in str(refused.value)
    held = bench.lab.changes.held(await bench.lab.changes.plan(bench.file))
    assert held == {"ticker": "scan 1 of anna (notebook) reads or moves it; nothing has changed"}
    bench.rewrite(('every = "15 ms"', 'every = "10 ms"'), ('every = "20 ms"', 'every = "30 ms"'))
    assert (await bench.apply())["complete"], "what it does not read is free"
    with acting(scanner):
        assert bench.lab.scans.point(scan.number, 1) == {"holds": [], "abort": None}
        bench.lab.scans.end(scan.number, 2, complete=True)
    bench.rewrite(('every = "10 ms"', 'every = "15 ms"'))
    assert (await bench.apply())["complete"]


async def test_no_scan_begins_with_what_is_being_changed(bench: Bench) -> None:
    bench.rewrite(('every = "10 ms"', 'every = "15 ms"'))
    asking = await bench.begin_to_apply()
    with pytest.raises(LifecycleError, match="ticker: a lab file that changes it is being applied"):
        bench.lab.scans.begin([], ["dial", "ticker"], 2)
    assert bench.lab.scans.begin([], ["dial"], 2).number == 1
    assert (await asking)["complete"]
    assert bench.lab.scans.begin([], ["ticker"], 2).number == 2


async def test_what_somebody_else_has_in_hand_is_left_to_him(bench: Bench) -> None:
    asker, other = Client("asker"), Client("other", "notebook")
    bench.lab.control.take("dial", client=other)
    bench.rewrite(('every = "20 ms"', 'every = "30 ms"'))
    before = bench.lab.definition
    with acting(asker):
        plan = await bench.lab.changes.plan(bench.file)
        assert "other (notebook) holds control" in bench.lab.changes.held(plan)["dial"]
        with pytest.raises(NotInControlError, match="holds control"):
            await bench.apply()
    assert bench.lab.definition is before
    with acting(other):
        assert (await bench.apply())["complete"]
        bench.without("instruments.dial")
        assert (await bench.apply())["complete"]
    assert bench.lab.control.holders() == {}


async def test_a_later_run_is_described_as_the_lab_is_then_and_a_run_under_way_says_what_changed(bench: Bench) -> None:
    before = await bench.lab.start_recording()
    await until(lambda: bench.lab.recorder is not None)
    bench.rewrite(('every = "20 ms"', 'every = "30 ms"'))
    assert (await bench.apply())["complete"]
    await bench.read("dial", "angle")
    await bench.lab.stop_recording()
    after = await bench.lab.start_recording()
    await bench.lab.stop_recording()

    assert [poll_every_s(open_run(run), "dial") for run in (before, after)] == [0.02, 0.03]
    angles = open_run(before)["dial.angle"].to_arrow()["sequence"].to_pylist()
    assert angles == list(range(angles[0], angles[0] + len(angles)))


async def test_a_run_under_way_takes_a_channel_whose_unit_changes(bench: Bench) -> None:
    run = await bench.lab.start_recording()
    await bench.read("dial", "angle")
    bench.rewrite(
        ('unit = "deg"', 'unit = "rad"'),
        more=f'[ports.more]\ntcp = "127.0.0.1:{bench.spare.number}"\nidle_ms = 5\n',
    )
    assert (await bench.apply())["complete"]
    last = await bench.read("dial", "angle")
    summary = await bench.lab.stop_recording()
    assert summary.complete, summary
    rows = open_run(run)["dial.angle"].to_arrow().to_pylist()
    units = {row["sequence"]: row["unit"] for row in rows}
    assert (min(units.items())[1], units[last.sequence]) == ("deg", "rad")
    assert [*units] == list(range(min(units), max(units) + 1))
    said = {event.name: event.doc for event in open_run(run).events if event.name in ("apply", "applied")}
    assert said["apply"]["plan"]["instrument dial"] == {"what": "change", "keys": ["poll.angle.unit"]}
    assert said["applied"]["failed"] == []


async def test_alarms_follow_and_those_that_are_as_they_were_stay_where_they_stand(bench: Bench) -> None:
    bench.rewrite(more='[alarms.turned]\nchannel = "dial.angle"\nhigh = 5.0\n')
    assert (await bench.apply())["alarms"] == ["turned"]
    await until(lambda: [str(one.state) for one in bench.lab.alarms.status()] == ["raised"])
    bench.lab.alarms.acknowledge("turned", "test")
    bench.rewrite(more='[alarms.quiet]\nchannel = "ticker.ticks"\nlow = -1.0\n')
    assert (await bench.apply())["complete"]
    assert {one.name: str(one.state) for one in bench.lab.alarms.status()} == {
        "turned": "acknowledged",
        "quiet": "normal",
    }
    bench.without("alarms.turned")
    assert (await bench.apply())["complete"]
    assert [one.name for one in bench.lab.alarms.status()] == ["quiet"]


async def test_a_stream_of_a_changed_actor_goes_on(bench: Bench) -> None:
    bench.rewrite(
        ('port = "bus"', 'port = "bus"\npoll.level = { read = "LEV?", unit = "V", every = "20 ms" }'),
    )
    assert (await bench.apply())["complete"]
    await bench.lab.command("scpi", StartAcquisition())
    await until(lambda: b"LEV?" in bench.second.heard)
    bench.rewrite(('unit = "V", every = "20 ms"', 'unit = "V", every = "10 ms"'))
    assert (await bench.apply())["complete"]
    assert bench.state("scpi").state is InstrumentState.ACQUIRING
    heard = len(bench.second.heard)
    await until(lambda: len(bench.second.heard) > heard + 2)


async def test_the_watchdog_writes_the_crash_bytes_that_hold_now(bench: Bench) -> None:
    guard = bench.lab.manager.guard
    bench.rewrite(('port = "line"', 'port = "line"\nstop = "OFF\\n"\nsafe = { crash = "stop" }'))
    assert guard.pid is None
    assert (await bench.apply())["complete"]
    assert guard.pid is not None
    watchdog: Any = guard._watchdog
    told = {name: plan for name, (plan, _) in watchdog._ports.items()}
    assert told["line"].crash == (b"OFF\n",)
    bench.rewrite(('stop = "OFF\\n"', 'stop = "HALT\\n"'))
    assert (await bench.apply())["complete"]
    told = {name: plan for name, (plan, _) in watchdog._ports.items()}
    assert told["line"].crash == (b"HALT\n",)
    report = await bench.lab.stop_all()
    assert list(report.on_wire_ns) == ["line"]
    await until(lambda: bench.first.heard.count(b"HALT") == 1)


async def test_who_goes_takes_the_safe_state_of_a_shutdown_first_and_who_changes_does_not(bench: Bench) -> None:
    bench.rewrite(('port = "line"', 'port = "line"\nstop = "OFF\\n"\nsafe = { shutdown = "stop" }'))
    assert (await bench.apply())["complete"]
    bench.rewrite(('every = "20 ms"', 'every = "30 ms"'))
    assert (await bench.apply())["complete"]
    assert b"OFF" not in bench.first.heard
    bench.without("instruments.dial")
    assert (await bench.apply())["complete"]
    heard = [one for one in bench.first.heard if one in (b"OFF", b"BYE?")]
    assert heard == [b"BYE?", b"BYE?", b"OFF", b"BYE?"]


@pytest.mark.skipif(not CAN_FORK, reason="there are no worker processes here")
async def test_a_process_that_one_had_for_itself_comes_and_goes_with_it(bench: Bench) -> None:
    more = '[instruments.alone]\nruntime = "v2"\ndriver = "./drivers.py:Ticker"\nworker = "own"\npassive = true\n'
    good = bench.file.read_text()
    bench.rewrite(more=more)
    assert (await bench.apply())["complete"]
    workers = {one.name: one.pid for one in bench.lab.health().workers}
    assert bench.state("alone").pid == workers["v2.alone"] != bench.state("ticker").pid
    bench.file.write_text(good)
    assert (await bench.apply())["complete"]
    assert "v2.alone" not in [one.name for one in bench.lab.health().workers]


@pytest.mark.parametrize("bench", KINDS, indirect=True)
async def test_a_handle_of_one_that_is_new_is_given_to_whoever_asks_it(bench: Bench) -> None:
    bench.rewrite(
        more='[instruments.sum]\nruntime = "v2"\ndriver = "./drivers.py:Sum"\nargs = { of = "@other" }\n'
        'passive = true\npoll.total = { call = "total", every = "10 s" }\n'
        '[instruments.other]\nruntime = "v2"\ndriver = "./drivers.py:Ticker"\nargs = { step = 2.0 }\npassive = true\n'
    )
    assert (await bench.apply())["complete"]
    first = (await bench.read("sum", "total")).value
    assert (await bench.read("sum", "total")).value == first + 2.0


async def test_a_lab_that_ends_in_the_middle_of_a_change_ends_in_order(bench: Bench) -> None:
    bench.rewrite((f"127.0.0.1:{bench.first.number}", f"127.0.0.1:{bench.spare.number}"))
    asking = await bench.begin_to_apply()
    report = await bench.lab.shutdown()
    await asyncio.wait({asking})
    assert report.clean, report


async def test_who_attaches_while_an_instrument_changes_is_told_of_it_as_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, seen = bench.lab.manager, []
    add = manager.add

    async def add_and_look(instrument: Any, *, keep: bool = False) -> None:
        seen.append(await LabService(bench.lab).handle("describe", {}))
        await add(instrument, keep=keep)

    monkeypatch.setattr(manager, "add", add_and_look)
    before = await LabService(bench.lab).handle("describe", {})
    bench.rewrite(('every = "10 ms"', 'every = "15 ms"'))
    assert (await bench.apply())["complete"]
    assert seen == [before]


async def test_a_port_that_cannot_be_closed_again_is_told_with_all_that_was_done(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cannot(name: str) -> None:
        raise OSError(f"{name} is stuck")

    monkeypatch.setattr(bench.lab.manager, "remove_port", cannot)
    bench.rewrite(
        ('every = "10 ms"', 'every = "15 ms"'),
        ('name = "applied"', 'name = "applied"\nshutdown = "9 s"'),
        more=f'[ports.more]\ntcp = "127.0.0.1:{bench.spare.number}"\ncodec = "scpi"\n'
        '[instruments.third]\nruntime = "v2"\ndriver = "./drivers.py:Broken"\nport = "more"\n',
    )
    report = await bench.apply()
    port, ticker, third = sorted(
        report["units"], key=lambda unit: ("more", "ticker", "third").index(unit["subjects"][0].split()[1])
    )
    assert (port["done"], ticker["done"], third["done"]) == (True, True, False)
    assert "more is stuck" in port["stands"]["more"]
    assert not report["complete"]
    assert bench.lab.definition.shutdown_s == 9.0
    assert "more" in [one.name for one in bench.lab.definition.ports]
