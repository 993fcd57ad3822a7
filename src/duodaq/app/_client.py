from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import msgspec

from duodaq.app._alarms_handle import AlarmsHandle
from duodaq.app._channel import Channel, LocalChannel, RemoteChannel
from duodaq.app._control import Holder
from duodaq.app._documents import DocumentJournal
from duodaq.app._handles import AxisHandle, InstrumentHandle
from duodaq.app._pages import lab_page, shown, told
from duodaq.app._presets_handle import PresetsHandle
from duodaq.app._scan_calls import (
    Listener,
    detached,
    expect_metadata,
    instruments_of,
    parts_of,
    recorded,
    settle_of,
)
from duodaq.app._scans_handle import ScanHandle, ScansHandle
from duodaq.app._user import this_program
from duodaq.errors import LifecycleError
from duodaq.link import find_lab, lab_of
from duodaq.model import WireRecord
from duodaq.telemetry import configure_logging, is_read_by_a_person

if TYPE_CHECKING:
    from duodaq.app._lab import Lab
    from duodaq.bluesky import ScanRun


T = TypeVar("T")


class LabClient:
    """A lab, for scripts and notebooks: every call blocks until it is done, also inside Jupyter's running loop.

    Instruments are attributes: ``lab.stage``, ``lab.dmm``. Not safe to share between threads of the caller's own.
    """

    def __init__(self, channel: Channel, *, ticket: str | None = None) -> None:
        self._channel = channel
        self._ticket = ticket
        self.name = ""
        self._instruments: dict[str, InstrumentHandle] = {}
        self._described: list[dict[str, Any]] = []
        self._describe()

    def _describe(self) -> None:
        """Say who asks, and learn which instruments the lab has; the handles of those that are as they were go on."""
        who = {"who": this_program()} if self._ticket is None else {"ticket": self._ticket}
        facts = self._channel.request("describe", who)
        self.name = facts["lab"]
        known = {f["id"]: f for f in self._described}
        self._instruments = {
            f["id"]: self._instruments[f["id"]] if known.get(f["id"]) == f else InstrumentHandle(self._channel, f)
            for f in facts["instruments"]
        }
        self._described = facts["instruments"]

    def __enter__(self) -> LabClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> InstrumentHandle:
        known = self.__dict__.get("_instruments", {})
        if name not in known and known and not name.startswith("_"):
            self._describe()  # it may have been added since
            known = self._instruments
        if name in known:
            return known[name]
        raise AttributeError(f"no instrument {name!r} in this lab; there are: {', '.join(known) or 'none'}")

    def __getitem__(self, name: str) -> InstrumentHandle:
        try:
            return self._instruments[name]
        except KeyError:
            raise KeyError(f"no instrument {name!r}; there are: {', '.join(self._instruments)}") from None

    def __iter__(self) -> Iterator[InstrumentHandle]:
        return iter(self._instruments.values())

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._instruments]

    def _repr_html_(self) -> str:
        return shown(f"lab {self.name}", lambda: lab_page(self.status()))

    def __repr__(self) -> str:
        return told(f"lab {self.name}", self._in_words)

    def _in_words(self) -> str:
        runtimes = {one["id"]: one["runtime"] for one in self.status()["instruments"]}
        return ", ".join(f"{one.id} ({runtimes.get(one.id, 'gone')})" for one in self)

    def status(self) -> dict[str, Any]:
        """The whole lab at this moment, as plain values."""
        return self._channel.request("status", {})

    def holders(self) -> dict[str, Holder]:
        """Who holds control of which instrument; what nobody holds is free for all."""
        return msgspec.convert(self._channel.request("holders", {}), dict[str, Holder])

    @property
    def alarms(self) -> AlarmsHandle:
        """The lab's alarms: ``lab.alarms["hot"]``, ``lab.alarms.acknowledge("hot")``."""
        return AlarmsHandle(self._channel)

    @property
    def scans(self) -> ScansHandle:
        """The scans under way and the last that ended, whoever began them: ``lab.scans[-1].abort()``."""
        return ScansHandle(self._channel)

    @property
    def presets(self) -> PresetsHandle:
        """Named presets of settings: ``lab.presets.save("alignment")``, ``.diff``, ``.load``."""
        return PresetsHandle(self._channel)

    def parameters(self) -> list[dict[str, Any]]:
        """The parameter table: every entry with value, unit, time, version, owner, and whether it is stale."""
        return self._channel.request("parameters", {})

    def ports(self) -> list[dict[str, Any]]:
        """Every port at this moment: who holds it and who waits, its counts, and the programs outside that use it."""
        return self._channel.request("ports", {})

    def wire_tail(self, port: str, after: int | None = -20, limit: int = 1000) -> dict[str, Any]:
        """What a port recorded last, as far as it is kept: the last 20 records, unless it is said which.

        Args:
            port: Which.
            after: Behind which record, by its number; a negative one: the last so many; None: only what is to come.
            limit: How many at most.

        Returns:
            `records`, a list of WireRecord; `after`, the number behind which they are; and `codec`, the port's.
        """
        found = self._channel.request("wire_tail", {"port": port, "after": after, "limit": limit})
        return {**found, "records": [WireRecord(**facts) for facts in found["records"]]}

    def plan(self, file: str | Path | None = None) -> dict[str, Any]:
        """What `apply` would do: units of steps with their keys, what is refused, and a digest. Nothing is done.

        Raises:
            ConfigError: Something in the file is wrong, or it is of another lab.
        """
        return self._channel.request("plan", {"file": _absolute(file)})

    def apply(self, file: str | Path | None = None, *, digest: str | None = None) -> dict[str, Any]:
        """Make the running lab what its lab file says now; all that is as it was goes on untouched.

        Args:
            file: The lab file; the one that the lab was started with, by default.
            digest: Of a plan: if there is another one by now, nothing is done.

        Returns:
            The plan, and of each of its units whether it was done, and why not; `complete`, whether all of it was.

        Raises:
            ConfigError: Something in the file is wrong. Nothing has changed.
            UnsafeStateError: A stop is latched. Nothing has changed.
        """
        try:
            return self._channel.request("apply", {"file": _absolute(file), "digest": digest})
        finally:
            self._describe()

    def stop_all(self) -> dict[str, Any]:
        """Stop everything that moves or emits, at once, and latch until `reset_stop`."""
        return self._channel.request("stop_all", {})

    def reset_stop(self, who: str) -> None:
        """Lift the latch of a stop-all; `who` is logged."""
        self._channel.request("reset_stop", {"who": who})

    def start_recording(self, directory: str | Path | None = None, *, wire: bool | None = None) -> Path:
        """Record every channel from now on; the directory of the recording.

        Args:
            directory: Where to; a new one in the lab's folder for recordings by default.
            wire: Whether all that passes the ports goes with it; by default what the lab file says.
        """
        target = None if directory is None else str(Path(directory).absolute())
        return Path(self._channel.request("record_start", {"directory": target, "wire": wire}))

    def stop_recording(self) -> dict[str, Any]:
        """Finish the recording: its directory, and how many rows each file holds."""
        return self._channel.request("record_stop", {})

    def log(
        self,
        name: str = "log",
        channels: Iterable[str] = (),
        *,
        directory: str | Path | None = None,
        rotate: str | None = "daily",
        keep: str | None = None,
        budget: str | int | None = None,
        finalise: Iterable[str] = ("parquet",),
        keep_journal: bool = False,
    ) -> Path:
        """Record for weeks, beside any other recording; see `Lab.log`. It goes on when this program ends.

        Args:
            name: Of the series of runs; ``duodaq.runs(log=name)`` finds them.
            channels: Which streams, with ``*`` and ``?``: ``["room.*"]``; all if none is given.
            directory: Where its runs lie; the lab's own folder for recordings by default.
            rotate: ``hourly``, ``daily``, ``weekly`` (of UTC), a duration (``6h``), or None.
            keep: For how long an ended run is kept, ``90d``; None: for ever. One tagged ``keep`` is never removed.
            budget: What the series may take on the disk, ``50GB``; None: all there is.
            finalise: What each run is turned into at its end.
            keep_journal: Whether the journal's rows stay once Parquet holds them.

        Returns:
            The directory of the run that it begins with.
        """
        asked = {
            "name": name,
            "channels": [channels] if isinstance(channels, str) else [*channels],
            "directory": None if directory is None else str(Path(directory).absolute()),
            "rotate": rotate,
            "keep": keep,
            "budget": budget,
            "finalise": [*finalise],
            "keep_journal": keep_journal,
        }
        return Path(self._channel.request("log_start", asked))

    def stop_log(self, name: str = "log") -> dict[str, Any]:
        """End a log: the directory of its last run, and how many rows each file of it holds."""
        return self._channel.request("log_stop", {"name": name})

    def logs(self) -> list[dict[str, Any]]:
        """The logs under way: name, directory, channels, what is kept, and what was lost."""
        return self._channel.request("logs", {})

    def record_wire(self, path: str | Path | None = None) -> Path:
        """Record what passes the ports, behind what they remember, into one file, beside a recording or not."""
        target = None if path is None else str(Path(path).absolute())
        return Path(self._channel.request("wire_start", {"path": target}))

    def stop_wire(self) -> dict[str, Any]:
        """End the file that `record_wire` began: how many records it holds, and how many were lost."""
        return self._channel.request("wire_stop", {})

    @overload
    def scan(
        self,
        axis: AxisHandle,
        positions: Iterable[float],
        read: InstrumentHandle | Iterable[InstrumentHandle],
        *,
        settle_s: float = 0.0,
        progress: bool = True,
        record: bool = True,
        on_document: Listener | None = None,
        detach: Literal[False] = False,
        **metadata: Any,
    ) -> ScanRun: ...

    @overload
    def scan(
        self,
        axis: AxisHandle,
        positions: Iterable[float],
        read: InstrumentHandle | Iterable[InstrumentHandle],
        *,
        settle_s: float = 0.0,
        detach: Literal[True],
        **metadata: Any,
    ) -> ScanHandle: ...

    def scan(
        self,
        axis: AxisHandle,
        positions: Iterable[float],
        read: InstrumentHandle | Iterable[InstrumentHandle],
        *,
        settle_s: float = 0.0,
        progress: bool = True,
        record: bool = True,
        on_document: Listener | None = None,
        detach: bool = False,
        **metadata: Any,
    ) -> ScanRun | ScanHandle:
        """Move `axis` through `positions` and read every channel of `read` at each; the points are kept on Ctrl-C.

        The lab records it: a recording is begun for it if none is under way. If this program is killed, the lab stops
        what it moved and ends that recording, with the points there are. The scan has control of what it moves until
        it has ended.

        Args:
            positions: In the axis's unit; checked against its limits before anything moves.
            read: One instrument or several.
            settle_s: How long to wait after each move, in seconds.
            progress: Show a progress bar.
            record: Whether the lab records it.
            on_document: Called with each of Bluesky's documents, in the scan's own thread.
            detach: Have the lab do it, and return as soon as it has begun: it goes on whatever becomes of this program.
            metadata: Goes with the run, and into its tables: ``sample="knife 3"``. Sample, operator, note and tags
                become the labels of the recording.

        Returns:
            The points; of a detached scan a handle, with which it is watched, paused and aborted.

        Raises:
            TypeError: Something else was given than an axis, numbers, and instruments, or metadata has a name that is
                meant as one of these options: ``settle``. Nothing moved.
            OutOfRangeError: A position is beyond the limits, or `settle_s` is no time. Nothing moved.
            NotInControlError: Somebody else has control of what it moves. Nothing moved.
            ScanInterruptedError: Something failed at a point, Ctrl-C, or somebody aborted it. The axis is stopped; its
                `run` has the points.
            StorageError: The lab cannot record it. Nothing moved.
        """
        expect_metadata("scan", metadata)
        settle_s, parts, readers = settle_of(settle_s), parts_of((axis, positions)), instruments_of(read)
        if detach:
            return detached(
                self._channel, parts, readers, settle_s, snake=True, metadata=metadata, alone=(record, on_document)
            )
        from duodaq.bluesky import run_scan

        moved, points = parts[0]
        return recorded(
            self._channel,
            self._ticket,
            record,
            on_document,
            parts,
            readers,
            lambda heard, holds: run_scan(
                moved,
                points,
                readers,
                settle_s=settle_s,
                progress=progress,
                metadata=metadata,
                on_document=heard,
                holds=holds,
            ),
        )

    def grid(
        self,
        *axes: tuple[AxisHandle, Iterable[float]],
        read: InstrumentHandle | Iterable[InstrumentHandle],
        snake: bool = True,
        settle_s: float = 0.0,
        progress: bool = True,
        record: bool = True,
        on_document: Listener | None = None,
        detach: bool = False,
        **metadata: Any,
    ) -> Any:
        """Move several axes over the grid of their positions and read at each point; as `scan` in all else.

        ::

            run = lab.grid((lab.stage.y, [0, 1, 2]), (lab.stage.x, np.linspace(0, 5, 51)), read=lab.meter)

        Args:
            axes: Each with its positions; the last one is the fastest.
            snake: Whether every other line is gone through backwards.

        Returns:
            A ScanRun; of a detached grid a ScanHandle.
        """
        if not axes:
            raise TypeError("a grid has axes with their positions: lab.grid((lab.stage.x, [0, 1]), …, read=lab.dmm)")
        expect_metadata("grid", metadata)
        settle_s, parts, readers = settle_of(settle_s), parts_of(*axes), instruments_of(read)
        if detach:
            return detached(
                self._channel, parts, readers, settle_s, snake=snake, metadata=metadata, alone=(record, on_document)
            )
        from duodaq.bluesky import run_grid

        return recorded(
            self._channel,
            self._ticket,
            record,
            on_document,
            parts,
            readers,
            lambda heard, holds: run_grid(
                parts,
                readers,
                snake=snake,
                settle_s=settle_s,
                progress=progress,
                metadata=metadata,
                on_document=heard,
                holds=holds,
            ),
        )

    def migrate(self, do: str, instrument: str | None = None, **facts: Any) -> Any:
        """Move an instrument between the runtimes, or look how far it is: what `duodaq migrate` asks for.

        Args:
            do: ``status``, ``tick``, ``shadow``, ``report``, ``end_shadow``, ``cutover`` or ``rollback``.
            instrument: Which.
            facts: ``by``, who asks; ``force``, ``why``, ``item``.

        Raises:
            CutoverError: It was refused or undone: `owner` is the runtime that has the instrument.
        """
        return self._channel.request("migrate", {"do": do, "instrument": instrument, **facts})

    def journal(self) -> DocumentJournal:
        """What has the lab keep the runs of a RunEngine of your own: ``RE.subscribe(lab.journal())``."""
        return DocumentJournal(self._channel)

    def close(self) -> Any:
        """Leave the lab. A private lab is shut down, and its report returned; one attached to goes on."""
        return self._channel.close()


