"""The scans of a lab: those of its clients, which it only knows of, and its own, for which no program has to wait.

Rules for whoever edits this:

* A scan has control of what it moves for as long as it lasts, and gives it back. Whoever takes it over ends the scan.
* Every scan asks before each point (`point`): so it is held by alarms, paused and aborted, wherever it runs.
* A detached scan is a program of its own, a client like others: what it does wrong or how it dies is no matter of the
  lab's, and Bluesky is not in the lab's process. It ends with the lab.
* Aborting means: what it moves is stopped at once, and again until the scan has ended; its points are kept.
* A stop-all aborts every scan, whoever carried it out and whatever the scan waits for: lifting it lets none go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import subprocess
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from duodaq.app._control import Client, ControlTable, acting_client
from duodaq.app._scan_facts import ScanStatus, ScanWish
from duodaq.app._scan_programs import ScanPrograms
from duodaq.app._scan_recordings import RecordingLab, ScanRecordings
from duodaq.clock import Deadline, pause, utc_ns
from duodaq.errors import DuodaqError, LifecycleError, NotInControlError, OutOfRangeError
from duodaq.link import Session
from duodaq.model import ComponentReport, LabDefinition, Outcome
from duodaq.telemetry import get_logger

BEGIN_S = 60.0
"""How long a detached scan's program may take to load what it needs, and begin."""
_STOP_AGAIN_S = 0.3
_ASK_AGAIN_S = 3.0
_KILL_S = 10.0
_REMEMBERED = 50
MOST_DETACHED = 8
MOST_POINTS = 1_000_000
_log = get_logger("app.scans")


class ScanLab(RecordingLab, Protocol):
    """What scans need of a lab."""

    definition: LabDefinition
    control: ControlTable
    alarms: Any
    changes: Any

    @property
    def manager(self) -> Any: ...

    def note_in_recording(self, name: str, doc: Mapping[str, Any]) -> None: ...


class _Scan:
    def __init__(self, status: ScanStatus, client: Client) -> None:
        self.status = status
        self.client = client
        self.paused_by: str | None = None
        self.why_aborted: str | None = None
        """Why it has to end before its last point; None if it has not."""
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.given_up = asyncio.Event()
        self.ticket = ""
        self.program: subprocess.Popen[bytes] | None = None

    @property
    def what(self) -> str:
        return f"scan {self.status.number}"


