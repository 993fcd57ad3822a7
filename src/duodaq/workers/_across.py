"""Instruments that use other instruments, wherever each of them lives.

An argument ``"@dmm"`` of a stanza is given to the driver as a handle of the lab's instrument ``dmm``. What is asked of
the handle goes to the manager and from there to that instrument, in its own worker, like anybody's command.

Rules for whoever edits this:

* Every question has a deadline, so nobody waits for ever; and who would wait for himself is told so at once: the
  switchboard knows who waits for whom, and begins nothing that would close a circle.
* A handle holds no connection. It travels as two names, and is bound anew wherever it arrives.
* A worker is believed nothing: it may ask in the name of its own instruments only, and only those they were given.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from duodaq.errors import DataError, DeliveryError, DuodaqError, LifecycleError, ReplyTimeoutError
from duodaq.model import (
    Command,
    Execute,
    GetParameter,
    InstrumentDefinition,
    ReadChannel,
    SetParameter,
    command_name,
)
from duodaq.telemetry import current_trace_id, tracing
from duodaq.workers._messages import (
    Message,
    NeighbourAnswer,
    NeighbourAsk,
    RecorderAsk,
    error_of,
    error_parts,
    parcel,
    unpack,
    unpack_trusted,
)

MARK = "@"
DEADLINE_S = 4.0
"""Of one question, unless it says otherwise: shorter than that of the call in which it is asked."""
_MARGIN_S = 0.25

Answer = concurrent.futures.Future[Any]
Line = Callable[[str, str, Command, float], Answer]
"""Puts a question: who asks, whom, what, and within how many seconds."""
Ask = Callable[[str, Command, float], Awaitable[Any]]
"""Carries out a command of an instrument within so many seconds, on the manager's loop."""
H = TypeVar("H", bound="_Handle")


class _Handle:
    def __init__(self, asker: str, name: str, line: Line | None = None) -> None:
        self._asker = asker
        self.name = name
        self._line = line

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._asker, self.name)

    def __repr__(self) -> str:
        return f"<{self.name}, as {self._asker} sees it>"

    def bound(self: H, line: Line) -> H:
        """The same handle, on this line."""
        return type(self)(self._asker, self.name, line)

    def _put(self, command: Command, timeout_s: float) -> Answer:
        if self._line is None:
            raise LifecycleError("this handle is not connected to a lab", instrument=self.name)
        return self._line(self._asker, self.name, command, timeout_s)

    def _late(self, command: Command, timeout_s: float) -> ReplyTimeoutError:
        what = f"no answer for {self._asker} within {timeout_s:.3g} s"
        return ReplyTimeoutError(what, instrument=self.name, command=command_name(command))


class Neighbour(_Handle):
    """Another instrument of the lab, for blocking code in V2. Every call may raise what that instrument's call raises.

    A question that does not end in time raises ReplyTimeoutError; one that would wait for itself DeliveryError.
    """

    def get(self, name: str, *, timeout_s: float = DEADLINE_S) -> Any:
        """The value of a parameter, read from the device."""
        return self.ask(GetParameter(name), timeout_s=timeout_s)

    def set(self, name: str, value: Any, *, timeout_s: float = DEADLINE_S) -> Any:
        """Set a parameter; what the device accepted."""
        return self.ask(SetParameter(name, value), timeout_s=timeout_s)

    def call(self, name: str, *args: Any, timeout_s: float = DEADLINE_S, **kwargs: Any) -> Any:
        """Call the driver's method, or the actor's operation."""
        return self.ask(Execute(name, args, kwargs), timeout_s=timeout_s)

    def read(self, channel: str, *, timeout_s: float = DEADLINE_S) -> Any:
        """Take one measurement of a channel now: value, unit, time."""
        return self.ask(ReadChannel(channel), timeout_s=timeout_s)

    def ask(self, command: Command, *, timeout_s: float = DEADLINE_S) -> Any:
        """Have any command carried out, and wait for it."""
        try:
            return self._put(command, timeout_s).result(timeout_s + _MARGIN_S)
        except concurrent.futures.TimeoutError as error:
            if isinstance(error, DuodaqError):
                raise
            raise self._late(command, timeout_s) from None


class AwaitedNeighbour(_Handle):
    """Another instrument of the lab, for actors in V4: as Neighbour, to be awaited."""

    async def get(self, name: str, *, timeout_s: float = DEADLINE_S) -> Any:
        """The value of a parameter, read from the device."""
        return await self.ask(GetParameter(name), timeout_s=timeout_s)

    async def set(self, name: str, value: Any, *, timeout_s: float = DEADLINE_S) -> Any:
        """Set a parameter; what the device accepted."""
        return await self.ask(SetParameter(name, value), timeout_s=timeout_s)

    async def call(self, name: str, *args: Any, timeout_s: float = DEADLINE_S, **kwargs: Any) -> Any:
        """Call the driver's method, or the actor's operation."""
        return await self.ask(Execute(name, args, kwargs), timeout_s=timeout_s)

    async def read(self, channel: str, *, timeout_s: float = DEADLINE_S) -> Any:
        """Take one measurement of a channel now: value, unit, time."""
        return await self.ask(ReadChannel(channel), timeout_s=timeout_s)

    async def ask(self, command: Command, *, timeout_s: float = DEADLINE_S) -> Any:
        """Have any command carried out, and wait for it.

        Cancellation: what was asked goes on, within its deadline; its result is dropped.
        """
        answer = asyncio.wrap_future(self._put(command, timeout_s))
        await asyncio.wait({answer}, timeout=timeout_s + _MARGIN_S)
        if not answer.done():
            answer.cancel()
            raise self._late(command, timeout_s)
        return answer.result()


