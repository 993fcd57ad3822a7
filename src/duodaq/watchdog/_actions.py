"""The last actions, in their order and with their limits.

Rules for whoever edits this:

1.  The workers die first, and their end is awaited: a worker that lives could open a device of its own, or go on
    moving it. One that does not die (it hangs in the kernel) delays the actions by `WORKERS_S` at most.
2.  Each line gets its terminator and then its actions in one piece, in the order in which the manager gave them. No
    line waits for another: all are written to at once, by what each takes.
3.  What a serial line had not sent is taken back before, so that no command queued there is carried out afterwards.
    The half of a command that had left ends with the terminator, and what it does is ended by the action behind it.
4.  A line is opened again only if it has no descriptor, or its descriptor turns out to be dead; in a thread, since
    opening may hang. Nobody waits for such a thread: the process ends without it.
5.  Reading comes last and decides nothing. It keeps a connection with unread bytes from being reset at its end, which
    could take the actions away from the device that had not read them yet.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import threading
import time
from collections.abc import Iterable

from duodaq.watchdog import _serial_line as serial_line
from duodaq.watchdog._lines import Answer, Line, Writing
from duodaq.watchdog._record import Record
from duodaq.watchdog._wire import text

WORKERS_S = 0.25
"""How long the end of the workers is awaited."""
WRITTEN_S = 0.48
"""When writing ends, counted from the manager's death."""
STOP_ALL_S = 0.15
"""How long a stop-all writes: less, so that a manager that dies in it finds its time not spent."""
READ_S = 0.2
QUIET_S = 0.05
"""How long at most the answers are read, and after which silence no more is expected."""