class Scans:
    """The scans of one lab; a component as the manager closes it."""

    def __init__(self, lab: ScanLab, serve: Callable[[Client], Session]) -> None:
        self._lab = lab
        self.recordings = ScanRecordings(lab)
        self._programs = ScanPrograms(lab.definition.name, serve)
        self._scans: dict[int, _Scan] = {}
        self._count = 0
        self._ends: set[asyncio.Task[None]] = set()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsubscribe: Callable[[], None] = lab.manager.broker.subscribe_stops(self._stopped)

    @property
    def closing(self) -> bool:
        """Whether the lab ends, so that nothing may begin."""
        return self._closing

    # ---- what there is -------------------------------------------------------------------------------------------

    def all(self) -> list[ScanStatus]:
        """Every scan under way, and the last that ended; the oldest first."""
        return [one.status for one in self._scans.values()]

    def status(self, number: int) -> ScanStatus:
        """One scan.

        Raises:
            LifecycleError: There is none of this number.
        """
        return self._of(number).status

    def using(self, instrument: str) -> ScanStatus | None:
        """A scan under way that moves an instrument or reads it, if there is one."""
        for one in self._scans.values():
            names = (*one.status.axes, *one.status.read)
            if not one.ended.is_set() and instrument in (name.partition(".")[0] for name in names):
                return one.status
        return None

    # ---- of every scan: said by the program that scans -----------------------------------------------------------

    def begin(self, axes: Sequence[str], read: Sequence[str], planned: int, ticket: str | None = None) -> ScanStatus:
        """A scan of the acting client begins: it has control of what it moves from now on.

        Raises:
            NotInControlError: Somebody else has it. Nothing has begun.
            LifecycleError: A lab file that changes what it moves or reads is being applied. Nothing has begun.
        """
        client = self._lab.control.client()
        if ticket is not None:
            scan = next((one for one in self._scans.values() if one.ticket == ticket and not one.begun.is_set()), None)
            if scan is None or scan.ended.is_set():
                raise LifecycleError("this scan is not expected any more")
            if scan.why_aborted is not None:
                raise LifecycleError(scan.why_aborted)
            scan.client.introduce(scan.what, "scan", "")
        else:
            scan = self._new(axes, read, planned, client, client)
        scan.status.state = "running"
        scan.begun.set()
        _log.info("a scan began", scan=scan.status.number, axes=scan.status.axes, points=planned, who=scan.status.who)
        return scan.status

    def point(self, number: int, done: int) -> dict[str, Any]:
        """Before each point: `holds`, what the scan has to wait for, and `abort`, why it has to end.

        Raises:
            NotInControlError: Another client scans.
        """
        scan = self._own(number, "scan_point")
        if scan.ended.is_set():
            return {"holds": [], "abort": scan.why_aborted or f"ended: {scan.status.state}"}
        scan.status.done = done
        holds = [*self._lab.alarms.holds]
        if scan.paused_by is not None:
            holds.append(f"paused by {scan.paused_by}")
        scan.status.holds = holds
        if scan.status.state in ("running", "paused"):
            scan.status.state = "paused" if holds else "running"
        return {"holds": holds, "abort": scan.why_aborted}

    def end(self, number: int, done: int, *, complete: bool, why: str = "", by_hand: bool = False) -> ScanStatus:
        """A scan has ended: control goes back to whoever had it. `by_hand`: the person that scans has ended it.

        Raises:
            NotInControlError: Another client scans. Its scan goes on.
        """
        scan = self._own(number, "scan_end")
        if scan.ended.is_set():
            return scan.status
        scan.status.done = done
        aborted = scan.why_aborted
        self._end(scan, "complete" if complete else "aborted" if aborted or by_hand else "failed", aborted or why)
        return scan.status

    def kept(self, number: int | None, run: str, directory: Path) -> None:
        """The documents of a scan go into that recording."""
        scan = None if number is None else self._own(number, "scan_keep")
        if scan is not None:
            scan.status.run, scan.status.directory = run, str(directory)

    async def given_up(self, number: int | None) -> str:
        """Wait until a scan has ended and its program is not expected to say so any more; why it has ended."""
        scan = None if number is None else self._scans.get(number)
        if scan is None:
            await asyncio.Event().wait()
            raise AssertionError("nobody sets it")
        await scan.given_up.wait()
        return scan.status.why

    def leave(self, client: Client) -> None:
        """A program has gone: its scan has ended, if it had not."""
        for scan in list(self._scans.values()):
            if scan.client is client:
                self._end(scan, "aborted", scan.why_aborted or "the program that scanned has ended")

    # ---- of every scan: said by anybody --------------------------------------------------------------------------

    def pause(self, number: int) -> ScanStatus:
        """Have it wait before its next point, until `resume`.

        Raises:
            LifecycleError: There is no such scan, or it has ended.
        """
        scan = self._under_way(number)
        scan.paused_by = self._who()
        _log.warning("a scan was paused", scan=number, who=scan.paused_by)
        return scan.status

    def resume(self, number: int) -> ScanStatus:
        """Have it go on.

        Raises:
            LifecycleError: There is no such scan, or it has ended.
        """
        scan = self._under_way(number)
        scan.paused_by = None
        _log.info("a scan was resumed", scan=number, who=self._who())
        return scan.status

    async def abort(self, number: int) -> ScanStatus:
        """Stop what it moves, at once, and end it with the points it has.

        Raises:
            LifecycleError: There is no such scan, or it has ended.
        """
        scan = self._under_way(number)
        if scan.why_aborted is None:
            self._abort(scan, f"aborted by {self._who()}")
        await self._stop_axes(scan)
        return scan.status

    def taken_over(self, instrument: str, who: str) -> None:
        """Somebody has taken control of `instrument`: what moves it ends, also if control is given up again."""
        for scan in self._that_move(instrument):
            self._abort(scan, f"ended, since {who} has taken control over,")
            self._soon(self._stop_axes(scan), f"stop {scan.what}")

    async def way_given(self) -> None:
        """Wait until what was just taken over from scans has been stopped: what its new holder does is his."""
        stops = [task for task in self._ends if task.get_name().startswith("stop ")]
        if stops:
            await asyncio.wait(stops)

    def stopped_by_hand(self, instrument: str, axis: str | None) -> None:
        """Somebody stops one instrument: a scan that moves it ends; its own program's stop says nothing new."""
        client = self._lab.control.client()
        for scan in self._that_move(instrument, axis):
            if scan.client is not client:
                self._abort(scan, f"aborted by {client.called()}, who stopped {instrument},")

    async def ended(self, number: int, timeout_s: float) -> ScanStatus:
        """Wait for its end, for so long; how it stands then."""
        scan = self._of(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await scan.ended.wait()
        return scan.status

    # ---- detached scans ------------------------------------------------------------------------------------------

    async def start(self, wish: ScanWish) -> ScanStatus:
        """Begin a scan in a program of the lab's own; it goes on whatever becomes of whoever asked for it.

        Raises:
            OutOfRangeError: A position is beyond the limits, or there is nothing to move or to read. Nothing moved.
            LifecycleError: No such axis or instrument, or too many scans; or its program did not begin: says why.
            NotInControlError: Somebody else has control of what it moves. Nothing moved.
        """
        self._check(wish)
        if self._closing:
            raise LifecycleError("the lab is stopping")
        if sum(one.status.detached and not one.ended.is_set() for one in self._scans.values()) >= MOST_DETACHED:
            raise LifecycleError(f"{MOST_DETACHED} detached scans are under way; wait for one to end")
        owner = self._lab.control.client()
        client = Client("scan", "scan")
        scan = self._new([name for name, _ in wish.axes], wish.read, wish.planned, client, owner, detached=True)
        try:
            await self._launch(scan, wish)
            async with asyncio.timeout(BEGIN_S):
                await scan.begun.wait()
        except BaseException as error:
            why = "its program did not begin in time" if isinstance(error, TimeoutError) else str(error)
            _signal(scan, signal.SIGKILL)
            self._end(scan, "failed", why or "whoever asked for it is gone")
            if isinstance(error, TimeoutError):
                raise LifecycleError(f"{scan.what} did not begin within {BEGIN_S:g} s") from None
            raise
        if scan.status.state in ("failed", "aborted") and not scan.status.done:
            raise LifecycleError(f"{scan.what} did not begin: {scan.status.why}")
        return scan.status

    def rest(self) -> None:
        """The lab ends: every scan has its last point behind it, and none begins."""
        self._closing = True
        for scan in self._scans.values():
            if not scan.ended.is_set():
                scan.why_aborted = scan.why_aborted or "aborted by the end of the lab"

    async def close(self, timeout_s: float) -> ComponentReport:
        """End the detached scans, and forget their programs. May be called again."""
        self.rest()
        self._unsubscribe()
        deadline = Deadline(timeout_s * 0.5)
        own = [scan for scan in self._scans.values() if scan.program is not None]
        while any(not scan.ended.is_set() for scan in own) and not deadline.passed:
            await pause(0.01)
        late = sum(not scan.ended.is_set() for scan in own)
        await self._programs.close(timeout_s * 0.5)
        for task in tuple(self._ends):
            task.cancel()
        await asyncio.gather(*self._ends, return_exceptions=True)
        if late:
            return ComponentReport("scans", Outcome.FORCED, f"{late} did not end by themselves")
        return ComponentReport("scans", Outcome.CLEAN)

    def _check(self, wish: ScanWish) -> None:
        if not wish.axes or not all(positions for _, positions in wish.axes):
            raise OutOfRangeError("a scan needs an axis with at least one position", left="nothing moved")
        if wish.planned > MOST_POINTS:
            raise OutOfRangeError(f"{wish.planned} points are more than {MOST_POINTS}", left="nothing moved")
        if not 0 <= wish.settle_s <= 86400:
            raise OutOfRangeError(f"{wish.settle_s} s is no time to settle", left="nothing moved")
        if len({name for name, _ in wish.axes}) < len(wish.axes):
            raise OutOfRangeError("an axis occurs twice", left="nothing moved")
        for name in wish.read:
            self._lab.manager.definition(name)
        for name, positions in wish.axes:
            instrument, _, axis = name.partition(".")
            known = {one.name: one for one in self._lab.manager.definition(instrument).axes}
            if axis not in known:
                names = ", ".join(f"{instrument}.{one}" for one in known) or "none"
                raise LifecycleError(f"{name!r} is no axis; those of {instrument} are: {names}", left="nothing moved")
            low, high = known[axis].limits or (-float("inf"), float("inf"))
            beyond = [one for one in positions if not low <= one <= high or abs(one) == float("inf")]
            if beyond:
                what = f"{beyond[0]:g} {known[axis].unit} is outside the limits {low:g} … {high:g} {known[axis].unit}"
                raise OutOfRangeError(what, instrument=name, left="nothing moved")

    async def _launch(self, scan: _Scan, wish: ScanWish) -> None:
        scan.ticket = secrets.token_hex(16)
        told = {"ticket": scan.ticket, "wish": msgspec.to_builtins(wish)}
        scan.program = await self._programs.launch(scan.what, told, lambda said: self._gone(scan, said))

    def adopt(self, ticket: str) -> Client | None:
        """Whom the program with that ticket works for: its scan, which has control already."""
        return next((one.client for one in self._scans.values() if one.ticket and one.ticket == ticket), None)

    def _gone(self, scan: _Scan, said: bytes) -> None:
        """The program of a detached scan has ended."""
        code = 0 if scan.program is None else scan.program.returncode
        lines = said.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else f"its program ended with {code}"
        self._end(scan, "aborted" if scan.why_aborted else "failed", scan.why_aborted or why)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _new(
        self,
        axes: Sequence[str],
        read: Sequence[str],
        planned: int,
        client: Client,
        owner: Client,
        *,
        detached: bool = False,
    ) -> _Scan:
        for name in (*axes, *read):
            self._lab.changes.check(name.partition(".")[0])
        self._loop = asyncio.get_running_loop()
        number = self._count + 1
        status = ScanStatus(number, [*axes], [*read], planned, owner.called(), detached, utc_ns())
        scan = _Scan(status, client)
        lent: list[str] = []
        try:
            for instrument in dict.fromkeys(name.partition(".")[0] for name in axes):
                self._lab.control.lend(instrument, client, scan.what, client=owner)
                lent.append(instrument)
        except DuodaqError:
            if lent:
                self._lab.control.give_back(scan.what, "it did not begin")
            raise
        self._count = number
        self._scans[number] = scan
        over = [one for one, other in self._scans.items() if other.ended.is_set()]
        for one in over[: max(0, len(over) - _REMEMBERED)]:
            del self._scans[one]
        return scan

    def _end(self, scan: _Scan, state: str, why: str) -> None:
        if scan.ended.is_set():
            return
        scan.status.state, scan.status.why = state, why
        scan.status.ended_ns = utc_ns()
        scan.status.holds = []
        scan.ended.set()
        scan.begun.set()
        self._lab.control.give_back(scan.what, f"the scan is {state}")
        facts = {"scan": scan.status.number, "state": state, "points": scan.status.done, "planned": scan.status.planned}
        if state == "complete":
            _log.info("a scan has ended", **facts)
        else:
            _log.warning("a scan has ended before its last point", why=why, **facts)
        self._lab.note_in_recording("scan", msgspec.to_builtins(scan.status))

    def _stopped(self, port: str, epoch: int) -> None:
        """A stop-all has latched, if that is what it is: no scan takes another point. From any thread."""
        if port or not epoch or self._loop is None:
            return
        scans = tuple(self._scans.values())  # a copy, since the loop may begin one meanwhile
        stopped = [one for one in scans if not one.ended.is_set() and one.why_aborted is None]
        for scan in stopped:
            scan.why_aborted = "aborted by stop-all"  # at once, since who lifts it may be quick
        for scan in stopped:
            self._loop.call_soon_threadsafe(self._abort, scan, "aborted by stop-all")

    def _abort(self, scan: _Scan, why: str) -> None:
        scan.why_aborted = why
        if scan.ended.is_set():
            return
        scan.status.state = "ending"
        _log.warning("a scan is aborted", scan=scan.status.number, why=why)
        self._soon(self._see_it_end(scan), f"abort {scan.what}")

    def _soon(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    def _that_move(self, instrument: str, axis: str | None = None) -> list[_Scan]:
        """The scans under way that move an instrument, or an axis of it, and have not been ended yet."""
        return [
            scan
            for scan in self._scans.values()
            if not scan.ended.is_set() and scan.why_aborted is None
            for name in scan.status.axes
            if name.partition(".")[0] == instrument and axis in (None, name.partition(".")[2])
        ]

    async def _see_it_end(self, scan: _Scan) -> None:
        """Stop what it moves until it has ended; a program that does not end is told, and then killed.

        One that is not the lab's own, and is stopped or hangs, is not waited for any longer.
        """
        asked, kill = Deadline(_ASK_AGAIN_S), Deadline(_KILL_S)
        while not scan.ended.is_set() and not kill.passed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_AGAIN_S):
                    await scan.ended.wait()
            if not scan.ended.is_set():
                await self._stop_axes(scan, held=True)
                if asked.passed:
                    asked = Deadline(_KILL_S)
                    _signal(scan, signal.SIGINT)
        if scan.ended.is_set():
            return
        _signal(scan, signal.SIGKILL)
        if scan.program is None:
            self._end(scan, "aborted", f"{scan.why_aborted}; its program did not end within {_KILL_S:g} s")
            scan.given_up.set()

    async def _stop_axes(self, scan: _Scan, *, held: bool = False) -> None:
        """Stop what it moves; if `held`, only what nobody has taken over."""
        for name in scan.status.axes:
            instrument, _, axis = name.partition(".")
            if held and not self._lab.control.is_lent(instrument, scan.what):
                continue
            try:
                await self._lab.manager.stop(instrument, axis)
            except Exception as error:  # noqa: BLE001 - whatever a driver raises, the other axes are stopped
                _log.error("an axis of a scan could not be stopped", axis=name, error=str(error))

    def _own(self, number: int, wish: str) -> _Scan:
        """A scan, to the client that scans: others pause it and abort it, and nothing else."""
        scan, client = self._of(number), acting_client()
        if client is not None and client is not scan.client:
            holder = f"{scan.what} of {scan.status.who}"
            left = "pausing and aborting it is free"
            why = f"only the program that scans says that of {holder}; nothing has changed"
            raise NotInControlError(why, command=wish, holder=holder, left=left)
        return scan

    def _who(self) -> str:
        return self._lab.control.client().called()

    def _under_way(self, number: int) -> _Scan:
        scan = self._of(number)
        if scan.ended.is_set():
            raise LifecycleError(f"{scan.what} has ended: {scan.status.state}")
        return scan

    def _of(self, number: int) -> _Scan:
        scan = self._scans.get(number)
        if scan is None:
            known = ", ".join(map(str, self._scans)) or "none"
            raise LifecycleError(f"no scan {number}; there are: {known}")
        return scan


def _signal(scan: _Scan, number: signal.Signals) -> None:
    if scan.program is not None and scan.program.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            scan.program.send_signal(number)
