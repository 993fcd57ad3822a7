"""What runs in a port worker: the VISA library, at the end of a link to the manager.

Rules for whoever edits this:

* The thread that reads the link makes the calls: a hand-over between threads would cost more than the rest.
* A second thread only watches. When the link ends the process leaves at once, also from within a call that blocks: no
  orphan keeps an instrument.
* What is lost is told with its reason and forgotten; there are no second attempts here. Whoever wants them asks again.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading

from duodaq.ports._visa_resource import (
    LateError,
    LibraryError,
    RefusalError,
    UntakenError,
    VisaResource,
    open_resource,
)
from duodaq.ports._visa_sentences import (
    ClearDevice,
    CloseResource,
    Converse,
    Done,
    Failed,
    Frames,
    Lost,
    OfManager,
    OfWorker,
    OpenResource,
    Piece,
    PollDevice,
    decode_of_manager,
    frame,
)

_READ_BYTES = 1 << 18
_HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


def serve_visa(link: socket.socket) -> None:
    """Be a port worker at the end of `link`, until that ends."""
    link.setblocking(True)
    worker = _Worker(link)
    threading.Thread(target=worker.watch, name="duodaq port watch", daemon=True).start()
    worker.serve()


class _Worker:
    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._sending = threading.Lock()
        self._resources: dict[int, VisaResource] = {}
        self._gone: set[int] = set()
        self._changed, self._tell_changed = os.pipe()

    def serve(self) -> None:
        frames = Frames()
        while data := self._link.recv(_READ_BYTES):
            for body in frames.feed(data):
                self._carry_out(decode_of_manager(body))
        os._exit(0)

    def _carry_out(self, call: OfManager) -> None:
        try:
            data, ends = self._result(call)
        except RefusalError as refusal:
            self._say(Failed(call.call, refusal.kind, str(refusal)))
        except Exception as error:  # noqa: BLE001 - whatever a library raises is the manager's to know
            self._say(Failed(call.call, "lost", f"{type(error).__name__}: {error}"))
        else:
            self._say(Done(call.call, data, ends))

    def _result(self, call: OfManager) -> tuple[bytes, bool]:
        match call:
            case OpenResource():
                resource = open_resource(call.name, call.library, call.attributes, call.timeout_s)
                self._resources[call.resource] = resource
                self._watch_again()
                return resource.library.encode(), False
            case CloseResource():
                resource = self._resources.pop(call.resource, None)
                self._watch_again()
                if resource is not None:
                    resource.close()
                return b"", False
            case Converse():
                return self._converse(call)
            case ClearDevice():
                self._resource(call.resource).clear(call.timeout_s)
                self._watch_again()
                return b"", False
            case PollDevice():
                return b"%d\n" % self._resource(call.resource).poll(call.timeout_s), True

    def _converse(self, call: Converse) -> tuple[bytes, bool]:
        resource = self._resource(call.resource)
        if call.data:
            try:
                resource.write(call.data, call.write_s)
            except LateError as late:
                raise UntakenError(str(late)) from late
        if call.fetch_s is None:
            return b"", False
        return resource.read(call.fetch_s, lambda piece: self._say(Piece(call.call, piece)))

    def _resource(self, number: int) -> VisaResource:
        resource = self._resources.get(number)
        if resource is None:
            raise LibraryError("it is not open")
        return resource

    def _say(self, sentence: OfWorker) -> None:
        with self._sending:
            self._link.sendall(frame(sentence))

    # --- the watching thread

    def watch(self) -> None:
        """Leave when the link ends; tell when the far end of a resource hangs up, as far as its library lets us see."""
        while True:
            watched = self._sockets()
            poll = select.poll()
            poll.register(self._link, _HUNG_UP & ~select.POLLIN)
            poll.register(self._changed, select.POLLIN)
            for descriptor in watched:
                poll.register(descriptor, _HUNG_UP)
            for descriptor, _ in poll.poll():
                if descriptor == self._link.fileno():
                    os._exit(0)
                if descriptor == self._changed:
                    os.read(self._changed, 4096)
                elif (number := watched.get(descriptor)) is not None and number not in self._gone:
                    self._gone.add(number)  # the manager closes it: letting go of it here would close it in this thread
                    with contextlib.suppress(OSError):
                        self._say(Lost(number, "the far end hung up"))

    def _watch_again(self) -> None:
        os.write(self._tell_changed, b"!")

    def _sockets(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for number, resource in [item for item in list(self._resources.items()) if item[0] not in self._gone]:
            for descriptor in resource.descriptors():
                found[descriptor] = number
        return found