def introduced(definition: InstrumentDefinition, known: Callable[[str], bool], line: Line) -> InstrumentDefinition:
    """The stanza with a handle for each ``"@name"`` among its arguments that is another instrument of the lab.

    Other texts with that mark stay as they are (``"@py"`` is a VISA backend).
    """
    kind = Neighbour if definition.runtime == "v2" else AwaitedNeighbour
    args = {
        name: kind(definition.id, value[len(MARK) :], line)
        if isinstance(value, str) and value.startswith(MARK) and known(value[len(MARK) :])
        else value
        for name, value in definition.args.items()
    }
    return replace(definition, args=args)


def bound(definition: InstrumentDefinition, line: Line) -> InstrumentDefinition:
    """The stanza as it came to a worker, its handles bound to the worker's line."""
    args = {name: v.bound(line) if isinstance(v, _Handle) else v for name, v in definition.args.items()}
    return replace(definition, args=args)


def neighbours_of(definition: InstrumentDefinition) -> frozenset[str]:
    """The instruments that this one was given handles of."""
    return frozenset(value.name for value in definition.args.values() if isinstance(value, _Handle))


class Switchboard:
    """Who asks whom, in the whole lab. On the manager's loop; `line` from any thread.

    Args:
        ask: Carries out a command in whichever worker the instrument lives.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._waits: dict[str, Counter[str]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to take questions, on the running loop."""
        self._loop = asyncio.get_running_loop()

    def line(self, asker: str, target: str, command: Command, timeout_s: float) -> Answer:
        """The line of the instruments in this process: from any thread but, to wait for the answer, the loop's own."""
        if self._loop is None or self._loop.is_closed():
            raise LifecycleError("the lab is not running", instrument=target, command=command_name(command))
        trace_id = current_trace_id()
        return asyncio.run_coroutine_threadsafe(self.ask(asker, target, command, timeout_s, trace_id), self._loop)

    async def ask(self, asker: str, target: str, command: Command, timeout_s: float, trace_id: str | None) -> Any:
        """Have `target` carry out `command` for `asker`.

        Raises:
            DeliveryError: `target` waits for `asker`, itself or through others: not done.
            DuodaqError: What the instrument's own call raises.
        """
        chain = self._chain(target, asker)
        if chain:
            what = f"{asker} would wait for itself: {' waits for '.join((asker, *chain))}"
            raise DeliveryError(what, fate="not done", instrument=target, command=command_name(command))
        waits = self._waits.setdefault(asker, Counter())
        waits[target] += 1
        try:
            with tracing(trace_id):
                return await self._ask(target, command, timeout_s)
        finally:
            waits[target] -= 1
            if not waits[target]:
                del waits[target]

    def _chain(self, begin: str, end: str, seen: tuple[str, ...] = ()) -> tuple[str, ...]:
        """How `begin` comes to wait for `end`, by name; empty if it does not."""
        path = (*seen, begin)
        if begin == end:
            return path
        for following in self._waits.get(begin, ()):
            if following not in path and (found := self._chain(following, end, path)):
                return found
        return ()


class NeighbourDesk:
    """The manager's end of one worker's questions.

    Args:
        board: The lab's switchboard.
        allowed: Which others an instrument of the worker was given.
        send: Sends an answer to the worker.
    """

    def __init__(
        self, board: Switchboard, allowed: Callable[[str], frozenset[str]], send: Callable[[Message], None]
    ) -> None:
        self._board = board
        self._allowed = allowed
        self._send = send

    def checked(self, asked: NeighbourAsk) -> Command:
        """The command of a question.

        Raises:
            DataError: It is none, or none that this worker may put.
        """
        if asked.target not in self._allowed(asked.asker):
            raise DataError(f"{asked.asker!r} was given no instrument {asked.target!r}")
        command = unpack(asked.command)
        if not isinstance(command, Command):
            raise DataError(f"{type(command).__name__} is no command")
        return command

    async def serve(self, asked: NeighbourAsk, command: Command) -> None:
        """Have it carried out, and send what became of it."""
        try:
            result = await self._board.ask(asked.asker, asked.target, command, asked.timeout_s, asked.trace_id)
            answer = NeighbourAnswer(asked.number, parcel(result))
        except Exception as error:  # noqa: BLE001 - it is the asker who has to know
            answer = NeighbourAnswer(asked.number, None, *error_parts(error))
        self._send(answer)


class NeighbourLine:
    """The worker's end: puts the questions of its instruments, from any thread."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._open: dict[int, Answer] = {}

    def put(self, asker: str, target: str, command: Command, timeout_s: float) -> Answer:
        """Put one question."""
        return self._asked(
            lambda number: NeighbourAsk(number, asker, target, parcel(command), timeout_s, current_trace_id())
        )

    def record(self, op: str, options: dict[str, Any]) -> Answer:
        """Have the lab's recorder started or stopped."""
        return self._asked(lambda number: RecorderAsk(number, op, parcel(options)))

    def _asked(self, question: Callable[[int], Message]) -> Answer:
        number, answer = next(self._numbers), Answer()
        answer.add_done_callback(lambda _: self._open.pop(number, None))
        self._open[number] = answer
        try:
            self._send(question(number))
        except DuodaqError:
            self._open.pop(number, None)
            raise
        return answer

    def heard(self, said: NeighbourAnswer) -> None:
        """Give an answer to whoever waits for it."""
        answer = self._open.pop(said.number, None)
        if answer is None or not answer.set_running_or_notify_cancel():
            return
        if said.error is None:
            answer.set_result(unpack_trusted(said.body))
        else:
            answer.set_exception(error_of(said.error, said.cause))
