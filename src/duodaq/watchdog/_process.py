"""The watchdog's process: it knows lines and workers, waits for the manager's end, and has no other life.

Rules for whoever edits this:

1.  It needs the standard library alone, and little of it: it starts within some 50 ms and is there before the first
    port is open.
2.  Nothing that anybody sends ends it: not a signal of the terminal, not garbage on a socket, not an error of its own.
    It ends when the manager says `disarm`, having done nothing, or after the manager's end, having done all.
3.  The manager's end is the end of its socket, or of its process: a child that it forked may hold the socket open.
    What it said last still counts, and is read first.
4.  Nothing in the loop waits, but for the loop itself and a stop-all (at most `STOP_ALL_S`, less if the manager ends).
5.  While the manager lives, its lines are written to for a stop-all only, and never read: what they say is for it. The
    manager may be in the middle of a command, and may go on writing; bytes may interleave. That is why the terminator
    goes first, and why a line that the manager has lost is left to it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections import deque
from typing import Any, NoReturn

from duodaq.watchdog._actions import STOP_ALL_S, Openings, carry_out, note, write
from duodaq.watchdog._lines import Line, Writing
from duodaq.watchdog._record import Record
from duodaq.watchdog._road import Road
from duodaq.watchdog._wire import Message, packed, receive, send

LAST_S = 2.0
"""When the kernel ends a watchdog whose last actions have not ended by themselves."""
_DEAF_TO = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP", "SIGTTOU", "SIGTTIN", "SIGUSR1", "SIGUSR2")
_UNSAID = 256


def main(arguments: list[str]) -> NoReturn:
    """Run the watchdog: ``FD OPTIONS``, the manager's socket, and JSON with pid, anchor_ns, socket and log."""
    for name in _DEAF_TO:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    manager = socket.socket(fileno=int(arguments[0]))
    code = live(manager, json.loads(arguments[1]))
    # Not by way of the interpreter's end, which would wait for a thread that hangs in opening a device; and with the
    # line to the manager still open, to which its end means that this process is of no use any more.
    os._exit(code)


def live(manager: socket.socket, options: dict[str, Any]) -> int:
    """Watch until there is nothing left to do; the exit code."""
    record = Record(options["anchor_ns"], options["log"])
    try:
        road = Road(options["socket"]) if options["socket"] else None
    except OSError as error:
        send(manager, packed({"refused": f"cannot listen at {options['socket']}: {error.strerror or error}"}))
        return 2
    process = Process(manager, options["pid"], road, record)
    os.chdir("/")  # keep no file system busy
    process.say({"ready": os.getpid()})
    if process.serve():
        began_s = time.monotonic()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, LAST_S)
        record.add("the manager is gone", workers=sorted(process.workers), ports=sorted(process.lines))
        carry_out(process.lines.values(), process.workers, record, began_s)
        for line in process.lines.values():
            line.remove_link()
    if road is not None:
        road.close()
    return 0


