"""What is said of a run: changes exclude each other, and none is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from duodaq.errors import StorageError
from duodaq.storage import edit_labels
from duodaq.storage.journal import Disk, _labels
from duodaq.storage.journal._labels import labels_held
from duodaq.storage.reading import open_run
from duodaq.testing import growing_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with growing_run(tmp_path / "run"):
        pass
    return tmp_path / "run"


class WaitingDisk(Disk):
    """Is asked to put the file in its place, and does so when it is told to."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def rename(self, directory: int, name: str, to: str) -> None:
        self.asked.set()
        assert self.go.wait(10)
        super().rename(directory, name, to)


def test_of_two_changes_at_once_none_is_lost(run: Path) -> None:
    disk = WaitingDisk()
    one = threading.Thread(target=edit_labels, args=(run,), kwargs={"note": "drifts", "disk": disk})
    other = threading.Thread(target=edit_labels, args=(run,), kwargs={"tags": ["keep"]})
    one.start()
    assert disk.asked.wait(10)
    other.start()
    other.join(0.1)  # time enough to be lost, if it were not kept waiting
    disk.go.set()
    one.join(10)
    other.join(10)
    labels = open_run(run).labels
    assert (labels.note, labels.tags) == ("drifts", ("keep",))


def test_whoever_holds_the_labels_for_long_is_not_waited_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_labels(run, note="before")
    monkeypatch.setattr(_labels, "HELD_S", 0.02)
    with labels_held(run), pytest.raises(StorageError, match=r"somebody else has held its labels for 0\.02 s"):
        edit_labels(run, note="after")
    assert open_run(run).labels.note == "before"
    edit_labels(run, note="after")
    assert open_run(run).labels.note == "after"


def test_a_change_of_a_run_that_is_removed_meanwhile_is_refused(run: Path) -> None:
    refused: list[StorageError] = []

    def edit() -> None:
        try:
            edit_labels(run, tags=["keep"])
        except StorageError as error:
            refused.append(error)

    editor = threading.Thread(target=edit)
    with labels_held(run):
        editor.start()
        editor.join(0.05)
        run.rename(run.with_name("removed"))
    editor.join(10)
    assert len(refused) == 1
    assert open_run(run.with_name("removed")).labels.tags == ()


def test_where_directories_cannot_be_locked_a_file_is(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = _labels.fcntl.flock

    def of_files_only(file: int, how: int) -> None:
        if Path(f"/proc/self/fd/{file}").is_dir():
            raise OSError(_labels.errno.EBADF, "no locks of directories here")
        real(file, how)

    monkeypatch.setattr(_labels.fcntl, "flock", of_files_only)
    monkeypatch.setattr(_labels, "HELD_S", 0.02)
    edit_labels(run, note="one")
    with labels_held(run), pytest.raises(StorageError, match="somebody else"):
        edit_labels(run, note="two")
    assert open_run(run).labels.note == "one"
