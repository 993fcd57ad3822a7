"""The moves of a lab's instruments: shadows, cutovers, rollbacks, and what is known of each on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from duodaq.app._control import acting_client
from duodaq.app._migration_notes import STATE_FILE, MigrationNotes, now
from duodaq.app._migration_routes import Routes
from duodaq.clock import monotonic_s, pause
from duodaq.errors import ConfigError, CutoverError, DuodaqError, LifecycleError
from duodaq.model import Command, InstrumentDefinition, InstrumentState, PortDefinition
from duodaq.telemetry import get_logger, told

if TYPE_CHECKING:
    from duodaq.app._lab import Lab
    from duodaq.app._live_shadow import LiveShadow
    from duodaq.migration import Budget, Equivalents, Item, Limits

_log = get_logger("migration")
T = TypeVar("T")
_LOOK_S = 0.2
"""How often one that has moved is looked at: with the move back it is less than a second."""
_AGAIN_S, _AGAIN_MOST_S = 1.0, 30.0
"""How long after a way back that was refused the next one is tried, at first and at most."""
MOVES_END_S = 1.0
"""How long the end of a lab waits for moves under way."""


class Migration:
    """Moves the instruments of one lab. On the lab's loop.

    Attributes:
        routes: Definitions for labs that have no file, or where somebody knows better than the conversion.
        budget: When a moved instrument goes back by itself; None: what duodaq takes for sensible.
        goes_back: Whether it does so at all.
        least_shadow_s: For how long a shadow must have looked before a cutover is allowed.
    """

    def __init__(self, lab: Lab) -> None:
        self._routes = Routes(lab)
        self.routes = self._routes.given
        self.budget: Budget | None = None
        self.goes_back = True
        self.least_shadow_s = 60.0
        self._lab = lab
        self._manager = lab.manager
        self._shadows: dict[str, LiveShadow] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._moves: dict[asyncio.Task[Any], str] = {}
        self._closed = False
        file = None if lab.definition.file is None else lab.definition.directory / STATE_FILE
        self._notes = MigrationNotes(file)

    @property
    def on_the_way(self) -> set[str]:
        """The instruments that are being moved."""
        return {*filter(None, self._moves.values()), *self._manager.gates.closed}

    # --- what there is

    def status(self, instrument: str | None = None) -> list[dict[str, Any]]:
        """Where each instrument is, its list, its shadow and what was done, as plain values."""
        ids = [instrument] if instrument is not None else [d.id for d in self._lab.definition.instruments]
        return [self._status(id) for id in ids]

    def _status(self, id: str) -> dict[str, Any]:
        definition, live, noted = self._manager.definition(id), self._shadows.get(id), self._notes.of(id)
        log = noted.get("log", [])
        stage = "shadow" if live is not None else definition.runtime
        if stage == "v4" and any(entry["what"] == "moved" for entry in log) and self._routes.of(id).v2 is None:
            stage = "retired"  # its stanza has forgotten how it was in V2
        items = [] if definition.runtime == "v4" else [item._asdict() for item in self.checklist(id)]
        return {
            "id": id,
            "stage": stage,
            "runtime": definition.runtime,
            "epoch": definition.epoch,
            "driver": str(definition.driver),
            "checklist": items,
            "shadow": None if live is None else live.report().to_dict(),
            "last_shadow": noted.get("shadow"),
            "on_its_way": id in self.on_the_way,
            "log": log,
        }

    def checklist(self, id: str) -> list[Item]:
        """What must be so before it is moved."""
        from duodaq.migration import Facts, checklist

        route, port = self._routes.of(id), self._port(id, required=False)
        codec = None if port is None else self._manager.broker.port(port.name).codec
        live, noted = self._shadows.get(id), self._notes.of(id)
        report = noted.get("shadow") if live is None else live.report().to_dict()
        ticks = {name: tick["by"] for name, tick in noted.get("ticks", {}).items()}
        v2 = route.v2 or self._manager.definition(id)
        return checklist(Facts(v2, route.v4, codec, route.left, route.unsaid, report, ticks, self.least_shadow_s))

    def tick(self, id: str, name: str, by: str) -> None:
        """Answer for a line of the list, by name.

        Raises:
            ConfigError: There is no such line, or nobody can answer for it.
        """
        from duodaq.migration import TICKABLE

        if name not in TICKABLE:
            raise ConfigError(f"nobody can answer for {name!r}", remedy=f"Possible: {', '.join(sorted(TICKABLE))}")
        by = _who(by)
        self._notes.of(id).setdefault("ticks", {})[name] = {"by": by, "at": now()}
        self._notes.add(id, "ticked", by=by, item=name)

    # --- shadow

    async def start_shadow(self, id: str) -> None:
        """Have the V4 driver run beside V2's.

        Raises:
            LifecycleError: It has a shadow, is not in V2 or on its way, V4 has no driver for it, or it was ended before
                it had begun. Nothing of it is left.
            ConfigError: Its port has no codec.

        Cancellation: Nothing of it is left.
        """
        from duodaq.app._live_shadow import LiveShadow
        from duodaq.migration import Beside

        await self._routes.know(id)
        self._expect_free(id)
        route, port = self._routes.of(id), self._port(id)
        if id in self._shadows or self._manager.definition(id).runtime != "v2":
            raise LifecycleError("it has a shadow already, or is not in v2", instrument=id)
        if route.v4 is None or route.same is None or port is None:
            raise LifecycleError(route.left, instrument=id)
        live = LiveShadow(self._manager, Beside(self._manager.definition(id), route.v4, port, route.same))
        self._shadows[id] = live
        try:
            await live.start()
        except BaseException:
            if self._shadows.get(id) is live:
                del self._shadows[id]
            raise
        self._notes.add(id, "shadow began")
        await self._notes.flush()

    def shadow_report(self, id: str) -> dict[str, Any]:
        """What its shadow has found so far, as plain values, with the report for people under ``markdown``."""
        report = self._shadow(id).report()
        return {**report.to_dict(), "markdown": report.to_markdown()}

    def last_report(self, id: str) -> str:
        """What its shadow has found so far, or if it has none its last one found, for people.

        Raises:
            LifecycleError: It never had one.
        """
        from duodaq.migration import ShadowReport

        noted = self._notes.of(id).get("shadow")
        if id in self._shadows or noted is None:
            return self._shadow(id).report().to_markdown()
        return ShadowReport.of_dict(noted).to_markdown()

    async def end_shadow(self, id: str) -> dict[str, Any]:
        """End its shadow; what it has found. It ends, also if nobody waits for that."""
        live = self._shadow(id)
        del self._shadows[id]
        return await self._carry_out(self._end_shadow(id, live), f"end of the shadow of {id}")

    async def _end_shadow(self, id: str, live: LiveShadow) -> dict[str, Any]:
        report = await live.end()
        self._notes.of(id)["shadow"] = report.to_dict()
        self._notes.add(id, "shadow ended", found="no difference" if report.within else "differences")
        await self._notes.flush()
        return {**report.to_dict(), "markdown": report.to_markdown()}

    def _shadow(self, id: str) -> LiveShadow:
        if id not in self._shadows:
            raise LifecycleError("it has no shadow", instrument=id)
        return self._shadows[id]

    # --- cutover and rollback

    async def cutover(
        self, id: str, by: str, *, force: bool = False, limits: Limits | None = None, write: bool = False
    ) -> dict[str, Any]:
        """Move it to V4, once its list is met, or by the name of who forces it.

        Args:
            id: The instrument.
            by: Who moves it.
            force: Although its list is not met.
            limits: How long each step may take.
            write: Have the lab file say so.

        Returns:
            What was done; with `write` the ``diff`` of the lab file, too, or ``not_written`` and why; without it
            ``file_says``, the runtime in which it begins at the next start.

        Raises:
            CutoverError: The list is not met, or it was refused or undone: `owner` has it.
            LifecycleError: It is on its way, or a lab file is being applied. Nothing was done.

        Cancellation: What was begun goes on to its end, and is noted.
        """
        await self._routes.know(id)
        return await self._carry_out(self._cutover(id, _who(by), force, limits, write), f"cutover of {id}", id)

    async def _cutover(self, id: str, by: str, force: bool, limits: Limits | None, write: bool) -> dict[str, Any]:
        from duodaq.migration import Budget, unmet

        route = self._routes.of(id)
        if missing := unmet(self.checklist(id)):
            if not force:
                owner = self._manager.definition(id).runtime
                what = f"refused: its checklist is not met: {'; '.join(missing)}"
                raise CutoverError(what, owner=owner, step="checklist", instrument=id, left=f"{owner} has it")
            self._notes.add(id, "forced", by=by, unmet=missing)
        if route.v4 is None:
            raise CutoverError(route.left, owner="v2", step="driver", instrument=id, left="v2 has it")
        if id in self._shadows:
            await self._end_shadow(id, self._shadows.pop(id))
        before = self._units(id)
        done = await self._move(id, route.v4, by, limits)
        if self.goes_back and not self._closed:
            work = self._look_after(id, self.budget or Budget(), before)
            self._watches[id] = asyncio.create_task(work, name=f"budget of {id}")
        return await self._written(id, done, write=write)

    async def rollback(
        self, id: str, by: str, why: str = "", limits: Limits | None = None, *, write: bool = False
    ) -> dict[str, Any]:
        """Move it back to V2; see `cutover`.

        Raises:
            CutoverError: It was refused or undone: `owner` has it.
            LifecycleError: Nobody knows how it was in V2, it is on its way, or a lab file is being applied. Nothing
                was done.

        Cancellation: What was begun goes on to its end, and is noted.
        """
        await self._routes.know(id)
        return await self._carry_out(self._rollback(id, _who(by), why, limits, write), f"rollback of {id}", id)

    async def _rollback(self, id: str, by: str, why: str, limits: Limits | None, write: bool) -> dict[str, Any]:
        route = self._routes.of(id)
        if route.v2 is None:
            raise LifecycleError(route.left or "its stanza does not say how it was in V2", instrument=id)
        done = await self._move(id, route.v2, by, limits, why)
        self._end_watch(id)  # not before: until it is back somebody has to look after it
        return await self._written(id, done, write=write)

    async def _carry_out(self, work: Coroutine[Any, Any, T], name: str, moves: str = "") -> T:
        """Carry it out to its end, also if nobody waits for it any more."""
        try:
            if moves:
                self._expect_free(moves)
        except BaseException:
            work.close()
            raise
        task = asyncio.create_task(work, name=name)
        self._moves[task] = moves
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _expect_free(self, id: str) -> None:
        if self._closed:
            raise LifecycleError("the lab is ending", instrument=id)
        if id in self.on_the_way:
            raise LifecycleError("it is on its way already", instrument=id)
        if self._lab.changes.busy:
            raise LifecycleError("a lab file is being applied", instrument=id, left="it stays where it is")

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._moves.pop(task, None)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone; the log has it

    async def _move(
        self, id: str, target: InstrumentDefinition, by: str, limits: Limits | None, why: str = ""
    ) -> dict[str, Any]:
        from duodaq.migration import command_in_v4, handed_over

        manager, same = self._manager, self._routes.of(id).same
        old = manager.definition(id)
        if same is None:
            raise LifecycleError("V4 has no driver for it", instrument=id)
        try:
            new, passage = await manager.move(
                target, lambda values: handed_over(values, old, target, same), limits
            )  # fmt: skip
        except CutoverError as error:
            self._notes.add(id, "undone", by=by, to=target.runtime, error=str(error), owner=error.owner)
            await self._notes.flush()
            raise
        except asyncio.CancelledError:
            self._notes.add(id, "broken off", by=by, to=target.runtime, why="the lab ends")
            raise
        if new.runtime == "v4":
            manager.translations[id] = partial(_translated, same, command_in_v4)
        else:
            manager.translations.pop(id, None)
        facts = passage.to_dict()
        self._notes.add(id, "moved", by=by, to=new.runtime, epoch=new.epoch, gap_s=passage.gap_s, why=why)
        self._lab.note_in_runs("moved", {"instrument": id, "to": new.runtime, "by": by, "why": why, **facts})
        await self._notes.flush()
        return facts

    async def _look_after(self, id: str, budget: Budget, before: dict[str, str]) -> None:
        """Bring it back by itself if it spends its budget."""
        from duodaq.migration import Spending, counts, diverged, is_lost

        spending, manager = Spending(budget), self._manager

        def failed(instrument: str, command: Command, error: Exception) -> None:
            if instrument == id and counts(error):
                spending.note(monotonic_s(), str(error))

        manager.failed_commands.append(failed)
        ends_s, polls = monotonic_s() + budget.for_s, self._poll_failures(id)
        came, came_s, v2 = self._came(id), monotonic_s(), self._routes.of(id).v2
        period_s = 0.0 if v2 is None else min((poll.every_s for poll in v2.polls), default=0.0)
        why, again_s = "", _AGAIN_S
        try:
            while (why or monotonic_s() < ends_s) and manager.definition(id).runtime == "v4":
                now = self._poll_failures(id)
                if now > polls:
                    spending.note(monotonic_s(), "a reading failed", now - polls)
                    polls = now
                status = next((s for s in manager.instruments() if s.id == id), None)
                if (now := self._came(id)) != came or status is None or status.state is not InstrumentState.ACQUIRING:
                    came, came_s = now, monotonic_s()
                why = spending.spent(monotonic_s()) or ("" if status is None else is_lost(status))
                why = why or diverged(before, self._units(id), monotonic_s() - came_s, period_s)
                if why:
                    _log.error("budget spent: going back", instrument=id, why=why)
                    if await self._goes_back(id, why):
                        return
                    await pause(again_s)
                    again_s = min(2 * again_s, _AGAIN_MOST_S)
                await pause(_LOOK_S)
        except Exception as error:  # noqa: BLE001 - nobody waits for this: whatever it is, it has to be told
            _log.error("nobody looks after it any more", instrument=id, error=told(error))
        finally:
            manager.failed_commands.remove(failed)
            if self._watches.get(id) is asyncio.current_task():
                del self._watches[id]

    async def _goes_back(self, id: str, why: str) -> bool:
        try:
            await self.rollback(id, "the budget", why)
        except Exception as error:  # noqa: BLE001 - it is looked after all the same, and tried again
            what = str(error) if isinstance(error, DuodaqError) else told(error)
            _log.error("could not go back by itself", instrument=id, error=what)
            return self._manager.definition(id).runtime == "v2"
        return True

    def _units(self, id: str) -> dict[str, str]:
        """The unit of each of its channels, where it lives now."""
        return {c.channel: c.unit for c in self._manager.channels() if c.instrument == id and c.kind == "scalar"}

    def _came(self, id: str) -> int:
        """How much V4's side has ever got of its streams."""
        produced = self._manager.v4_data.ledger().produced.values()
        return sum(n for streams in produced for stream, n in streams.items() if stream.startswith(f"{id}."))

    def _poll_failures(self, id: str) -> int:
        for figures in self._manager.metrics()["v4"].values():
            found = figures.get("instruments", {}).get(id)
            if found is not None:
                return sum(found.get("poll_failures", {}).values())
        return 0

    def _end_watch(self, id: str) -> None:
        watch = self._watches.pop(id, None)
        if watch is not None and watch is not asyncio.current_task():
            watch.cancel()

    async def aclose(self) -> None:
        """Wait a second for moves under way, then end them, every shadow and every watch."""
        self._closed = True
        if self._moves:
            _, late = await asyncio.wait([*self._moves], timeout=MOVES_END_S)
            for move in late:
                move.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        watches = [*self._watches.values()]
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        while self._shadows:  # others may end them, too
            await self.end_shadow(next(iter(self._shadows)))
        await self._notes.flush()

    # --- for clients

    async def handle(self, params: dict[str, Any]) -> Any:
        """One request of a client: ``do`` says what, the rest is for it."""
        do, id, by = params["do"], params.get("instrument"), str(params.get("by") or "")
        write = bool(params.get("write"))
        if do in ("cutover", "rollback"):
            self._lab.control.check(params["instrument"], do)
        match do:
            case "status":
                for one in [id] if id is not None else [d.id for d in self._lab.definition.instruments]:
                    if self._manager.definition(one).runtime == "v2" or self._notes.of(one).get("log"):
                        await self._routes.know(one)  # of the others there is no list
                return self.status(id)
            case "tick":
                self.tick(params["instrument"], params["item"], by)
                return await self._notes.flush()
            case "shadow":
                return await self.start_shadow(params["instrument"])
            case "report":
                return self.shadow_report(params["instrument"])
            case "last_report":
                return self.last_report(params["instrument"])
            case "end_shadow":
                return await self.end_shadow(params["instrument"])
            case "cutover":
                done = await self.cutover(params["instrument"], by, force=bool(params.get("force")), write=write)
            case "rollback":
                done = await self.rollback(params["instrument"], by, params.get("why", ""), write=write)
            case _:
                raise LifecycleError(f"nothing of a migration is called {do!r}")
        return {"diff": "", **done}

    async def _written(self, id: str, done: dict[str, Any], *, write: bool) -> dict[str, Any]:
        """What was done, and the diff; if nothing was written, ``not_written`` and why: it has moved all the same.

        Where nothing is to be written, ``file_says`` is the runtime of the next start.
        """
        if not write:
            said = await self._routes.said_in_file(id)
            return {**done, "file_says": said} if said else done
        try:
            return {**done, "diff": await self.write_config(id)}
        except (DuodaqError, OSError) as error:
            _log.error("the lab file does not say where it lives now", instrument=id, error=str(error))
            return {**done, "diff": "", "not_written": str(error)}

    # --- within

    async def write_config(self, id: str) -> str:
        """Write where an instrument lives now into the lab file, so that it starts there next time; the diff.

        Raises:
            ConfigError: The file has become wrong meanwhile. It is unchanged.
            LifecycleError: There is no file, or its stanza cannot be turned. It is unchanged.
            StorageError: It cannot be written. It is unchanged.
        """
        runtime, diff = await self._routes.write(id)
        self._notes.add(id, "lab file written", to=runtime)
        await self._notes.flush()
        return diff

    async def forget(self, id: str) -> None:
        """An instrument has become another, or is gone: what was known of its ways is no longer so, its shadow ends."""
        if id in self._shadows:
            await self.end_shadow(id)
        self._routes.forget(id)
        if not self._manager.has(id) or self._manager.definition(id).runtime == "v2":
            self._manager.translations.pop(id, None)
            self._end_watch(id)

    def _port(self, id: str, *, required: bool = True) -> PortDefinition | None:
        name = self._manager.definition(id).port
        port = self._manager.broker.definitions().get(name or "")
        if port is None and required:
            raise LifecycleError("it has no port that both runtimes share", instrument=id)
        return port


def _who(by: str) -> str:
    """Who asks for it, as he calls himself, or as the lab knows him."""
    client = acting_client()
    return by or (client.called() if client is not None else "the program that has the lab")


def _translated(same: Equivalents, command_in_v4: Any, command: Command) -> Command:
    """A command of an old handle, as V4 calls it; one that V4 does not know by V2's name goes as it is."""
    return command_in_v4(command, same) or command
