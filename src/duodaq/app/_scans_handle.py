from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import msgspec

from duodaq.app._channel import Channel
from duodaq.app._pages import scans_page, shown, told
from duodaq.app._scan_facts import UNDER_WAY, ScanStatus
from duodaq.clock import Deadline, one_interrupt
from duodaq.errors import DeliveryError, DuodaqError, LifecycleError, ReplyTimeoutError, ScanInterruptedError

if TYPE_CHECKING:
    from duodaq.bluesky import ScanRun
    from duodaq.storage.reading import RecordedScan

LOOK_S = 0.2


class ScanHandle:
    """A scan of the lab, detached or somebody's: looked at, waited for, paused, aborted; every look asks the lab."""

    def __init__(self, channel: Channel, status: ScanStatus) -> None:
        self._channel = channel
        self.number = status.number

    def status(self) -> ScanStatus:
        """How it stands: its state, how many points of how many, what it waits for."""
        return self._ask("scan_status")

    def pause(self) -> ScanStatus:
        """Have it wait before its next point; what moves arrives.

        Raises:
            LifecycleError: It has ended.
        """
        return self._ask("scan_pause")

    def resume(self) -> ScanStatus:
        """Have it go on.

        Raises:
            LifecycleError: It has ended.
        """
        return self._ask("scan_resume")

    def abort(self, timeout_s: float = 15.0) -> ScanStatus:
        """Stop what it moves, at once, and end it with the points that it has.

        Raises:
            LifecycleError: It has ended already.
            ReplyTimeoutError: Its program did not end in time. What it moved is stopped.
        """
        self._ask("scan_abort")
        return self.wait(timeout_s)

    def wait(self, timeout_s: float | None = None) -> ScanStatus:
        """Wait until it has ended, however. Ctrl-C ends the waiting, and nothing else.

        Raises:
            ReplyTimeoutError: It goes on after `timeout_s`.
        """
        return self._until_it_ends(timeout_s, lambda _: None)

    def attach(self, *, progress: bool = True) -> RecordedScan:
        """Be there as if it were begun here: a progress bar, its points at the end, and Ctrl-C stops it.

        Raises:
            ScanInterruptedError: It ended before its last point, or Ctrl-C ended it; the points are in its `run`.
        """
        with one_interrupt():
            try:
                status = self._watch(progress)
            except KeyboardInterrupt:
                with contextlib.suppress(LifecycleError):  # it has just ended
                    self.abort()
                status = self.status()
            if status.state != "complete":
                why = f"ended after {status.done} of {status.planned} points: {status.why}"
                raise ScanInterruptedError(why, run=self._kept_of(status))
            return self.points()

    def points(self) -> RecordedScan:
        """Its points, as the lab has recorded them: so far, or all.

        Raises:
            LifecycleError: It is not recorded, or not yet.
        """
        from duodaq.storage.reading import open_run

        status = self.status()
        if status.directory is None:
            raise LifecycleError(f"scan {self.number} is not recorded")
        found = [one for one in open_run(status.directory).scans if one.uid == status.run]
        if not found:
            raise LifecycleError(f"scan {self.number} is not in {status.directory}")
        return found[0]

    def _kept_of(self, status: ScanStatus) -> RecordedScan | ScanRun:
        """What there is of a scan that was interrupted: nothing was recorded if that was before its first document."""
        if status.done:
            return self.points()
        try:
            return self.points()
        except LifecycleError:
            from duodaq.bluesky import ScanRun

            run = ScanRun(dict.fromkeys(status.axes, ()), [()] * status.planned)
            run.aborted = status.why
            return run

    def _watch(self, progress: bool) -> ScanStatus:
        from duodaq.bluesky import progress_bar  # takes a second, within which Ctrl-C is heard as well

        with progress_bar(self.status().planned, progress) as show:
            return self._until_it_ends(None, lambda now: show(now.done))

    def _until_it_ends(self, timeout_s: float | None, show: Callable[[ScanStatus], None]) -> ScanStatus:
        limit = Deadline(timeout_s)
        while True:
            asked = {"scan": self.number, "timeout_s": min(LOOK_S, limit.left_s)}
            status = msgspec.convert(self._channel.request("scan_ended", asked), ScanStatus)
            show(status)
            if status.state not in UNDER_WAY:
                return status
            if limit.passed:
                raise ReplyTimeoutError(f"scan {self.number} goes on: {status.done} of {status.planned} points")

    def _ask(self, op: str) -> ScanStatus:
        return msgspec.convert(self._channel.request(op, {"scan": self.number}), ScanStatus)

    def _repr_html_(self) -> str:
        return shown(f"scan {self.number}", lambda: scans_page(f"scan {self.number}", [self.status()]))

    def __repr__(self) -> str:
        try:
            one = self.status()
        except (DeliveryError, LifecycleError) as error:
            return f"<scan {self.number}; {error}>"
        how = f"{one.state}: {one.why}" if one.why else one.state
        return f"<scan {one.number} of {' × '.join(one.axes)}: {one.done} of {one.planned} points, {how}>"


