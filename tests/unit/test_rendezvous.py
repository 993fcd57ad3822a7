"""Where labs meet their clients: one lock and one socket each, that survive nobody's death."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from duodaq.errors import LifecycleError
from duodaq.link import LinkClient, LinkServer
from duodaq.link._rendezvous import LabLock, find_lab, process_of, running_labs, socket_path


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "duodaq"


def serve(name: str) -> LabLock:
    lock = LabLock(name)
    lock.socket.touch()
    return lock


def test_the_place_is_for_this_user_alone(own_place: Path) -> None:
    assert socket_path("lab").parent == own_place
    assert own_place.stat().st_mode & 0o777 == 0o700
    own_place.chmod(0o755)
    with pytest.raises(LifecycleError, match="must belong to you alone"):
        socket_path("lab")


def test_a_second_lab_of_one_name_is_refused_with_the_first_ones_process() -> None:
    first = LabLock("optics")
    with pytest.raises(LifecycleError, match=f"'optics' is running already, as process {os.getpid()} — attach"):
        LabLock("optics")
    first.release()
    LabLock("optics").release()


def test_looking_for_labs_never_keeps_one_from_starting() -> None:
    LabLock("optics").release()
    socket_path("optics").touch()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            running_labs()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(50):
            LabLock("optics").release()
            socket_path("optics").touch()
    finally:
        over.set()
        looking.join()


def test_a_lock_goes_with_its_process_and_what_it_left_is_no_obstacle() -> None:
    program = "from duodaq.link._rendezvous import LabLock; LabLock('optics').socket.touch(); import os; os._exit(9)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    assert socket_path("optics").exists()
    assert running_labs() == []
    with pytest.raises(LifecycleError, match="no lab is running — start one with: duodaq run"):
        find_lab()
    LabLock("optics").release()


def test_the_only_lab_needs_no_name_and_several_are_listed() -> None:
    first = serve("optics")
    assert find_lab() == first.socket
    second = serve("vacuum")
    with pytest.raises(LifecycleError, match="several labs are running — name one of: optics, vacuum"):
        find_lab()
    assert find_lab("vacuum") == second.socket
    with pytest.raises(LifecycleError, match="no lab 'laser' is running — name one of: optics, vacuum"):
        find_lab("laser")
    first.release()
    second.release()
    assert running_labs() == []


def test_odd_names_make_no_odd_paths(own_place: Path) -> None:
    assert socket_path("../a b/ü").parent == own_place


async def test_another_version_of_the_protocol_is_refused_in_a_sentence() -> None:
    async def handle(op: str, params: object) -> None: ...

    lock = LabLock("optics")
    server = LinkServer(lock.socket, handle, version=2)
    await server.start()
    try:
        with pytest.raises(LifecycleError, match="speaks version 2 of its protocol, this program 1"):
            await LinkClient.open(lock.socket, version=1)
    finally:
        await server.aclose()
        lock.release()


def test_labs_of_alike_names_have_sockets_of_their_own() -> None:
    names = ["a b", "a_b", "a/b", "a%20b", "µ-lab", "a.b"]
    locks = [LabLock(name) for name in names]
    try:
        assert len({lock.socket for lock in locks}) == len(names)
        for lock in locks:
            lock.socket.touch()
        assert running_labs() == sorted(names)
        assert [find_lab(name) for name in names] == [lock.socket for lock in locks]
    finally:
        for lock in locks:
            lock.release()


def test_the_next_lab_is_told_how_the_last_one_of_its_name_ended() -> None:
    first = LabLock("optics")
    assert first.last is None
    first.release("forced")
    second = LabLock("optics")
    assert second.last is not None
    assert (second.last.pid, second.last.ended) == (os.getpid(), "forced")
    second.release()
    third = LabLock("optics")
    assert third.last is not None
    assert third.last.ended == "clean"
    third.release("forced")
    elsewhere = LabLock("optics", "/labs/two words\n/lab.toml")
    assert elsewhere.last is None
    elsewhere.release("forced")
    again = LabLock("optics", "/labs/two words\n/lab.toml")
    assert again.last is not None
    assert again.last.ended == "forced"
    assert process_of("optics") == os.getpid()
    third = again
    third.release()


def test_of_one_that_died_without_a_word_it_is_told_until_when_it_was_alive() -> None:
    program = """
import os
from duodaq.link import LabLock
lock = LabLock("optics")
os.utime(lock._file, (1.0, 1.0))
lock.note_alive()
os._exit(9)
"""
    begun_ns = time.time_ns()
    ended = subprocess.Popen([sys.executable, "-c", program])
    assert ended.wait(60) == 9
    lock = LabLock("optics")
    assert lock.last is not None
    assert (lock.last.pid, lock.last.ended) == (ended.pid, "died")
    assert begun_ns - 10**8 < lock.last.seen_ns <= time.time_ns()  # files have the time of the last tick
    lock.release()
