"""The part every SCPI instrument shares: messages in order, one at a time, replies to whoever asked.

Rules that whoever edits this must keep:

* One parser for all sessions. A message begins only when the one before it has ended, also when that one waits for a
  measurement (``READ?``, ``*OPC?``, ``*WAI``): what comes meanwhile stays in the input queue.
* A command error ends its message, an execution error only its unit. What earlier units of the message have answered
  is sent all the same. A query that fails answers nothing: its client will time out, as with the real thing.
* On a stream there is no END and no talk request, so a reply leaves at once and -420 cannot occur. -410 remains as far
  as the line can have it: a query that arrives while the reply to the one before has not been fetched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from duodaq.sim._simulator import Line, Reply, Tally
from duodaq.sim.scpi._argument import Args
from duodaq.sim.scpi._fault import ScpiFault
from duodaq.sim.scpi._grammar import MessageSplitter, Unit, units
from duodaq.sim.scpi._status import Event, RegisterGroup, Status
from duodaq.sim.scpi._tree import Command, CommandTree, Wait

__all__ = ["ScpiSimulator"]

_DEVICE_CLEAR = 0x03
_QUEUE_LIMIT = 1024


class ScpiSimulator:
    """An instrument that speaks IEEE 488.2 over a stream; subclasses bring their commands and what happens in time."""

    name = "scpi"
    model = ""

    def __init__(self, *, line: Line, identity: str, input_limit: int, indefinite_idn: bool = False) -> None:
        self.line = line
        self.tally = Tally()
        self.paced = True
        self.status = Status()
        self._identity = identity
        self._indefinite_idn = indefinite_idn
        self._input_limit = input_limit
        self._splitters: dict[int, MessageSplitter] = {}
        self._inbox: deque[tuple[int, bytes | None]] = deque()
        self._out: list[Reply] = []
        self._now_s = 0.0
        self._end_message()
        self._complete_armed = False
        self._tree = CommandTree([*self._common_commands(), *self._status_commands(), *self._commands()])

    # What a subclass brings

    def _commands(self) -> list[Command]:
        raise NotImplementedError

    def _tick(self, now_s: float) -> None:
        """Let time pass up to `now_s`."""

    def _next_event_s(self) -> float | None:
        """When the next thing happens by itself."""
        return None

    def _is_busy(self) -> bool:
        """Whether an overlapped operation is under way (``*OPC`` waits for it)."""
        return False

    def _reset(self) -> None:
        """``*RST``."""

    def _trigger(self) -> None:
        """``*TRG``."""
        raise ScpiFault(-211)

    def _abort(self) -> None:
        """Device clear: end whatever is under way."""

    def _check_allowed(self, unit: Unit) -> None:
        """Raise the fault of a unit that the present state forbids."""

    # The promise to the server

    def open_session(self, client: int, now_s: float) -> bytes:
        """A client connected; SCPI instruments say nothing unasked."""
        self._splitters[client] = MessageSplitter(self._input_limit)
        return b""

    def close_session(self, client: int) -> None:
        """A client went away. A socket takes its unfinished business along; a serial instrument does not notice."""
        if self.line.max_clients == 1:
            return
        self._splitters.pop(client, None)
        self._inbox = deque(entry for entry in self._inbox if entry[0] != client)
        if self._client == client and self._wait is not None:
            self._abort()
            self._end_message()

    def feed(self, data: bytes, now_s: float, client: int = 0, pending: int = 0) -> list[Reply]:
        """Take bytes from `client` and do what can be done now."""
        self._now_s = max(now_s, self._now_s)
        self._tick(self._now_s)
        splitter = self._splitters.setdefault(client, MessageSplitter(self._input_limit))
        if self.line.max_clients == 1 and _DEVICE_CLEAR in data and not splitter.in_block:
            data = data[data.rindex(_DEVICE_CLEAR) + 1 :]
            self.device_clear(client)
        for message in splitter.feed(data):
            self._take(message, client, pending)
        return self._run()

    def due(self, now_s: float) -> list[Reply]:
        """What has become ready by `now_s`."""
        self._now_s = max(now_s, self._now_s)
        return self._run()

    def due_at_s(self) -> float | None:
        """When something happens next by itself."""
        return self._next_event_s()

    def power_cycle(self, now_s: float) -> None:
        """Off and on: status, settings and stored readings as at the factory, PON set."""
        self._now_s = max(now_s, self._now_s)
        self._splitters.clear()
        self._inbox.clear()
        self._abort()
        self._end_message()
        kept = self.status
        self.status = Status()
        if not kept.power_on_clear:
            self.status.power_on_clear = False
            self.status.event_enable, self.status.service_enable = kept.event_enable, kept.service_enable
        self._complete_armed = False
        self._reset()

    def device_clear(self, client: int = 0) -> None:
        """What a device clear does: input and output emptied, whatever waits is given up; settings and status stay."""
        if client in self._splitters:
            self._splitters[client].clear()
        alone = self.line.max_clients == 1
        self._inbox = deque(entry for entry in self._inbox if not alone and entry[0] != client)
        self._complete_armed = False
        if alone or self._client == client or self._units is None:
            self._out.clear()
            self._abort()
            self._end_message()

    @property
    def service_requests(self) -> int:
        """How often it has asked for service."""
        return self.status.service_requests

    def serial_poll(self, now_s: float) -> int:
        """The status byte, with RQS in bit 6, which this clears. What is under way goes on."""
        self._now_s = max(now_s, self._now_s)
        self._tick(self._now_s)
        self._settle()
        self.status.update()
        return self.status.serial_poll()

    def report(self) -> dict[str, Any]:
        """The tally, and what the status model counted."""
        return {
            **self.tally.as_dict(),
            "model": self.model,
            "errors_queued": len(self.status.errors),
            "service_requests": self.status.service_requests,
        }

    # Messages

    def _take(self, message: bytes | None, client: int, pending: int) -> None:
        if len(self._inbox) >= _QUEUE_LIMIT or message is None:
            self.status.fault(ScpiFault(-363))
            return
        if not message.strip():
            return
        if pending > 0 or (self._wait is not None and self._wait_replies):
            self.tally.interleavings += 1
        elif self._wait is not None:
            self.tally.impatient += 1
        if pending > 0 and b"?" in message:
            self.status.fault(ScpiFault(-410))
        self._inbox.append((client, message))

    def _run(self) -> list[Reply]:
        self._tick(self._now_s)
        while self._step():
            self._tick(self._now_s)
        self._settle()
        out, self._out = self._out, []
        return out

    def _step(self) -> bool:
        """Do the next thing that can be done without waiting; False if there is none."""
        if self._wait is not None:
            return self._poll_wait()
        if self._units is None:
            if not self._inbox:
                return False
            self._client, message = self._inbox.popleft()
            self._units = units(message or b"")
        try:
            unit = next(self._units, None)
            if unit is None:
                self._finish_message()
            else:
                self._carry_out(unit)
        except ScpiFault as fault:
            self._fail(fault)
        return True

    def _poll_wait(self) -> bool:
        wait = self._wait
        assert wait is not None
        try:
            data = wait.poll()
        except ScpiFault as fault:
            self._wait = None
            self._fail(fault)
            return True
        if data is None:
            return False
        self._wait = None
        if self._emitting:
            self._message_out.append(data)
            self._emitting = False
        elif self._wait_replies:
            self._answer(data)
        return True

    def _carry_out(self, unit: Unit) -> None:
        self.tally.commands += 1
        command, handler, suffixes = self._tree.find(unit)
        if unit.query and self._after_arbitrary:
            raise ScpiFault(-440)
        if len(unit.params) > command.most:
            raise ScpiFault(-108)
        self._check_allowed(unit)
        args = Args(unit.params, suffixes)
        reply = handler(args)
        args.end()
        if isinstance(reply, Wait):
            self._wait, self._wait_replies = reply, unit.query
        elif reply is not None:
            self._answer(reply.encode("latin-1") if isinstance(reply, str) else reply)
        self._after_arbitrary = self._after_arbitrary or (command.arbitrary and self._indefinite_idn)
        self.status.update()

    def _answer(self, data: bytes) -> None:
        if self._answered:
            data = b";" + data
        self._answered = True
        self._message_out.append(data)
        self.status.message_available = True
        self.status.update()

    def _emit(self, data: bytes) -> None:
        """Send a piece of a reply that is not complete yet."""
        if self._emitting:
            self._message_out.append(data)
        else:
            self._answer(data)
        self._emitting = True
        self._flush(ends=False)

    def _flush(self, *, ends: bool = True) -> None:
        if self._message_out:
            self._out.append(Reply(0.0, b"".join(self._message_out), self._client, ends))
            self._message_out.clear()

    def _fail(self, fault: ScpiFault) -> None:
        if fault.code in (-101, -102, -103, -111, -121, -151):
            self.tally.misframed += 1
        self.status.fault(fault)
        if fault.ends_message or fault.code == -440:
            self._finish_message()

    def _finish_message(self) -> None:
        if self._answered:
            self._message_out.append(b"\n")
            self.tally.exchanges += 1
        self._flush()
        self._end_message()

    def _end_message(self) -> None:
        self._units: Iterator[Unit] | None = None
        self._wait: Wait | None = None
        self._wait_replies = False
        self._client = 0
        self._message_out: list[bytes] = []
        self._answered = False
        self._emitting = False
        self._after_arbitrary = False
        self.status.message_available = False
        self.status.update()

    def _settle(self) -> None:
        if self._complete_armed and not self._is_busy():
            self._complete_armed = False
            self.status.post(Event.OPERATION_COMPLETE)

    # Commands that every instrument has

    def _common_commands(self) -> list[Command]:
        return [
            Command("*CLS", most=0, set=lambda _: self._clear_status()),
            Command("*ESE", set=self._set_event_enable, query=lambda _: f"{self.status.event_enable:d}"),
            Command("*ESR", most=0, query=lambda _: f"{self.status.take_event():d}"),
            Command("*IDN", query=lambda _: self._identity, most=0, arbitrary=True),
            Command("*OPC", most=0, set=lambda _: self._arm_complete(), query=lambda _: Wait(self._complete)),
            Command("*PSC", set=self._set_power_on_clear, query=lambda _: f"{self.status.power_on_clear:d}"),
            Command("*RST", most=0, set=lambda _: self._reset_device()),
            Command("*SRE", set=self._set_service_enable, query=lambda _: f"{self.status.service_enable:d}"),
            Command("*STB", most=0, query=lambda _: f"{self.status.byte():d}"),
            Command("*TRG", most=0, set=lambda _: self._trigger()),
            Command("*TST", most=0, query=lambda _: "+0"),
            Command("*WAI", most=0, set=lambda _: Wait(self._complete)),
        ]

    def _status_commands(self) -> list[Command]:
        error = "SYSTem:ERRor"
        return [
            Command(f"{error}[:NEXT]", query=lambda _: self._take_errors(every=False)),
            Command(f"{error}:COUNt", query=lambda _: f"{len(self.status.errors):+d}"),
            Command(f"{error}:ALL", query=lambda _: self._take_errors(every=True)),
            Command("STATus:PRESet", most=0, set=lambda _: self.status.preset()),
            *self._group_commands("STATus:OPERation", "operation"),
            *self._group_commands("STATus:QUEStionable", "questionable"),
        ]

    def _group_commands(self, root: str, name: str) -> list[Command]:
        def group() -> RegisterGroup:
            return getattr(self.status, name)

        def register(node: str, attribute: str) -> Command:
            def assign(args: Args) -> None:
                setattr(group(), attribute, args.integer(0, 0xFFFF) & 0x7FFF)
                self.status.update()

            return Command(f"{root}:{node}", set=assign, query=lambda _: f"{getattr(group(), attribute):+d}")

        return [
            Command(f"{root}[:EVENt]", query=lambda _: f"{group().take_event():+d}"),
            Command(f"{root}:CONDition", query=lambda _: f"{group().condition:+d}"),
            register("ENABle", "enable"),
            register("PTRansition", "positive"),
            register("NTRansition", "negative"),
        ]

    def _clear_status(self) -> None:
        self._complete_armed = False
        self.status.clear()

    def _set_event_enable(self, args: Args) -> None:
        self.status.event_enable = args.integer(0, 255)

    def _set_service_enable(self, args: Args) -> None:
        self.status.set_service_enable(args.integer(0, 255))

    def _set_power_on_clear(self, args: Args) -> None:
        self.status.power_on_clear = bool(args.integer(-32767, 32767))

    def _take_errors(self, every: bool) -> str:
        text = self.status.errors.pop_all() if every else self.status.errors.pop()
        self.status.update()
        return text

    def _arm_complete(self) -> None:
        self._complete_armed = True

    def _complete(self) -> bytes | None:
        return None if self._is_busy() else b"1"

    def _reset_device(self) -> None:
        self._complete_armed = False
        self._reset()