class Process:
    """What was told, and the loop that waits for more."""

    def __init__(self, manager: socket.socket, manager_pid: int, road: Road | None, record: Record) -> None:
        self.lines: dict[str, Line] = {}
        self.workers: dict[int, int] = {}
        self._manager = manager
        self._manager_process = _watched(manager_pid)
        self._road = road
        self._record = record
        self._unsaid: deque[bytes] = deque(maxlen=_UNSAID)
        self._disarmed = False

    def serve(self) -> bool:
        """Wait until there is nothing more to wait for: True if the manager is gone, False if it said `disarm`."""
        while True:
            events = self._events()
            gone = self._manager_process in events
            if gone or self._manager.fileno() in events:
                gone = not self._hear_manager() or gone
            for descriptor in events - {self._manager.fileno(), self._manager_process}:
                self._hear_client(descriptor)
            self._record.flush()
            if self._disarmed or gone:
                return not self._disarmed

    def _events(self) -> set[int]:
        watched = select.poll()
        watched.register(self._manager, select.POLLIN | (select.POLLOUT if self._unsaid else 0))
        if self._manager_process >= 0:
            watched.register(self._manager_process, select.POLLIN)
        for descriptor in self._road.descriptors() if self._road is not None else ():
            watched.register(descriptor, select.POLLIN)
        return {descriptor for descriptor, _ in watched.poll()}

    # --- the manager

    def say(self, message: Message) -> None:
        """Tell the manager something, now or as soon as it reads again."""
        self._unsaid.append(packed(message))
        self._say_on()

    def _say_on(self) -> None:
        while self._unsaid:
            try:
                send(self._manager, self._unsaid[0])
            except BlockingIOError:
                return
            except OSError:
                self._unsaid.clear()  # it is gone; its socket says so as well
                return
            self._unsaid.popleft()

    def _hear_manager(self) -> bool:
        """Take in all that the manager has said; False if it is gone."""
        self._say_on()
        number = None
        while not self._disarmed:
            try:
                packet, descriptor = receive(self._manager)
            except BlockingIOError:
                break
            except OSError:
                return False
            if not packet:
                return False
            number = self._learn(packet, descriptor)
        if number is not None:
            self.say({"heard": number})
        return True

    def _learn(self, packet: bytes, descriptor: int | None) -> int | None:
        try:
            message: Message = json.loads(packet)
            self._take(message, descriptor)
            return message.get("number")
        except Exception as error:  # noqa: BLE001 - whatever it is, the watch over the rest goes on
            self._record.add("not understood", error=f"{type(error).__name__}: {error}", bytes=repr(packet[:200]))
            if descriptor is not None and all(line.descriptor != descriptor for line in self.lines.values()):
                os.close(descriptor)  # nobody took it
            return None

    def _take(self, message: Message, descriptor: int | None) -> None:
        subject = message["about"]
        if subject == "port":
            line = self.lines.setdefault(message["name"], Line(message["name"]))
            line.learn(message)
            line.hold(descriptor)
        elif subject == "line":
            self.lines[message["name"]].hold(descriptor)
        elif subject == "forget port":
            line = self.lines.pop(message["name"], None)
            if line is not None:
                line.let_go()
        elif subject == "worker":
            self._forget_worker(message["pid"])
            if descriptor is not None:
                self.workers[message["pid"]] = descriptor
        elif subject == "forget worker":
            self._forget_worker(message["pid"])
        elif subject == "disarm":
            self._disarmed = True
        elif subject != "nothing":
            raise ValueError(f"nothing is known about {subject!r}")

    def _forget_worker(self, pid: int) -> None:
        descriptor = self.workers.pop(pid, None)
        if descriptor is not None:
            os.close(descriptor)

    # --- the other road

    def _hear_client(self, descriptor: int) -> None:
        assert self._road is not None
        try:
            said = self._road.hear(descriptor)
            if said is not None:
                self._road.answer(descriptor, self._answer(said))
        except Exception as error:  # noqa: BLE001 - whatever a client does, the watch goes on
            self._record.add("client refused", error=f"{type(error).__name__}: {error}")

    def _answer(self, said: bytes) -> Message:
        try:
            message = json.loads(said)
            if message["ask"] != "stop-all":
                raise ValueError(f"it asks for {message['ask']!r}")
            by = str(message.get("by", ""))[:200]
        except Exception as error:  # noqa: BLE001 - garbage fails in many ways, and is answered all the same
            self._record.add("client not understood", error=str(error)[:200], bytes=repr(said[:200]))
            return {"error": 'it is not understood; say {"ask": "stop-all"}'}
        return self._stop_all(by)

    def _stop_all(self, by: str) -> Message:
        writings = [Writing(line, line.stop_all) for line in self.lines.values() if line.stop_all]
        openings = Openings()
        write(writings, openings, self._record, time.monotonic() + STOP_ALL_S, self._manager.fileno())
        openings.close()
        ports: dict[str, Any] = {}
        for writing in writings:
            note(writing, "stop-all", self._record)
            ports[writing.line.name] = {"error": writing.error} if writing.error else {"written_ns": writing.done_ns}
        report = {"by": by, "t_ns": self._record.now_ns(), "ports": ports}
        self.say({"stopped all": report})
        return report


def _watched(pid: int) -> int:
    """A pidfd of the manager; -1, which no poll looks at, if it is gone already: its socket says that too."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1
