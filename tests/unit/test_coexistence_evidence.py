"""The means by which coexistence tests learn what happens in other processes."""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from duodaq.clock import Deadline, monotonic_s, utc_ns
from duodaq.testing.coexistence import SABOTAGES, load_sabotages
from duodaq.testing.coexistence._evidence import Evidence, Gate
from duodaq.testing.coexistence._meeting import Meeting
from duodaq.testing.coexistence._witness import process_lives, thread_lives

NOTES = 300
WRITER = """
import sys
from duodaq.testing.coexistence._evidence import Evidence
evidence = Evidence(sys.argv[1])
for number in range(int(sys.argv[3])):
    evidence.note(sys.argv[2], number=number, padding="x" * (number % 97))
"""


def run(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments])


def test_notes_of_processes_and_threads_are_whole_and_in_each_ones_order(tmp_path: Path) -> None:
    evidence = Evidence(str(tmp_path / "notes"))
    children = [run(WRITER, evidence.path, f"child {n}", str(NOTES)) for n in range(2)]

    def write(kind: str) -> None:
        for number in range(NOTES):
            evidence.note(kind, number=number)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ("thread 0", "thread 1")))
    assert [child.wait(30) for child in children] == [0, 0]
    for kind in ("child 0", "child 1", "thread 0", "thread 1"):
        assert [note["number"] for note in evidence.read(kind)] == list(range(NOTES))
    assert evidence.pids() == {os.getpid(), *(child.pid for child in children)}


def test_a_note_says_when_and_where_and_keeps_numbers_exactly(tmp_path: Path) -> None:
    evidence = Evidence(str(tmp_path / "notes"))
    before_ns = utc_ns()
    evidence.note("said", value=0.1 + 0.2, tiny=5e-324)
    (note,) = evidence.read()
    assert before_ns <= note.t_ns <= utc_ns()
    assert (note.kind, note.pid, note.thread) == ("said", os.getpid(), threading.get_native_id())
    assert (note["value"], note["tiny"]) == (0.1 + 0.2, 5e-324)


def test_a_line_that_is_not_yet_whole_is_read_when_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    evidence = Evidence(str(path))
    evidence.note("first")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:10])
    assert evidence.count("first") == 1
    path.write_bytes(whole + whole)
    assert evidence.count("first") == 2


def test_a_copy_of_evidence_reads_all_of_it_anew(tmp_path: Path) -> None:
    evidence = Evidence(str(tmp_path / "notes"))
    evidence.note("first")
    assert evidence.count("first") == 1
    assert pickle.loads(pickle.dumps(evidence)).count("first") == 1


def test_a_gate_opened_by_another_process_frees_who_waits(tmp_path: Path) -> None:
    gate = Gate(str(tmp_path / "gate"))
    assert not gate.wait(0.01)
    assert not asyncio.run(gate.reached(0.01))
    opener = run("import sys; open(sys.argv[1], 'w').close()", gate.path)
    assert gate.wait(10.0)
    assert asyncio.run(gate.reached(0.0))
    assert opener.wait(10) == 0
    assert gate.close()
    assert not gate.close()
    assert not gate.is_open


def test_nobody_waits_for_a_test_that_is_over(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    gate, evidence = Gate(str(room / "gate")), Evidence(str(room / "notes"))
    shutil.rmtree(room)
    began_s = monotonic_s()
    assert gate.wait(10.0)
    assert monotonic_s() - began_s < 5.0
    evidence.note("late")
    assert evidence.read() == []


def test_two_meet_only_while_both_are_inside(tmp_path: Path) -> None:
    one, other = Meeting(str(tmp_path)), Meeting(str(tmp_path))
    one.enter("v2")
    one.leave("v2")
    other.enter("v4")
    assert not one.met
    one.enter("v2")
    assert one.met
    assert other.met


def test_a_thread_and_a_process_live_until_they_end(tmp_path: Path) -> None:
    gate, known = Gate(str(tmp_path / "gate")), list[int]()
    thread = threading.Thread(target=lambda: (known.append(threading.get_native_id()), gate.wait(10.0)))
    thread.start()
    while not known:
        gate.wait(0.001)
    assert thread_lives(os.getpid(), known[0])
    gate.open()
    thread.join()
    limit = Deadline(2.0)
    while thread_lives(os.getpid(), known[0]) and not limit.passed:
        pass
    assert not thread_lives(os.getpid(), known[0])
    child = run("pass")
    limit = Deadline(20.0)
    while process_lives(child.pid) and not limit.passed:
        pass
    assert not process_lives(child.pid)  # it has ended, and nobody has awaited it
    child.wait()


APPLY = """
import os
from importlib import import_module
module, _, function = os.environ["DUODAQ_PRELOAD"].partition(":")
getattr(import_module(module), function)()
from duodaq.bridge import ParameterTable
print(ParameterTable.mark_stale.__qualname__)
"""


@pytest.mark.parametrize(
    ("name", "ended"),
    [("entries_never_go_stale", "entries_never_go_stale.<locals>.<lambda>"), ("", "ParameterTable.mark_stale")],
)
def test_a_process_sabotages_itself_as_the_environment_says(name: str, ended: str) -> None:
    preload = "duodaq.testing.coexistence._sabotage:apply_from_environment"
    environment = {**os.environ, "DUODAQ_PRELOAD": preload, "DUODAQ_SABOTAGE": name}
    told = subprocess.run([sys.executable, "-c", APPLY], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == ended


def test_an_unknown_sabotage_is_no_sabotage_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from duodaq.testing.coexistence._sabotage import apply_from_environment

    load_sabotages()
    assert "no_such" not in SABOTAGES
    monkeypatch.setenv("DUODAQ_SABOTAGE", "no_such")
    with pytest.raises(LookupError, match="no_such"):
        apply_from_environment()


def test_the_launch_option_is_left_for_processes_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    from duodaq.testing.coexistence import _sabotage

    applied: list[str] = []
    monkeypatch.setenv("DUODAQ_PRELOAD", "")
    monkeypatch.setenv("DUODAQ_SABOTAGE", "")
    harmless = _sabotage.Sabotage("harmless", "", "", ("inline",), lambda: applied.append("here"))
    monkeypatch.setitem(SABOTAGES, "harmless", harmless)
    _sabotage.sabotage_everything("harmless")
    assert applied == ["here"]
    assert os.environ["DUODAQ_PRELOAD"] == "duodaq.testing.coexistence._sabotage:apply_from_environment"
    assert os.environ["DUODAQ_SABOTAGE"] == "harmless"