class Openings:
    """Lines that are being opened again, each in a thread of its own."""

    def __init__(self) -> None:
        self.wake, self._bell = os.pipe()
        self._opened: queue.SimpleQueue[tuple[Writing, int | str]] = queue.SimpleQueue()
        self.count = 0

    def begin(self, writing: Writing, limit_s: float) -> None:
        """Open the line of `writing` again, once."""
        writing.reopened = True
        self.count += 1
        threading.Thread(target=self._open, args=(writing, limit_s), daemon=True).start()

    def _open(self, writing: Writing, limit_s: float) -> None:
        try:
            result: int | str = writing.line.open_again(limit_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is written down and the other lines go on
            result = f"cannot be opened again: {error}"
        self._opened.put((writing, result))
        os.write(self._bell, b"!")

    def take(self) -> Iterable[Writing]:
        """Those that were opened, or failed, since the last call."""
        while not self._opened.empty():
            writing, result = self._opened.get()
            self.count -= 1
            if isinstance(result, int):
                writing.restart(result)
            else:
                writing.error = result
            yield writing

    def close(self) -> None:
        """Forget them, if none is under way."""
        if not self.count:
            os.close(self.wake)
            os.close(self._bell)


def carry_out(lines: Iterable[Line], workers: dict[int, int], record: Record, began_s: float) -> None:
    """Kill the workers and write every line's crash actions; `began_s` is when the manager's death was noticed."""
    writings = [Writing(line, line.crash) for line in lines if line.crash]
    openings = Openings()
    for writing in writings:
        if writing.line.descriptor is None and writing.line.can_reopen:
            openings.begin(writing, WRITTEN_S)
    try:
        kill(workers, record, WORKERS_S)
    except Exception as error:  # noqa: BLE001 - whatever happened there, the lines get their actions
        record.add("workers not killed", error=f"{type(error).__name__}: {error}")
    write(writings, openings, record, began_s + WRITTEN_S)
    for writing in writings:
        note(writing, "crash actions", record)
    record.flush()
    for answer in read_back([writing.line for writing in writings if writing.line.descriptor is not None]):
        record.add("read back", port=answer.line.name, bytes=answer.size, beginning=text(answer.beginning))
    for line in lines:
        _release(line, record)
    record.add("done", took_ms=round((time.monotonic() - began_s) * 1000, 1))
    record.flush()


def kill(workers: dict[int, int], record: Record, limit_s: float) -> None:
    """SIGKILL every worker by its pidfd and await their ends."""
    began_s = time.monotonic()
    alive = select.poll()
    left = {descriptor: pid for pid, descriptor in workers.items()}
    for descriptor in left:
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except OSError as error:
            if not isinstance(error, ProcessLookupError):
                record.add("worker not killed", pid=left[descriptor], error=str(error))
        alive.register(descriptor, select.POLLIN)
    while left and (rest_s := began_s + limit_s - time.monotonic()) > 0:
        for descriptor, _ in alive.poll(rest_s * 1000):
            alive.unregister(descriptor)
            left.pop(descriptor, None)
    if workers:
        took_ms = round((time.monotonic() - began_s) * 1000, 1)
        record.add("workers killed", pids=sorted(workers), still_there=sorted(left.values()), took_ms=took_ms)


def write(
    writings: Iterable[Writing], openings: Openings, record: Record, until_s: float, manager: int | None = None
) -> None:
    """Write to all lines at once, until each has taken everything or failed, `until_s` is past, or the manager ends."""
    writable, waiting = select.poll(), dict[int, Writing]()
    writable.register(openings.wake, select.POLLIN)
    if manager is not None:
        writable.register(manager, 0)  # its end is always told

    def go_on(writing: Writing, done: bool) -> None:
        descriptor = writing.line.descriptor
        if not done:
            assert descriptor is not None
            waiting[descriptor] = writing
            writable.register(descriptor, select.POLLOUT)
        elif writing.is_whole:
            writing.done_ns = record.now_ns()
        elif manager is None and writing.line.can_reopen and not writing.reopened:
            openings.begin(writing, until_s - time.monotonic())

    for writing in writings:
        if writing.line.descriptor is not None:
            go_on(writing, writing.begin())
    while (waiting or openings.count) and (rest_s := until_s - time.monotonic()) > 0:
        for descriptor, _ in writable.poll(rest_s * 1000):
            if descriptor == manager:
                return
            if descriptor == openings.wake:
                os.read(openings.wake, 64)
                for writing in openings.take():
                    if writing.line.descriptor is not None and not writing.error:
                        go_on(writing, writing.begin())
            else:
                writable.unregister(descriptor)
                writing = waiting.pop(descriptor)
                go_on(writing, writing.push())


def note(writing: Writing, what: str, record: Record) -> None:
    """Write down what became of `writing`."""
    if not writing.error and not writing.is_whole:
        lost = writing.line.descriptor is None
        writing.error = "it has no line" if lost else f"it took {writing.sent} of {len(writing.data)} bytes"
    facts = {"error": writing.error} if writing.error else {"written_ns": writing.done_ns}
    again = {"reopened": True} if writing.reopened else {}
    written = text(writing.data[: writing.sent])
    record.add(
        f"{what} failed" if writing.error else f"{what} written",
        port=writing.line.name,
        bytes=written,
        **facts,
        **again,
    )


def read_back(lines: list[Line]) -> list[Answer]:
    """Read and throw away what the lines say, until all are silent or `READ_S` is over."""
    readable = select.poll()
    answers = {line.descriptor: Answer(line) for line in lines if line.descriptor is not None}
    open_lines = set(answers)
    for descriptor in answers:
        readable.register(descriptor, select.POLLIN)
    until_s = time.monotonic() + READ_S
    while open_lines:
        silent_s = max(answers[descriptor].heard_s for descriptor in open_lines) + QUIET_S
        rest_s = min(until_s, silent_s) - time.monotonic()
        if rest_s <= 0:
            break
        for descriptor, _ in readable.poll(rest_s * 1000):
            if not answers[descriptor].read():
                readable.unregister(descriptor)
                open_lines.discard(descriptor)
    return list(answers.values())


def _release(line: Line, record: Record) -> None:
    # Closing a serial line waits, half a minute on a USB adapter, for what a blocked one never sends.
    if line.descriptor is not None and serial_line.is_tty(line.descriptor):
        unsent = serial_line.unsent(line.descriptor)
        if unsent:
            record.add("the line is blocked", port=line.name, never_sent=unsent)
            serial_line.discard_output(line.descriptor)
    line.let_go()
