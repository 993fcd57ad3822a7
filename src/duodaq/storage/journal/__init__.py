"""The journal of a run: rows, frames and events that survive the program, the disk's refusals and a loss of power.

The format is in docs/reference/journal.md.
"""

from duodaq.storage.journal._catalog import Catalog, SegmentFacts
from duodaq.storage.journal._disk import Disk
from duodaq.storage.journal._events import Event
from duodaq.storage.journal._journal import Journal
from duodaq.storage.journal._labels import edit_labels
from duodaq.storage.journal._reader import Gap, JournalReader
from duodaq.storage.journal._recover import Recovery, recover, unfinished_runs
from duodaq.storage.journal._run import Level, RunPage, git_facts, uuid7

__all__ = [
    "Catalog",
    "Disk",
    "Event",
    "Gap",
    "Journal",
    "JournalReader",
    "Level",
    "Recovery",
    "RunPage",
    "SegmentFacts",
    "edit_labels",
    "git_facts",
    "recover",
    "unfinished_runs",
    "uuid7",
]