def open_lab(file: str | Path, ask_to_end: Callable[[], None] | None = None) -> LabClient:
    """A private lab from its file, running in a thread of this process until it is closed.

    Args:
        file: The lab file.
        ask_to_end: Has other programs find the lab, as one of ``duodaq run``: called when one of them asks it to end.

    Raises:
        ConfigError: Something in the file is wrong. Nothing was started.
        DuodaqError: It could not be started. Nothing was left open.
    """
    from duodaq.app._lab import Lab  # it takes a second to load, and who attaches to a running lab needs none
    from duodaq.app._opening import LABS_HERE

    lab = Lab.from_file(file)
    channel = LocalChannel(lab, ask_to_end)
    LABS_HERE.add(lab)
    return _client(channel)


def in_lab(client: LabClient, work: Callable[[Lab], Coroutine[Any, Any, T]]) -> T:
    """Await `work` of a private lab on the lab's own loop, from this thread, and return its result.

    Raises:
        LifecycleError: The lab is not in this program.
    """
    channel = client._channel  # pyright: ignore[reportPrivateUsage] - a client's attributes are instruments
    if not isinstance(channel, LocalChannel):
        raise LifecycleError("that lab runs in another program")
    return channel.run(work)


def connect(lab: str | None = None) -> LabClient:
    """Attach to a running lab: the named one, or the only one there is.

    Raises:
        LifecycleError: None is running, or there are several to choose from.
    """
    socket = find_lab(lab)
    try:
        channel = RemoteChannel(socket)
    except OSError as error:
        raise LifecycleError(f"lab {lab_of(socket)} does not answer: {error}") from error
    return _client(channel)


def _client(channel: Channel) -> LabClient:
    if not is_read_by_a_person():
        configure_logging("WARNING")  # a program that says nothing about logs gets warnings in sentences, on stderr
    try:
        return LabClient(channel)
    except BaseException:
        channel.close()
        raise


def _absolute(file: str | Path | None) -> str | None:
    return None if file is None else str(Path(file).absolute())
