"""The writer of a journal: rows, frames and events into the directory of one run.

Rules for whoever edits this:

* Order. `write` takes batches in the order in which they shall be there, and `commit` makes all of them count at once.
  A new schema first commits what came before it, so a stream never has more than one segment of a kind with anything
  uncommitted.
* Pending. What was taken and does not count yet is kept here, whole, as it came. After any OSError nobody knows what
  the disk has of it: `give_up` closes every segment that could hold a part, and `resume` writes all of it again, to new
  ones. Whoever calls nothing but these two after an error loses nothing.
* An entry is written after what it covers, to the index of its segment first and then to that of the run. The index of
  the run is synced with every commit; that of a segment is there to read by, and synced when the segment ends.
* One thread at a time.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from duodaq.schema import bytes_of, pixels_of
from duodaq.storage.journal._compact import FAN_IN, STRETCH_ENTRIES, Merge, Merged, Stretch, is_slow, plan
from duodaq.storage.journal._crew import Crew
from duodaq.storage.journal._descriptor import descriptor
from duodaq.storage.journal._disk import Disk
from duodaq.storage.journal._folder import PART_DESCRIPTORS, PART_RECORDS, RunFolder, salt
from duodaq.storage.journal._form import NoFileError, NoFormError, column_of, encoder_for, name_in
from duodaq.storage.journal._frames import FramesSegment
from duodaq.storage.journal._layout import DATA_START, FRAMES, ROWS, Header, file_name, index_name
from duodaq.storage.journal._rows import RowsSegment
from duodaq.storage.journal._run import RunPage
from duodaq.storage.journal._stream import Segment, StreamState

_LARGEST_BYTES = 2**30
_TOGETHER_BYTES = 2**25
NO_STREAM, NO_FORM, NO_FILE, DIRECTORY = "no stream", "no form", "no file", "directory"
_NO_FILE = (errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG)
_SPARE_FILES = 16
"""So many more must be free when a segment is begun: the journal's own next parts, and the rest of the program."""

S = TypeVar("S", bound=Segment)


