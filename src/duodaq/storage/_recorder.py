"""Records what V4's publisher carries (and the bridge brings V2's to it) as the journal of a run.

Rules for whoever edits this:

* The recorder's subscription is its only queue, bounded by the memory it keeps. A thread of its own takes from it and
  writes: no event loop ever waits for the disk. What it takes at once it commits at once, after at most `COMMIT_S`.
* What it has taken is in the journal's care until it counts. While the disk refuses, the thread takes nothing: the
  queue fills, and what a full queue does was decided at the start: producers wait, or losses are counted. Either way
  they are in the books and in the event log.
* A rotation changes the journal and not the subscription: the thread ends one run between two takes and goes on in the
  next, so that no row can be lost or doubled there.
* Rows are acknowledged after the commit that holds them, in the order in which they came. Whoever asks how far it is
  reads counters that only this thread writes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from duodaq import clock
from duodaq.dataplane import Hub, Policy, Subscription
from duodaq.errors import LifecycleError, StoppedError, StorageError
from duodaq.storage._books import Books
from duodaq.storage._compactor import Compactor
from duodaq.storage._tally import Tally, WallClock
from duodaq.storage._turn import RecordingSummary, Turn, discarded, journal_in, prepared, storage_error, until
from duodaq.storage._watermark import Watermark, Watermarks
from duodaq.storage.journal import Disk, Journal, Level, RunPage
from duodaq.storage.journal._journal import DIRECTORY, gap_doc
from duodaq.telemetry import Histogram, get_logger

WhenFull = Literal["slow", "count"]
OnFailure = Literal["resume", "end"]

BROKEN = "recorder"
"""The reason of rows that were lost since the recorder itself failed."""

COMMIT_S = 0.01
_TICK_S = 0.5
_AT_ONCE = 1024
_RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_ALARM_AT = 0.5
_TELL_S = 1.0
_OF_ITS_TIME = 0.8
"""For so much of what `stop` may take, a disk that refuses is asked again; the rest is for saying so."""


class Recorder:
    """Writes every batch of a hub into the journal of one run; the format is in docs/reference/journal.md.

    Args:
        directory: Made if missing; must not hold another recording.
        hub: What to record.
        provenance: Goes with the run as it is: plain values (the lab's definition, identities and settings).
        level: What an acknowledgement means: ``durable`` (a loss of power costs none of it) or ``kernel`` (the end of
            the program does not).
        when_full: What happens when the disk cannot keep up and the queue is full: ``slow`` (publishers that can wait
            do; of the others, rows are lost and counted) or ``count`` (nobody waits; rows are lost and counted).
        on_failure: When the disk refuses: ``resume`` (try again until it does not) or ``end`` (lose what is not
            acknowledged, and all that comes).
        capacity: How many batches may wait for the disk.
        max_bytes: The most memory they may keep.
        name: The name of its subscription.
        code: The folder whose git state goes with the run.
        accepts: Which batches; all if not given. A quick, pure filter.
        labels: What is said of the run from the start, as `edit_labels` takes it.
        disk: What to write with.
    """

    def __init__(
        self,
        directory: str | Path,
        hub: Hub[pa.RecordBatch],
        *,
        provenance: Mapping[str, Any] | None = None,
        level: Level = "durable",
        when_full: WhenFull = "slow",
        on_failure: OnFailure = "resume",
        capacity: int = 1_000_000,
        max_bytes: int = 512 * 2**20,
        name: str = "recorder",
        code: str | Path | None = None,
        accepts: Callable[[pa.RecordBatch], bool] | None = None,
        labels: Mapping[str, Any] | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.name = name
        self.level: Level = level
        self.commits = Histogram()
        self._hub = hub
        self._provenance = dict(provenance or {})
        self._policy = Policy.BLOCK if when_full == "slow" else Policy.DROP_NEWEST
        self._on_failure = on_failure
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._code = code
        self._accepts = accepts
        self._labels = dict(labels or {})
        self._disk = disk
        self._subscription: Subscription[pa.RecordBatch] | None = None
        self._journal: Journal | None = None
        self._turn: Turn | None = None
        self._late: list[RecordingSummary] = []
        self._notes: list[tuple[str, dict[str, Any]]] = []
        self._books = Books(hub, name)
        self._told_of: set[str] = set()
        self._error: StorageError | None = None
        self._last_refusal: StorageError | None = None
        self._refusing = self._given_up = self._failed = self._closed_well = False
        self._due: dict[Level, int] = {}
        self._in_care = False
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()
        self._limit, self._told = clock.Deadline(None), clock.Deadline(0.0)
        self._compactor: Compactor | None = None
        self._marks = Watermarks()
        self._tally = Tally()
        self._wall = WallClock()
        self._start_ns = self._stop_ns = 0
        self._summary: RecordingSummary | None = None
        self._log = get_logger("storage")

    @property
    def recording(self) -> bool:
        """Whether it takes and writes data now."""
        return self._goes_on and not self._failed

    @property
    def error(self) -> StorageError | None:
        """The first refusal of the disk, or what has ended the recording by itself, if there was one."""
        return self._error

    @property
    def refusing(self) -> bool:
        """Whether the disk refuses now."""
        return self._refusing

    @property
    def last_refusal(self) -> StorageError | None:
        """What the disk said when it refused last, whether that is over or not."""
        return self._last_refusal

    @property
    def page(self) -> RunPage | None:
        """What the run is, once it was started."""
        return None if self._journal is None else self._journal.page

    def watermark(self, stream: str, level: Level | None = None) -> Watermark:
        """How much of a stream is acknowledged, at the recorder's own level or at ``kernel``."""
        return self._marks.of(stream, self._valid(level))

    async def acknowledged(
        self, stream: str, sequence: int, *, level: Level | None = None, timeout_s: float | None = None
    ) -> bool:
        """Wait until a row is acknowledged.

        Args:
            stream: Its stream.
            sequence: Its sequence number there.
            level: ``kernel`` or ``durable``; the recorder's own if not given.
            timeout_s: How long to wait.

        Returns:
            Whether it is; False if it is known not to be there, the time was up or the recording ended before. Of a
            stream that was interrupted more than 1000 times, what lies between the oldest losses counts as lost, too.
        """
        level = self._valid(level)
        await self._marks.wait(lambda: self._marks.mark(stream, level).passed >= sequence, timeout_s)
        return self._marks.mark(stream, level).has(sequence)

    async def flush(self, *, level: Level | None = None, timeout_s: float | None = None) -> bool:
        """Wait until everything that was published before this call is acknowledged, or counted as lost.

        Returns:
            Whether it is; False if the time was up or the recording ended before.

        Raises:
            LifecycleError: It was never started.
        """
        subscription, level = self._started(), self._valid(level)
        taken = subscription.offered - subscription.dropped
        return await self._marks.wait(lambda: self._marks.total(level) >= taken, timeout_s)

    def note(self, name: str, doc: dict[str, Any]) -> None:
        """Put something that happens to the run into its event log: ``change``, for instance. From any thread."""
        self._notes.append((name, doc))

    async def start(self, timeout_s: float = 10.0) -> None:
        """Make the directory and record everything published from now on.

        Raises:
            LifecycleError: It was started before.
            StorageError: The directory cannot be made or written, or holds a recording. Nothing was subscribed.
        """
        if self._thread is not None:
            raise LifecycleError("this recorder was started before; make another one")
        self._start_ns = clock.utc_ns()
        self._journal = await self._prepared(self.directory, self._provenance, timeout_s)
        self._books = Books(self._hub, self.name)
        self._subscription = self._hub.subscribe(
            self.name,
            capacity=self._capacity,
            max_bytes=self._max_bytes,
            policy=self._policy,
            accepts=self._accepts,
            sync_overflow="drop",
            alarm_at=_ALARM_AT,
        )
        self._thread = threading.Thread(target=self._run, args=(self._subscription,), name="recorder", daemon=True)
        self._thread.start()

    async def rotate(
        self, directory: str | Path, *, provenance: Mapping[str, Any] | None = None, timeout_s: float = 60.0
    ) -> RecordingSummary:
        """End this run and go on in another one, in `directory`: every row is in one of the two, and only there.

        Args:
            directory: Of the next run; made if missing, must not hold another recording.
            provenance: Goes with the next run; that of this one if not given.
            timeout_s: How long the disk may take.

        Returns:
            What the run that has ended came to.

        Raises:
            LifecycleError: It does not record, or is being rotated. Nothing has changed.
            StorageError: The next directory cannot be made or written, or this run is not begun to be ended in time:
                recording goes on in this one. If `turning` is True then, the disk refuses to end this one:
                recording goes on in the next one as soon as it does not, and `take_late` tells what this one came to.
        """
        if not self._goes_on or self._turn is not None:
            raise LifecycleError("only a recording that goes on can be rotated, and once at a time")
        told = self._provenance if provenance is None else dict(provenance)
        turn = Turn(Path(directory), await self._prepared(Path(directory), told, timeout_s), told)
        self._turn = turn
        if not self._goes_on:
            self._turn = None
            if turn.give_up():
                await discarded(turn.journal)
            raise LifecycleError("the recording ended before it could be rotated")
        if not await until(turn.over.is_set, timeout_s) and turn.give_up():
            self._turn = None
            await discarded(turn.journal)
            raise StorageError(
                f"{self.directory} could not be ended within {timeout_s} s", left="recording goes on in it"
            )
        if turn.summary is None:
            left = f"recording goes on in {directory} as soon as the disk allows"
            raise StorageError(f"{self.directory} was not ended within {timeout_s} s", left=left)
        return turn.summary

    @property
    def turning(self) -> bool:
        """Whether a rotation is under way."""
        return self._turn is not None

    def take_late(self) -> list[RecordingSummary]:
        """Once: what runs came to whose rotation was done when nobody waited for it any more."""
        late, self._late = self._late, []
        return late

    async def stop(self, timeout_s: float = 10.0) -> RecordingSummary:
        """Take nothing new, write what waits, end the files. Idempotent.

        Returns:
            What was recorded. A disk that is full may have room again within `timeout_s`. When it takes longer, `error`
            says so: what is still unwritten is counted as lost, and files of batches already written stay readable.

        Raises:
            LifecycleError: It was never started.
        """
        subscription = self._started()
        if self._summary is not None:
            return self._summary
        self._limit = clock.Deadline(_OF_ITS_TIME * timeout_s)
        subscription.finish()
        self._hurry.set()
        if not await until(self._ended, timeout_s):
            left = f"{subscription.occupancy} batches were not written"
            self._fail(StorageError(f"the disk did not take the data within {timeout_s} s", left=left))
        subscription.close()
        self._marks.end()
        self._stop_ns = self._stop_ns or clock.utc_ns()
        self._summary = self._summarise()
        return self._summary

    @property
    def _goes_on(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and self._summary is None

    def _started(self) -> Subscription[pa.RecordBatch]:
        if self._subscription is None:
            raise LifecycleError("this recorder was never started")
        return self._subscription

    @property
    def _open_journal(self) -> Journal:
        assert self._journal is not None
        return self._journal

    def _valid(self, level: Level | None) -> Level:
        if level == "durable" and self.level != "durable":
            raise LifecycleError("this recording acknowledges what the kernel has, and nothing more")
        return level or self.level

    def _ended(self) -> bool:
        return self._thread is not None and not self._thread.is_alive()

    async def _prepared(self, directory: Path, provenance: dict[str, Any], timeout_s: float) -> Journal:
        def page(place: Path) -> RunPage:
            return RunPage.of_now(place, level=self.level, provenance=provenance, code=self._code)

        return await prepared(directory, lambda: journal_in(directory, page, self._labels, self._disk), timeout_s)

    # --- in the thread

    def _run(self, subscription: Subscription[pa.RecordBatch]) -> None:
        journal = self._open_journal
        try:
            while True:
                turn = self._turn
                if turn is not None and turn.begin():
                    journal = self._go_on_in(turn)
                try:
                    batches = subscription.get_many_blocking(_AT_ONCE, _TICK_S, linger_s=COMMIT_S)
                except StoppedError:
                    break
                try:
                    self._store(journal, batches)
                except Exception as error:  # noqa: BLE001 - one that nobody thought of: the run is ended, and says so
                    self._break_off(journal, error, batches)
            self._close(journal)
        except Exception as error:  # noqa: BLE001 - likewise; nobody takes from the queue any more
            self._break_off(journal, error)
            subscription.finish()
        finally:
            journal.abandon()
            if self._turn is not None:
                self._let_go(self._turn)
            self._marks.end()
            self._stop_ns = clock.utc_ns()

    def _go_on_in(self, turn: Turn) -> Journal:
        """End this run between two takes; the next one."""
        old, books = self._open_journal, self._books
        books.freeze()  # what is lost while the disk takes its time belongs to the next run
        self._close(old)
        old.abandon()
        self._stop_ns = clock.utc_ns()
        summary = self._summarise()
        self._journal, self.directory, self._start_ns, self._stop_ns = turn.journal, turn.directory, turn.start_ns, 0
        self._books = Books(self._hub, self.name, after=books)
        self._told_of.clear()
        self._tally.forget_losses()
        self._error, self._turn = None, None
        self._given_up = self._failed = self._closed_well = False
        self._provenance = turn.provenance
        if not turn.end(summary):
            self._late.append(summary)
        return turn.journal

    def _let_go(self, turn: Turn) -> None:
        """The recording has ended before it could go on there: nothing is left of that."""
        self._turn = None
        if turn.begin():
            turn.journal.discard()
            turn.end(None)

    def _store(self, journal: Journal, batches: Sequence[pa.RecordBatch]) -> None:
        if self._started().dropped:
            self._tally.note_losses(self._books.dropped())
        gaps = self._tally.look(batches)
        rows = sum(batch.num_rows for batch in batches)
        self._due.update({"kernel": rows, self.level: rows})
        self._in_care = False
        if self._given_up:
            self._lose(BROKEN if self._failed else "disk", batches)
            self._tell_losses(journal)
            self._settle()
            return
        step = self._wall.step()
        notes = [("gap", gap) for gap in gaps] + ([] if step is None else [("clock", step)])
        while self._notes:
            notes.append(self._notes.pop(0))
        compactor = self._compactor_of(journal)
        if not batches and not notes and not compactor.has_result:
            compactor.order()
            return
        refused: list[pa.RecordBatch] = []
        try:
            for name, doc in notes:
                journal.note(name, doc)
            compactor.settle()
            self._in_care = True
            journal.write(batches)
            refused = self._note_refusals(journal)
            self._raise_to("kernel")
            begun_s = clock.monotonic_s()
            journal.commit()
            self.commits.note(clock.monotonic_s() - begun_s)
        except OSError as error:
            went_on = self._try_again(journal, error)
            self._note_refusals(journal, refused)
            if not went_on:
                self._settle()
                return
        self._settle()
        compactor.order()

    def _settle(self) -> None:
        """What was taken last is acknowledged, or counted as lost, at every level."""
        levels: set[Level] = {"kernel", self.level} if self._given_up else {*self._due}
        for level in levels:
            self._raise_to(level)

    def _raise_to(self, level: Level) -> None:
        self._marks.raise_to(level, self._tally.marks(), self._due.pop(level, 0))

    def _break_off(self, journal: Journal, error: Exception, batches: Sequence[pa.RecordBatch] = ()) -> None:
        """End the run as failed, after what is no refusal of the disk; what it does not have yet is counted as lost."""
        if self._failed:
            return
        self._log.exception("the recorder met what it was not made for", directory=str(self.directory), exc_info=error)
        left = "what was acknowledged is whole; the recording has ended, and what comes is counted as lost"
        self._fail(StorageError(f"{self.directory} cannot be gone on with: {type(error).__name__}: {error}", left=left))
        self._given_up = self._failed = True
        with contextlib.suppress(Exception):
            journal.give_up()
        self._lose(BROKEN, journal.pending if self._in_care else batches)
        journal.pending.clear()
        self._settle()
        compactor, self._compactor = self._compactor, None
        if compactor is not None:
            compactor.close()
        try:
            journal.note("failure", {"error": str(self._error), "segments": []})
            for stream, rows, reason in self._books.take_untold():
                journal.note("gap", gap_doc(stream, rows, reason))
            journal.close(self._stop_doc(journal, str(self._error)))
            self._closed_well = True
        except Exception as other:  # noqa: BLE001 - a repair ends it then
            self._log.warning("its files are not ended", directory=str(self.directory), error=str(other))
            journal.abandon()

    def _compactor_of(self, journal: Journal) -> Compactor:
        if self._compactor is None:
            self._compactor = Compactor(journal, self._disk)
        return self._compactor

    def _try_again(self, journal: Journal, error: OSError) -> bool:
        """Bring what the journal has in its care to the disk; False: it was given up, and is counted as lost."""
        self._refusing = True
        attempt, last = 0, False
        left = len(journal.pending)
        self._fail(storage_error(error, f"{self.directory} cannot be written", self._left()))
        segments = journal.give_up()
        journal.note("failure", {"error": str(error), "segments": segments})
        try:
            while self._on_failure == "resume" and not last:
                if self._hurry.is_set():
                    last = self._limit.passed
                    clock.block(min(_RETRY_S[0], self._limit.left_s))
                else:
                    clock.block(_RETRY_S[min(attempt, len(_RETRY_S) - 1)], self._hurry)
                attempt += 1
                try:
                    journal.resume()
                except OSError:
                    journal.give_up()
                    if len(journal.pending) < left:  # some of it was taken: go on at once
                        left, attempt, last = len(journal.pending), 0, False
                except StorageError as other:
                    self._fail(other)
                    break
                else:
                    self._log.warning("recording goes on", directory=str(self.directory), attempts=attempt)
                    journal.note("resume", {"attempts": attempt})
                    return True
            self._given_up = True
            self._lose("disk", journal.pending)
            journal.pending.clear()
            self._tell_losses(journal, at_once=True)
            return False
        finally:
            self._refusing = False

    def _close(self, journal: Journal) -> None:
        if self._failed:
            return
        compactor, self._compactor = self._compactor_of(journal), None
        try:
            compactor.finish()
            with contextlib.suppress(OSError):  # the journal is closed in a moment, and says so, too
                compactor.settle()
            self._end(journal)
        finally:
            compactor.close()

    def _end(self, journal: Journal) -> None:
        if self._started().dropped:
            self._tally.note_losses(self._books.dropped())
        for gap in self._tally.rest():
            journal.note("gap", gap)
        if self._given_up:
            self._tell_losses(journal, at_once=True)
            return
        self._note_refusals(journal)
        while self._notes:
            journal.note(*self._notes.pop(0))
        for attempt in range(2):
            try:
                journal.close(self._stop_doc(journal))
            except OSError as error:
                left = "what was acknowledged is whole; duodaq.storage.recover ends the files"
                self._fail(storage_error(error, f"{self.directory} cannot be ended", left))
                if attempt or not self._try_again(journal, error):
                    return
            else:
                self._closed_well = True
                return

    def _stop_doc(self, journal: Journal, failed: str = "") -> dict[str, Any]:
        lost = self._books.lost(journal.refused)
        return {
            "uid": f"{journal.page.uid}/stop",
            "run_start": str(journal.page.uid),
            "time": clock.utc_ns() / 1e9,
            "exit_status": "fail" if lost or failed else "success",
            "reason": failed or (f"lost: {lost}" if lost else ""),
            "num_events": journal.counts,
            "lost": lost,
            "books": self._books.page(journal.counts, journal.refused),
            "ledger": self._hub.ledger().to_dict(),
        }

    def _lose(self, reason: str, batches: Sequence[pa.RecordBatch]) -> None:
        rows = self._books.lose(reason, batches)
        self._tally.lose(batches)
        if rows and reason not in self._told_of:
            self._told_of.add(reason)
            self._log.error("rows are lost to the recording", directory=str(self.directory), reason=reason, rows=rows)

    def _note_refusals(self, journal: Journal, known: Sequence[pa.RecordBatch] = ()) -> list[pa.RecordBatch]:
        """Have it in the event log what was refused since the last look, but for `known`; what it was."""
        for stream, rows, reason in self._books.new_refusals(journal.refused):
            if reason != DIRECTORY:  # the journal itself says so
                journal.note("gap", gap_doc(stream, rows, reason))
            if reason != DIRECTORY and (said := f"{reason}: {stream}") not in self._told_of:
                self._told_of.add(said)
                facts = {"stream": stream, "reason": reason, "why": journal.why.get(stream, "")}
                self._log.error("rows cannot be recorded", directory=str(self.directory), **facts)
        refused = journal.take_refused()
        told = {id(batch) for batch in known}
        self._tally.lose([batch for batch in refused if id(batch) not in told])
        return refused

    def _tell_losses(self, journal: Journal, *, at_once: bool = False) -> None:
        """Have what was given up in the event log, if the disk takes so little: a repair knows of nothing else."""
        if self._failed or not self._books.has_untold or (self._told.left_s > 0 and not at_once) or not journal.tell():
            return
        self._told = clock.Deadline(_TELL_S)
        for stream, rows, reason in self._books.take_untold():
            journal.note("gap", gap_doc(stream, rows, reason))
        journal.tell()

    def _left(self) -> str:
        if self._on_failure == "resume":
            return "what was acknowledged is whole; the rest waits until it can be written"
        return "what was acknowledged is whole; the recording has ended"

    def _fail(self, error: StorageError) -> None:
        if self._error is None:
            self._error = error
        self._last_refusal = error
        self._log.error("recording is interrupted", directory=str(self.directory), error=str(error))

    def _summarise(self) -> RecordingSummary:
        journal = self._open_journal
        return RecordingSummary(
            directory=str(self.directory),
            files=dict(journal.files),
            start_ns=self._start_ns,
            stop_ns=self._stop_ns,
            lost=self._books.lost(journal.refused),
            error=None if self._error is None else str(self._error),
            ended=self._closed_well,
            uid=str(journal.page.uid),
            number=journal.page.number,
            rows=dict(journal.counts),
        )
