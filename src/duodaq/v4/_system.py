"""Where actors live: spawning, names, dead letters, and the orderly end of all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from duodaq.errors import LifecycleError, StoppedError
from duodaq.model import ComponentReport, Outcome
from duodaq.telemetry import get_logger, named
from duodaq.v4._actor import Actor
from duodaq.v4._cell import Cell
from duodaq.v4._message import ActorState, DeadLetter, StopReason
from duodaq.v4._policy import RestartPolicy
from duodaq.v4._ref import ActorRef
from duodaq.v4._supervisor import Supervisor
from duodaq.v4._wheel import DeadlineWheel
from duodaq.v4._work import Work

_log = get_logger("v4.system")
T = TypeVar("T")

LINGER_S = 0.5
HURRY_SHARE, LATE_SHARE = 0.65, 0.05
DEAD_LETTERS = 1000


class Registry:
    """Actors by name, as long as they live."""

    def __init__(self) -> None:
        self._cells: dict[str, Cell] = {}

    def lookup(self, name: str) -> ActorRef:
        """The actor of that name.

        Raises:
            LifecycleError: There is none now.
        """
        if name not in self._cells:
            raise LifecycleError(f"no actor is called {name!r}", instrument=name)
        return self._cells[name].ref

    def get(self, name: str) -> ActorRef | None:
        """The actor of that name, or None."""
        cell = self._cells.get(name)
        return cell.ref if cell else None

    def __contains__(self, name: object) -> bool:
        return name in self._cells

    def __iter__(self) -> Iterator[ActorRef]:
        return iter([cell.ref for cell in self._cells.values()])

    def __len__(self) -> int:
        return len(self._cells)

    def claim(self, cell: Cell) -> None:
        """Enter a new actor (spawn does)."""
        if cell.name in self._cells:
            raise LifecycleError(f"an actor called {cell.name!r} is there already", instrument=cell.name)
        self._cells[cell.name] = cell

    def release(self, cell: Cell) -> None:
        """Strike out an actor that has ended (the kernel does)."""
        if self._cells.get(cell.name) is cell:
            del self._cells[cell.name]

    def cells(self) -> tuple[Cell, ...]:
        """All that live, in the order of their spawning."""
        return tuple(self._cells.values())


class DeadLetters:
    """The latest messages that nobody waits for, with their fates; `total` counts all there ever were."""

    def __init__(self, limit: int = DEAD_LETTERS) -> None:
        self._letters: deque[DeadLetter] = deque(maxlen=limit)
        self.total = 0

    def append(self, letter: DeadLetter) -> None:
        """Add one; beyond the limit the oldest is forgotten, but still counted."""
        self._letters.append(letter)
        self.total += 1
        if self.total <= 1 or self.total % DEAD_LETTERS == 0:
            _log.warning("dead letter", actor=letter.actor, fate=letter.fate.value, why=letter.why, total=self.total)

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(tuple(self._letters))

    def __len__(self) -> int:
        return len(self._letters)

    def __getitem__(self, index: int) -> DeadLetter:
        return self._letters[index]


class ActorSystem:
    """Actors on one event loop, the one that runs when it is made.

    Args:
        name: Stands before the actors' names in reports (``v4.stage``).
        mailbox: How many messages a mailbox holds, unless `spawn` says otherwise.
        ask_timeout_s: The deadline of an ask or tell that names none.
    """

    def __init__(self, name: str = "v4", *, mailbox: int = 64, ask_timeout_s: float = 5.0) -> None:
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.mailbox = mailbox
        self.ask_timeout_s = ask_timeout_s
        self.registry = Registry()
        self.dead_letters = DeadLetters()
        self.wheel = DeadlineWheel(self.loop)
        self.root = Supervisor()
        self._policy = RestartPolicy()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leaked: set[asyncio.Task[Any]] = set()
        self._busy: dict[Work, int] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing = False
        self._spawned = 0

    async def spawn(
        self,
        factory: Callable[..., Actor],
        *args: Any,
        name: str | None = None,
        mailbox: int | None = None,
        restart: RestartPolicy | None = None,
        supervisor: Supervisor | None = None,
        start_timeout_s: float = 10.0,
        stop_timeout_s: float = 5.0,
        links: Iterable[ActorRef] = (),
    ) -> ActorRef:
        """Make an actor and wait until its `on_start` is done.

        Args:
            factory: A class or function that makes one incarnation from `args`.
            name: Its name in the registry, unique among the living; by default the factory's, numbered.
            mailbox: How many messages its mailbox holds.
            restart: What to do when it fails; by default up to 3 restarts in 60 s.
            supervisor: Who decides with whom it is restarted; by default it alone.
            start_timeout_s: Limit of `on_start`.
            stop_timeout_s: Limit of `on_stop`.
            links: Actors to link it to before it starts.

        Raises:
            LifecycleError: The system stops, the name is taken, or `on_start` overran.
            Exception: What the factory or `on_start` raised. The actor has been ended, `on_stop` included.

        Cancellation: the actor is killed, and its end awaited, before this returns.
        """
        if self._closing:
            raise LifecycleError(f"the actor system {self.name!r} is stopping", instrument=name)
        cell = Cell(
            self,
            name or self._new_name(factory),
            mailbox or self.mailbox,
            (lambda: factory(*args)) if args else factory,
            restart or self._policy,
            supervisor or self.root,
            start_timeout_s,
            stop_timeout_s,
        )
        self.registry.claim(cell)
        cell.supervisor.adopt(cell)
        for ref in links:
            cell.ref.link(ref)
        try:
            error = await cell.resume()
        except asyncio.CancelledError:
            await asyncio.wait((cell.retire(StopReason.CANCELLED, 2 * stop_timeout_s),))
            raise
        if error is None and cell.doomed:
            error = StoppedError(f"it was {cell.dooming} while it started", instrument=cell.name)
        if error is not None:
            cell.announce(StopReason.START_FAILED, error, final=True)
            cell.bury(ActorState.FAILED, error)
            raise error
        return cell.ref

    async def stop(self, timeout_s: float = 10.0) -> tuple[ComponentReport, ...]:
        """Stop every actor, all at once, within `timeout_s`; idempotent, never raises for an actor that refuses.

        Returns:
            How each of them ended, in the order of their spawning.
        """
        self._closing = True
        until_s = self.now_s() + timeout_s
        ends = {cell: cell.retire(StopReason.STOPPED, timeout_s) for cell in self.registry.cells()}
        if ends:
            await self._await_ends(ends, until_s)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, until_s - self.now_s()))
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        return tuple(_report_of(cell, task) for cell, task in ends.items())

    async def _await_ends(self, ends: dict[Cell, asyncio.Task[ComponentReport]], until_s: float) -> None:
        """Wait for all; an end that had begun before, with more time than there is now, is hurried, then left."""
        whole_s = until_s - self.now_s()
        await asyncio.wait(ends.values(), timeout=HURRY_SHARE * whole_s)
        for cell, task in ends.items():
            if not task.done():
                cell.doom()
        await asyncio.wait(ends.values(), timeout=max(0.0, until_s - self.now_s()) + LATE_SHARE * whole_s)

    def now_s(self) -> float:
        """The time on the loop's clock, in seconds."""
        return self.loop.time()

    @property
    def leaked(self) -> tuple[str, ...]:
        """The names of the tasks that did not end when they were cancelled, and still run."""
        return tuple(task.get_name() for task in self._leaked if not task.done())

    def own(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run `work` as a task that `stop` awaits."""
        task = self.loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._disown)
        return task

    def keep_leaked(self, task: asyncio.Task[Any]) -> None:
        """Keep hold of a task that would not end, so that it is named and not lost."""
        self._leaked.add(task)
        task.add_done_callback(self._leaked.discard)

    def forget(self, cell: Cell) -> None:
        """An actor has ended for good (the kernel says so)."""
        self.registry.release(cell)
        self._busy.pop(cell, None)

    def note_busy(self, work: Work) -> None:
        """A worker has begun: look after it until it has been idle for a while."""
        self._busy[work] = -1
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(LINGER_S, self._sweep)

    def _sweep(self) -> None:
        for work, handled in list(self._busy.items()):
            waiter = work.waiter
            if work.worker is None:
                del self._busy[work]
            elif waiter is not None and handled == work.handled and not waiter.done():
                work.waiter = None
                waiter.set_result(True)
                del self._busy[work]
            else:
                self._busy[work] = work.handled
        self._sweeper = self.loop.call_later(LINGER_S, self._sweep) if self._busy else None

    def _disown(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task of the actor system failed", task=task.get_name(), error=named(error))

    def _new_name(self, factory: Callable[..., Actor]) -> str:
        self._spawned += 1
        return f"{getattr(factory, '__name__', 'actor').strip('<>').lower()}-{self._spawned}"


def _report_of(cell: Cell, task: asyncio.Task[ComponentReport]) -> ComponentReport:
    if task.done():
        return task.result()
    return ComponentReport(cell.component, Outcome.LEAKED, "its end had begun before, and still goes on")