class ScansHandle:
    """The scans of a lab: ``lab.scans`` lists them, ``lab.scans[3]`` is one of them."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def status(self) -> list[ScanStatus]:
        """Every scan under way, and the last that ended; the oldest first."""
        return msgspec.convert(self._channel.request("scans", {}), list[ScanStatus])

    def running(self) -> list[ScanHandle]:
        """Those under way."""
        return [ScanHandle(self._channel, one) for one in self.status() if one.state in UNDER_WAY]

    def __iter__(self) -> Iterator[ScanHandle]:
        return iter([ScanHandle(self._channel, one) for one in self.status()])

    def __getitem__(self, number: int) -> ScanHandle:
        found = {one.number: one for one in self.status()}
        if number < 0 and -number <= len(found):
            number = [*found][number]
        if number not in found:
            raise KeyError(f"no scan {number}; there are: {', '.join(map(str, found)) or 'none'}")
        return ScanHandle(self._channel, found[number])

    def __len__(self) -> int:
        return len(self.status())

    def _repr_html_(self) -> str:
        return shown("scans", lambda: scans_page("scans", self.status()))

    def __repr__(self) -> str:
        return told("scans", lambda: ", ".join(f"{one.number} {one.state}" for one in self.status()) or "none")


class ScanWatch:
    """A scan of this program's own, as the lab knows it: asks before each point, and counts them."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self.number = number
        self.done = 0

    def holds(self) -> list[str]:
        """What the scan has to wait for.

        Raises:
            ScanAbortedError: Somebody has aborted it.
        """
        from duodaq.bluesky import ScanAbortedError

        told = self._channel.request("scan_point", {"scan": self.number, "done": self.done})
        if told["abort"]:
            raise ScanAbortedError(told["abort"])
        return told["holds"]

    def heard(self, name: str) -> None:
        """A document came."""
        self.done += name == "event"


@contextlib.contextmanager
def watched(
    channel: Channel, axes: list[str], read: list[str], planned: int, ticket: str | None
) -> Generator[ScanWatch]:
    """Tell the lab of a scan while it lasts; it has control of what it moves meanwhile.

    Raises:
        NotInControlError: Somebody else has control of it. Nothing has begun.
    """
    asked = {"axes": axes, "read": read, "planned": planned, "ticket": ticket}
    watch = ScanWatch(channel, channel.request("scan_begin", asked)["number"])
    why, by_hand = "", False
    try:
        yield watch
    except ScanInterruptedError as error:
        why, by_hand = error.what, bool(error.run.aborted)
        raise
    except BaseException as error:
        why, by_hand = str(error) or type(error).__name__, isinstance(error, KeyboardInterrupt)
        raise
    finally:
        told = {"scan": watch.number, "done": watch.done, "complete": not why, "why": why, "by_hand": by_hand}
        with contextlib.suppress(DuodaqError):  # the lab is gone, or ending
            channel.request("scan_end", told)
