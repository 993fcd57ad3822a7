from __future__ import annotations

import atexit
import concurrent.futures
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from duodaq.app._loop_thread import LoopThread
from duodaq.errors import DeliveryError, DuodaqError, LifecycleError
from duodaq.link import LAB_PROTOCOL, LinkClient, lab_of
from duodaq.model import ShutdownReport

if TYPE_CHECKING:
    from duodaq.app._host import LabDoor
    from duodaq.app._lab import Lab

ANSWER_S = 10.0
"""How long a lab may take to answer what needs no instrument. Everything else has its deadline at the lab."""

_UNHURRIED = frozenset(
    {
        *("preset_save", "preset_diff", "preset_load"),
        *("scan_start", "scan_ended"),
        *("command", "read", "restart", "record_start", "record_stop", "wire_start", "wire_stop"),
        *("apply", "plan", "scan_keep", "scan_place", "scan_document", "fly", "fly_started", "log_start", "log_stop"),
        "migrate",
    }
)

T = TypeVar("T")
Convert = Callable[[Any], Any]


class Channel(Protocol):
    """How a client reaches a lab: in a thread of this process, or over its control socket."""

    def submit(
        self, op: str, params: dict[str, Any], convert: Convert | None = None
    ) -> concurrent.futures.Future[Any]: ...

    def wait(self, future: concurrent.futures.Future[Any]) -> Any: ...

    def request(self, op: str, params: dict[str, Any]) -> Any: ...

    def close(self) -> Any: ...


class _Threaded(ABC):
    def __init__(self, name: str) -> None:
        self._thread = LoopThread(name)
        self._closed = False

    @abstractmethod
    def _ask(self, op: str, params: dict[str, Any]) -> Coroutine[Any, Any, Any]: ...

    def submit(self, op: str, params: dict[str, Any], convert: Convert | None = None) -> concurrent.futures.Future[Any]:
        """Begin a request; cancelling the future cancels it at the lab."""
        if self._closed:
            raise LifecycleError("this lab is closed")
        return self._thread.submit(self._ask(op, params), convert)

    def wait(self, future: concurrent.futures.Future[Any]) -> Any:
        """The future's result; Ctrl-C cancels the request.

        An error of ours comes without the calls inside the lab that led to it: its sentence and its cause say it all.
        """
        try:
            return self._thread.wait(future)
        except DuodaqError as error:
            raise error.with_traceback(None) from error.__cause__

    def request(self, op: str, params: dict[str, Any]) -> Any:
        """Ask and wait for the answer."""
        return self.wait(self.submit(op, params))


class LocalChannel(_Threaded):
    """A private lab in a thread of this process, started with it and ended by `close`, or when the program ends.

    Args:
        ask_to_end: Has other programs find the lab, and is called when one of them asks it to end; None: it is private.

    Raises:
        LifecycleError: A lab of this name is running, if others are to find it.
    """

    def __init__(self, lab: Lab, ask_to_end: Callable[[], None] | None = None) -> None:
        from duodaq.app._control import Client  # who attaches to a lab elsewhere needs neither
        from duodaq.app._service import LabService

        self._door = None if ask_to_end is None else _door_of(lab, ask_to_end)
        super().__init__(f"duodaq-{lab.definition.name}")
        self.lab = lab
        self._report: ShutdownReport | None = None
        self._session = LabService(lab).session(Client("this program"))
        try:
            self._thread.run(lab.start(), 60.0)
            if self._door is not None:
                self._thread.run(self._door.open(), 5.0)
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)

    def _ask(self, op: str, params: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        return self._session.handle(op, params)

    def run(self, work: Callable[[Lab], Coroutine[Any, Any, T]]) -> T:
        """Await `work` of the lab on its own loop, and return its result."""
        return self._thread.run(work(self.lab))

    def close(self) -> Any:
        """Shut the lab down and return its report. Idempotent; Ctrl-C makes it faster, and is raised afterwards."""
        if self._closed:
            return self._report
        self._closed = True
        atexit.unregister(self.close)
        try:
            self._report = self._shut_down()
        finally:
            if self._door is not None:
                self._thread.run(self._door.aclose())
                self._door.release()
            self._thread.close()
        return self._report

    def _shut_down(self) -> ShutdownReport:
        try:
            if self._door is not None:
                self._thread.run(self._door.close_tap())
            return self._thread.run(self.lab.shutdown())
        except KeyboardInterrupt:
            self._thread.run(self._hurry())
            self._report = self._thread.run(self.lab.shutdown())
            raise

    async def _hurry(self) -> None:
        self.lab.hurry()


def _door_of(lab: Lab, ask_to_end: Callable[[], None]) -> LabDoor:
    from duodaq.app._host import LabDoor  # who attaches to a lab elsewhere needs none

    return LabDoor(lab, ask_to_end)


class RemoteChannel(_Threaded):
    """A lab that runs elsewhere on this machine, over its control socket."""

    def __init__(self, socket: Path) -> None:
        self._lab = lab_of(socket)
        super().__init__(f"duodaq-{self._lab}")
        try:
            self._client = self._thread.run(LinkClient.open(socket, version=LAB_PROTOCOL), 5.0)
        except BaseException:
            self._thread.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _ask(self, op: str, params: dict[str, Any]) -> Any:
        try:
            return await self._client.request(op, params, timeout_s=None if op in _UNHURRIED else ANSWER_S)
        except DeliveryError as error:
            if self._client.connected:
                raise
            what = f"lab {self._lab} is gone: its program has ended or was killed"
            raise DeliveryError(what, fate=error.fate, instrument=params.get("instrument"), command=op) from None

    def close(self) -> Any:
        """Leave; the lab goes on. Idempotent."""
        if not self._closed:
            self._closed = True
            self._thread.run(self._client.aclose(), 5.0)
            self._thread.close()
