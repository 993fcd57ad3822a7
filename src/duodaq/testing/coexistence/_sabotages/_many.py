"""What may go wrong among many at once without anybody noticing by itself."""

# A sabotage reaches into the parts whose work it spoils, and stands in for methods whose types do not matter to it.
# pyright: reportPrivateUsage=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
from typing import Any

from duodaq.dataplane._slot import Slot
from duodaq.drivers.esp300 import Esp300Driver
from duodaq.dual import DualRuntimeManager
from duodaq.model import ManagerState
from duodaq.ports import Port, PortDesk
from duodaq.ports._desk import LeaseDesk
from duodaq.ports._mend import Mender
from duodaq.ports._owner import PortOwner
from duodaq.ports._queue import LeaseQueue
from duodaq.storage.journal import Journal
from duodaq.testing.coexistence._sabotage import APART, SHARED, sabotage
from duodaq.v2._host import DriverHost
from duodaq.v2._instrument import Instrument
from duodaq.v2._work import Work, WorkQueue
from duodaq.v4._resident import Resident
from duodaq.workers._process import ProcessWorker

_MANY = "test_concurrent_message_throughput"
_LINE = "test_resource_contention"
_END = "test_graceful_shutdown_with_active_ops"


class _Every:
    """True at every `count`-th call."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._calls = 0

    def __call__(self) -> bool:
        self._calls += 1
        return self._calls % self._count == 0


# ── throughput ──────────────────────────────────────────────────────────────────────────────────────────────────────


@sabotage(_MANY, "exact counts")
def v2_does_some_twice() -> None:
    """Every fiftieth command is carried out a second time."""
    host: Any = DriverHost
    original, again = host.perform, _Every(50)

    def perform(self: DriverHost, command: Any, guard: Any = None) -> Any:
        if again():
            original(self, command, guard)
        return original(self, command, guard)

    host.perform = perform


@sabotage(_MANY, "exact counts")
def v4_says_done_and_does_nothing() -> None:
    """Every fiftieth command is answered with what was asked for, and not delivered."""
    resident: Any = Resident
    original, skipped = resident.deliver, _Every(50)

    async def deliver(self: Resident, command: Any, deadline_s: float | None) -> Any:
        if hasattr(command, "value") and skipped():
            return command.value
        return await original(self, command, deadline_s)

    resident.deliver = deliver


@sabotage(_MANY, "order")
def v2_takes_the_newest_first() -> None:
    """The queue of an instrument is a stack."""
    queue: Any = WorkQueue
    original = queue.get

    async def get(self: Any, until_s: float | None = None) -> Any:
        self._items.reverse()
        return await original(self, until_s)

    queue.get = get


@sabotage(_MANY, "own replies")
def v2_answers_with_the_last_reply() -> None:
    """Every fiftieth caller gets the reply of the one before."""
    work: Any = Work
    original, wrong = work.succeed, _Every(50)
    last: list[Any] = [None]

    def succeed(self: Work, result: Any) -> bool:
        given, last[0] = (last[0] if wrong() else result), result
        return original(self, given)

    work.succeed = succeed


@sabotage(_MANY, "latency")
def v2_forgets_some_replies_for_a_while() -> None:
    """Every tenth reply is given a second and a half later."""
    work: Any = Work
    original, late = work.succeed, _Every(10)

    def succeed(self: Work, result: Any) -> bool:
        if late():
            asyncio.get_running_loop().call_later(1.5, original, self, result)
            return True
        return original(self, result)

    work.succeed = succeed


@sabotage(_MANY, "bounded memory")
def queues_have_no_end() -> None:
    """A full subscription takes one more."""
    slot: Any = Slot
    original = slot.offer

    def offer(self: Any, account: Any, item: Any, weight: int, size: int) -> bool:
        self.capacity = 1_000_000
        return original(self, account, item, weight, size)

    slot.offer = offer


# ── contention ──────────────────────────────────────────────────────────────────────────────────────────────────────


@sabotage(_LINE, "no interleaving")
def the_broker_asks_in_between() -> None:
    """Now and then it asks a question of its own while an answer is pending."""
    owner: Any = PortOwner
    original, now = owner._write_on, _Every(40)

    def write_on(self: PortOwner, exchange: Any) -> None:
        original(self, exchange)
        if now():
            self.transport.write_nowait(b"VE?\r")

    owner._write_on = write_on


@sabotage(_LINE, "own replies")
def replies_are_mixed_up() -> None:
    """Now and then somebody gets the reply that was read before his own."""
    owner: Any = PortOwner
    original, wrong = owner._finish, _Every(40)
    last = [b""]

    def finish(self: PortOwner, exchange: Any, reply: bytes = b"", error: Any = None, broken: bool = False) -> None:
        given = last[0] if reply and wrong() else reply
        last[0] = reply or last[0]
        original(self, exchange, given, error, broken)

    owner._finish = finish


@sabotage(_LINE, "exact counts")
def some_questions_are_answered_from_memory() -> None:
    """Every tenth question that was asked before is not asked again."""
    port: Any = Port
    original, lazy = port.exchange, _Every(10)
    known: dict[bytes, bytes] = {}

    async def exchange(self: Port, request: bytes, **options: Any) -> bytes:
        if request not in known or not lazy():
            known[request] = await original(self, request, **options)
        return known[request]

    port.exchange = exchange


@sabotage(_LINE, "fair waits", modes=SHARED)  # a process asks at the desk of its worker: see below
def v4_goes_first() -> None:
    """Whoever asks from V2 comes into the queue only after a while, and V4 at once."""
    queue: Any = LeaseQueue
    original = queue.ask

    def ask(self: Any, ticket: Any) -> None:
        if ticket.holder.startswith("v2."):
            asyncio.get_running_loop().call_later(0.04, original, self, ticket)
        else:
            original(self, ticket)

    queue.ask = ask


@sabotage(_LINE, "fair waits", modes=APART)
def the_desk_lets_v2_wait() -> None:
    """What V2 wants at a port lies on the desk of its worker for a while."""
    desk: Any = PortDesk
    original = desk._exchange

    def exchange(self: PortDesk, request: Any) -> None:
        if request.holder.startswith("v2."):
            asyncio.get_running_loop().call_later(0.04, original, self, request)
        else:
            original(self, request)

    desk._exchange = exchange


@sabotage(_LINE, "sleeping holder")
def nobody_holds_too_long() -> None:
    """A lease ends when its holder ends it."""
    desk: Any = LeaseDesk
    desk._overheld = lambda self, ticket: None


@sabotage(_LINE, "no late reply", modes=SHARED)
def a_broken_line_is_used_at_once() -> None:
    """After a cut exchange nothing is waited for."""
    _use_broken_lines_at_once()


@sabotage(_LINE, "no late reply", modes=APART)
def a_dead_process_leaves_a_line_that_is_used_at_once() -> None:
    """After an exchange that was cut by the death of a process nothing is waited for."""
    _use_broken_lines_at_once()


def _use_broken_lines_at_once() -> None:
    async def run(self: Mender, probing: bool = True) -> bool:
        return True

    mender: Any = Mender
    mender.run = run


@sabotage(_LINE, "killed holder")
def the_dead_keep_their_lease() -> None:
    """A holder that is gone with a question on the wire is not noticed."""
    owner: Any = PortOwner
    original = owner.end

    def end(self: PortOwner, ticket: Any) -> None:
        if self._hand is None or self._hand.ticket is not ticket:
            original(self, ticket)

    owner.end, owner.abandon = end, lambda self, exchange: None
    desk: Any = LeaseDesk
    desk._look_after_owners = lambda self: None


# ── shutdown ────────────────────────────────────────────────────────────────────────────────────────────────────────


@sabotage(_END, "one fate", modes=("inline", "process"))  # a thread that ends cancels whoever waits in it
def what_waits_is_forgotten() -> None:
    """Commands that wait at the end are dropped, and nobody tells those who asked."""
    queue: Any = WorkQueue
    queue.end = lambda self, error, moving_only=False: 0
    worker: Any = ProcessWorker
    original = worker._release

    async def release(self: ProcessWorker) -> None:
        self.pending.clear()
        await original(self)

    worker._release = release


@sabotage(_END, "short ones complete")
def nothing_is_waited_for() -> None:
    """The shutdown goes to the safe state at once."""

    async def settle(self: DualRuntimeManager, limit_s: float) -> tuple[Any, ...]:
        return ()

    manager: Any = DualRuntimeManager
    manager._settle = settle


@sabotage(_END, "nothing moves on")
def a_cancelled_move_moves_on() -> None:
    """The stage is left to itself when its operation ends."""

    async def halt(self: Esp300Driver, axle: Any) -> None:
        return None

    driver: Any = Esp300Driver
    driver._halt = halt


@sabotage(_END, "late work is refused")
def work_is_taken_to_the_last() -> None:
    """The manager takes commands while it stops."""
    manager: Any = DualRuntimeManager
    original = manager._expect

    def expect(self: DualRuntimeManager, state: ManagerState, wish: str) -> None:
        if self.state is not ManagerState.STOPPING:
            original(self, state, wish)

    manager._expect = expect


@sabotage(_END, "fates agree")
def the_one_in_hand_is_called_done() -> None:
    """V2 says that what it cut off was done."""
    instrument: Any = Instrument
    original = instrument._cut

    def cut(self: Any, calls: Any, grace_s: float, hung: bool, reason: str) -> str:
        if self._work is not None:
            self._work.fail(_not_done(reason))
        return original(self, calls, grace_s, hung, reason)

    instrument._cut = cut


def _not_done(reason: str) -> Any:
    from duodaq.errors import StoppedError

    return StoppedError(reason, fate="not done")


@sabotage(_END, "files complete")
def the_last_batch_stays_behind() -> None:
    """Each batch is written when the next one comes."""
    journal: Any = Journal
    original = journal.write
    waiting: dict[int, list[Any]] = {}

    def write(self: Journal, batches: Any) -> None:
        held = waiting.setdefault(id(self), [])
        held += batches
        original(self, held[:-1])
        del held[:-1]

    journal.write = write