class Journal:
    """Writes one run; see the rules above.

    Attributes:
        page: What the run is.
        pending: Batches that were taken and do not count yet.
        refused: Rows that name no stream, that there is no form for, whose stream could have no file, or that went with
            the directory when somebody removed it, by stream and reason.
        why: What was wrong with the last batch that was refused, by stream.
        files: Rows or frames that count, by file.
        counts: Rows that count, by stream.

    Args:
        path: The directory; made if it is missing, must not hold a run.
        page: What the run is.
        disk: What to write with.
        stretch: With how many batches the segment of a slow stream is ended, to be merged.

    Raises:
        StorageError: There is a run already. It is untouched.
        OSError: The disk refused. Nothing is held, and nothing is left.
    """

    def __init__(self, path: str, page: RunPage, disk: Disk | None = None, *, stretch: int = STRETCH_ENTRIES) -> None:
        self.path = path
        self.page = page
        self.pending: list[pa.RecordBatch] = []
        self.refused: dict[str, dict[str, int]] = {}
        self.why: dict[str, str] = {}
        self.files: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self._disk = disk or Disk()
        self._streams: dict[str, StreamState] = {}
        self._last_taken: StreamState | None = None
        self._last_segment = 0
        self._stretch, self._fan_in = stretch, FAN_IN
        self._part_records, self._part_descriptors = PART_RECORDS, PART_DESCRIPTORS
        self._replaced: list[Stretch] = []
        self._remove_replaced: list[Stretch] = []
        self._gone: set[int] = set()
        self._sorted = self._written = 0
        self._names: list[str | None] = []  # of `pending`: the stream; None: it is refused
        self._uncounted: list[tuple[str, str, int]] = []  # what was refused since the last commit
        self._refused: list[pa.RecordBatch] = []  # what was refused since `take_refused`
        self._records: list[tuple[int, bytes]] = []
        self._crew = Crew()
        self._folder = RunFolder(path, page, self._disk)
        self._closed = self._stopped = False
        try:
            self.commit()
        except BaseException:
            self.discard()
            raise

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Write batches; the kernel has all of them when this returns, and they are pending.

        Raises:
            OSError: The disk refused: `give_up`, then `resume`. All of `batches` are pending.
        """
        new = [*batches]
        if not all(_is_small(batch) for batch in new):
            new = [part for batch in new for part in _portions(batch)]
        self.pending += new
        for batch in new:
            self._sort_in(batch)
        self._flush()

    def commit(self) -> None:
        """Make everything written so far count: with level ``durable``, when the disk has it.

        Raises:
            OSError: The disk refused: `give_up`, then `resume`. What was pending still is.
        """
        self._folder.check()
        self._folder.events.flush()
        touched = [state for state in self._streams.values() if state.touched]
        if any(not segment.is_there() for state in touched for segment in state.segments):
            raise FileNotFoundError(errno.ENOENT, "a file of the run is gone", self.path)
        if self.page.level == "durable":
            self._crew.run([*(s.sync for state in touched for s in state.segments), *self._folder.syncs()])
        for state in touched:
            state.settle()
            for segment in state.segments:
                self.files[segment.name] = segment.rows if isinstance(segment, RowsSegment) else segment.safe
        self._folder.settle()
        self._count()
        del self.pending[: self._written], self._names[: self._written]
        self._sorted -= self._written
        self._written = 0
        self._remove_replaced, self._replaced = [*self._remove_replaced, *self._replaced], []
        for state in touched:
            if state.rows is not None and state.rows.entries >= self._stretch and self._is_slow(state):
                self._end(state)
        self._folder.turn_index(self._part_records)
        self._folder.turn_log(self._part_descriptors)

    # --- merging

    def next_merge(self) -> Merge | None:
        """What is worth merging now, for `merge`, in any thread; then `adopt` it, or `spare` it."""
        for state in self._streams.values():
            sources = plan(state.closed, self._fan_in)
            if not sources:
                continue
            header = self._header(state, ROWS)._replace(follows=0, follows_entries=0)
            header = header.replacing(sources[0].first, sources[-1].last)
            state.parts[ROWS] += 1
            return Merge(state.stream, sources, file_name(state.stream, state.parts[ROWS], ROWS), header)
        return None

    def adopt(self, merged: Merged) -> None:
        """A merge is done: with the next commit it counts in every respect, and what it replaces can be removed."""
        state = self._streams.get(merged.merge.stream)
        sources = merged.merge.sources
        if state is None or sources[0] not in state.closed:
            return  # the directory is another one now
        place = state.closed.index(sources[0])
        state.closed[place : place + len(sources)] = [merged.stretch]
        self.note("descriptor", descriptor(state.stream, merged.segment, self.page.uid))
        self.files[merged.merge.name] = merged.segment.rows
        for source in sources:
            self.files.pop(source.name, None)
        self._replaced += sources
        self._records += [(merged.segment.header.segment, entry) for entry in merged.entries]
        self._folder.put(self._records)
        self._records.clear()

    def spare(self, asked: Merge) -> None:
        """A merge could not be done: its sources stay as they are."""
        state = self._streams.get(asked.stream)
        for source in asked.sources:
            if state is not None and source in state.closed:
                state.closed[state.closed.index(source)] = source._replace(may_merge=False)

    def take_replaced(self) -> tuple[list[Stretch], list[str], frozenset[int]]:
        """Once: the segments that can be removed now, the closed indices and event logs that are worth pruning, and
        the numbers of all segments that are gone.
        """
        gone, self._remove_replaced = self._remove_replaced, []
        self._gone.update(stretch.id for stretch in gone)
        dead = frozenset(self._gone)
        return gone, self._folder.worth_pruning(dead) if gone else [], dead

    def pruned(self, parts: Sequence[str], left: Sequence[str]) -> None:
        """What is left of these closed indices and event logs is in those of `left`."""
        self._folder.pruned(parts, left, self._gone)

    def _is_slow(self, state: StreamState) -> bool:
        return state.rows is not None and not state.has_frames and is_slow(state.rows)

    def note(self, name: str, doc: dict[str, Any]) -> None:
        """Have an event of now in the log; it is written, and counts, with the next commit."""
        self._folder.events.note(name, doc)

    def tell(self) -> bool:
        """Write the events that were noted, if the disk takes them; whether it did. They count with the next commit."""
        try:
            self._folder.events.flush()
        except OSError:
            return False
        return True

    def give_up(self) -> list[int]:
        """Close all segments that could hold something pending; their numbers. Never raises OSError."""
        given_up: list[int] = []
        hit = [state for state in self._streams.values() if state.touched or state.waiting]
        self._folder.give_up({segment.header.segment for state in hit for segment in state.segments})
        for state in hit:
            given_up += self._give_up(state)
        self._records.clear()
        self._names.clear()
        self._sorted = self._written = 0
        for stream, reason, rows in self._uncounted:  # it is refused once more when it is written again
            left = self.refused[stream].pop(reason, 0) - rows
            if left > 0:
                self.refused[stream][reason] = left
        self._uncounted.clear()
        self._refused.clear()
        return given_up

    def take_refused(self) -> list[pa.RecordBatch]:
        """Once: the batches that were refused since this was last asked. What was given up since may come again."""
        refused, self._refused = self._refused, []
        return refused

    def resume(self) -> None:
        """Go on after `give_up`: in the same directory, or if that is gone in a new one of its name.

        Raises:
            OSError: The disk still refuses: `give_up`, and try again later.
            StorageError: There is another run now where this one was.
        """
        if self._folder.reopen():
            for stream, rows in self.counts.items():
                of_stream = self.refused.setdefault(stream, {})
                of_stream[DIRECTORY] = of_stream.get(DIRECTORY, 0) + rows
            for stream, page in self.refused.items():
                if DIRECTORY in page:
                    self.note("gap", gap_doc(stream, page[DIRECTORY], DIRECTORY))
            self._streams.clear()
            self._last_taken = None
            self.files.clear()
            self.counts.clear()
        self._folder.put(())
        batches, self.pending = self.pending, []
        some = 1  # little by little: what fits on a disk that is nearly full is there then
        try:
            while batches:
                chunk, batches = batches[:some], batches[some:]
                self.write(chunk)
                self.commit()
                some *= 2
            self.commit()
        except BaseException:
            self.pending += batches
            raise

    def close(self, stop: dict[str, Any]) -> None:
        """Commit, end every segment, say why the run stopped, and close. Idempotent.

        Raises:
            OSError: The disk refused: `give_up` and `resume`, then close again; or `abandon`, and `recover` ends it.
        """
        if self._closed:
            return
        self.commit()
        for state in self._streams.values():
            self._end(state)
        self._folder.put(self._records)
        self._records.clear()
        if not self._stopped:
            self.note("stop", stop)
            self._stopped = True
        self.commit()
        self.abandon()

    def abandon(self) -> None:
        """Close all files as they are. Idempotent."""
        self._closed = True
        self._crew.close()
        for state in self._streams.values():
            for segment in state.segments:
                segment.close()
            state.forget()
        self._folder.close()

    def discard(self) -> None:
        """Close, and remove what was made, if nothing was written to it yet."""
        empty = not self._streams
        self.abandon()
        if empty:
            self._folder.remove_made()

    # --- on the way in

    def _sort_in(self, batch: pa.RecordBatch) -> None:
        last = self._last_taken
        if last is not None and last.takes_too(batch):
            last.add(batch, len(self._names), None)
            self._names.append(last.stream)
            self._sorted += 1
            return
        stream = name_in(batch)
        if stream is None:
            self._refuse(NO_STREAM, NO_STREAM, batch, "it does not name its stream")
        elif batch.num_rows:
            state = self._streams.get(stream) or StreamState(stream)
            try:
                fits = state.fits(batch)
                encoder = None if fits and state.takes_all else encoder_for(state, batch)
            except NoFormError as error:
                self._refuse(stream, NO_FORM, batch, str(error))
                stream = None
            else:
                self._streams[state.stream] = state
                if not fits:
                    self._flush()
                    self.commit()
                    self._end(state)
                state.add(batch, len(self._names), encoder)
                self._last_taken = state
        self._names.append(stream)
        self._sorted += 1

    def _flush(self) -> None:
        for state in self._streams.values():
            if state.waiting:
                state.touched = True
                self._write_stream(state)
        self._folder.events.flush()
        self._folder.put(self._records)
        self._records.clear()
        self._written = self._sorted

    def _write_stream(self, state: StreamState) -> None:
        taken, places = state.take()
        try:
            batches = taken
            if state.has_frames:
                batches = [rows for some in _together(taken) for rows in self._write_frames(state, some)]
            segment = state.rows or self._open_rows(state, batches[0])
        except NoFileError as error:
            refused, reason, why = [*range(len(taken))], NO_FILE, str(error)
        else:
            entries, refused = segment.write(batches)
            self._records += [(segment.header.segment, entry) for entry in entries]
            reason, why = NO_FORM, "Arrow cannot write it"
        for one in refused:
            self._names[places[one]] = None
            self._refuse(state.stream, reason, taken[one], why)

    def _write_frames(self, state: StreamState, batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
        """Write the frames of some batches; the rows that stand for them."""
        pixels = [pixels_of(batch) for batch in batches]
        segment = state.frames
        if segment is None:
            segment = self._open_frames(state, pixels[0].shape[1:], pixels[0].dtype)
        number, first = segment.header.segment, segment.entries
        rows: list[pa.RecordBatch] = []

        def refer() -> None:
            place = first
            for batch in batches:
                rows.append(state.with_references(batch, number, place))
                place += batch.num_rows

        sequence, t_ns = ([n for one in batches for n in column_of(one, name)] for name in ("sequence", "timestamp"))
        entries = segment.write(pixels, sequence, t_ns, beside=refer)
        self._records += [(number, entry) for entry in entries]
        return rows

    def _refuse(self, stream: str, reason: str, batch: pa.RecordBatch, why: str) -> None:
        if not batch.num_rows:
            return
        of_stream = self.refused.setdefault(stream, {})
        of_stream[reason] = of_stream.get(reason, 0) + batch.num_rows
        self.why[stream] = why
        self._uncounted.append((stream, reason, batch.num_rows))
        self._refused.append(batch)

    def _count(self) -> None:
        for stream, batch in zip(self._names[: self._written], self.pending, strict=False):
            if stream is not None:
                self.counts[stream] = self.counts.get(stream, 0) + batch.num_rows
        self._uncounted.clear()

    # --- segments

    def _open_rows(self, state: StreamState, first: pa.RecordBatch) -> RowsSegment:
        def make(name: str, header: Header) -> RowsSegment:
            return RowsSegment(self._disk, self._folder.descriptor, name, header, first, encoder=state.encoder)

        segment = state.rows = self._open(state, make, self._header(state, ROWS))
        self.note("descriptor", descriptor(state.stream, segment, self.page.uid))
        self._records.append((segment.header.segment, segment.write_head()))
        return segment

    def _open_frames(self, state: StreamState, shape: tuple[int, ...], dtype: np.dtype[Any]) -> FramesSegment:
        def make(name: str, header: Header) -> FramesSegment:
            return FramesSegment(self._disk, self._crew, self._folder.descriptor, name, header, shape, dtype)

        frame_bytes = int(np.prod(shape)) * dtype.itemsize
        header = self._header(state, FRAMES)._replace(frame_bytes=frame_bytes, data_start=DATA_START)
        segment = state.frames = self._open(state, make, header)
        self.note("descriptor", descriptor(state.stream, segment, self.page.uid))
        return segment

    def _header(self, state: StreamState, kind: int) -> Header:
        self._last_segment += 1
        return Header(kind, self._last_segment, salt(), *state.follows[kind], self.page.uid.bytes)

    def _open(self, state: StreamState, make: Callable[[str, Header], S], header: Header) -> S:
        while True:
            name = file_name(state.stream, state.parts[header.kind] + 1, header.kind)
            try:
                _need_spare_files()
                segment = make(name, header)
            except FileExistsError:
                state.parts[header.kind] += 1
                continue
            except OSError as error:
                self._remove(name)
                if error.errno in _NO_FILE:
                    raise NoFileError(str(error)) from error
                raise
            state.parts[header.kind] += 1
            self._folder.made()
            return segment

    def _end(self, state: StreamState) -> None:
        state.touched = True  # should the disk refuse, what counts of it is said by the segment that follows
        slow = self._is_slow(state)
        for segment in state.segments:
            self._records.append((segment.header.segment, segment.end()))
            segment.close()
            if isinstance(segment, RowsSegment):
                state.closed.append(_stretch(segment, slow))
        state.end()

    def _give_up(self, state: StreamState) -> list[int]:
        nothing_counts = [segment for segment in state.segments if not segment.safe]
        if gone := max((self.files.get(one.name, 0) for one in state.segments if not one.is_there()), default=0):
            self.counts[state.stream] -= gone
            of_stream = self.refused.setdefault(state.stream, {})
            of_stream[DIRECTORY] = of_stream.get(DIRECTORY, 0) + gone
        if state.rows is not None:
            state.closed.append(_stretch(state.rows, False))
        given_up = state.give_up()
        for segment in nothing_counts:
            self._remove(segment.name)
            self.files.pop(segment.name, None)
        return given_up

    def _remove(self, name: str) -> None:
        for one in (name, index_name(name)):
            with contextlib.suppress(OSError):
                self._disk.remove(self._folder.descriptor, one)


def gap_doc(stream: str, rows: int, reason: str) -> dict[str, Any]:
    """What the event log says of rows that are not there, and of which it is not known where they would be."""
    return {"stream": stream, "rows": rows, "reason": reason, "after": None, "before": None}


def _stretch(segment: RowsSegment, slow: bool) -> Stretch:
    """An ended segment; one that takes over from another is not merged, for it says what counts of that."""
    header, schema = segment.header, segment.encoder.schema
    own = header.segment
    return Stretch(own, segment.name, own, own, 0, segment.rows, schema, header, slow and not header.follows)


def _together(batches: Sequence[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Batches of frames in portions, each of which is written by one call."""
    some: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        some.append(batch)
        size += batch.get_total_buffer_size()
        if size >= _TOGETHER_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _is_small(batch: pa.RecordBatch) -> bool:
    return batch.num_rows < 2 or batch.get_total_buffer_size() <= _LARGEST_BYTES


def _portions(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in parts that an entry can describe."""
    rows = batch.num_rows
    if _is_small(batch) or bytes_of(batch) <= _LARGEST_BYTES:
        yield batch
        return
    yield from _portions(batch.slice(0, rows // 2))
    yield from _portions(batch.slice(rows // 2))


def _need_spare_files() -> None:
    """Nothing, if some more files can be opened.

    Raises:
        OSError: They cannot.
    """
    opened: list[int] = []
    try:
        while len(opened) < _SPARE_FILES:
            opened += [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)]
    finally:
        for one in opened:
            os.close(one)
