"""VISA locks on shared ports: exclusive and shared, nested, across sessions, programs and the rest of the lab."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from duodaq.clock import Deadline, block, monotonic_s
from duodaq.errors import PortBusyError
from duodaq.model import PortDefinition
from duodaq.testing._scripted_port import Answer, ScriptedTransport
from duodaq.testing._visa_lab import BlockCodec, VisaLab

pyvisa = pytest.importorskip("pyvisa")
from pyvisa.constants import AccessModes, StatusCode  # noqa: E402 - it is an extra

EXCLUSIVE, SHARED, NONE = AccessModes.exclusive_lock, AccessModes.shared_lock, AccessModes.no_lock


def device(line: bytes) -> bytes | Answer | None:
    if line == b"SLOW?":
        return Answer(b"SLOW=late\n", 0.25)
    return line[:-1] + b"=ok\n" if line.endswith(b"?") else None


class Lab(VisaLab):
    def __init__(self, place: Any) -> None:
        super().__init__(place)
        self.line, self.raw = ScriptedTransport(device), ScriptedTransport(device)
        options = {"quiet_s": 0.02}
        self.add(PortDefinition("p", tcp="10.0.0.7:5025", codec="block", options=options), BlockCodec(), self.line)
        self.add(PortDefinition("raw", tcp="10.0.0.8:5025", idle_ms=20, options=options), None, self.raw)
        self.serve()
        self.manager = pyvisa.ResourceManager(self.address)
        self.manager.list_resources()

    def open(self, name: str = "p", mode: AccessModes = NONE, open_timeout: int = 0, **settings: Any) -> Any:
        asked = {"read_termination": "\n", "write_termination": "\n", **settings}
        return self.manager.open_resource(name, mode, open_timeout, **asked)

    def close(self) -> None:
        self.manager.close()
        super().close()


@pytest.fixture(scope="module", params=["manager", "worker", "outside"])
def shared_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    made = Lab(request.param)
    yield made
    made.close()


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    yield shared_lab
    for resource in shared_lab.manager.list_opened_resources():
        resource.close()
    assert shared_lab.exchange(b"END?\n") == b"END=ok\n"
    shared_lab.line.lines.clear()
    until(lambda: [status.holder for status in shared_lab.broker.status()] == [None, None])


@pytest.fixture
def outside() -> Iterator[Lab]:
    made = Lab("outside")
    yield made
    made.close()


def until(condition: Any, limit_s: float = 10.0) -> None:
    ends = Deadline(limit_s)
    while not condition():
        assert not ends.passed, "it did not come to that"
        block(0.002)


def code_of(work: Any) -> StatusCode:
    with pytest.raises(pyvisa.VisaIOError) as caught:
        work()
    return StatusCode(caught.value.error_code)


def in_thread(work: Any) -> tuple[threading.Thread, list[Any]]:
    """`work` under way in a thread; what it returns or raises comes into the list."""
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(work())
        except Exception as error:  # noqa: BLE001 - it is looked at by the test
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ended


def test_an_exclusive_lock_refuses_other_sessions_at_once_and_lets_the_rest_of_the_lab_wait(lab: Lab) -> None:
    one, other = lab.open(), lab.open(timeout=5000)
    one.lock_excl()
    assert (one.lock_state, other.lock_state) == (EXCLUSIVE, EXCLUSIVE)
    began = monotonic_s()
    with pytest.raises(pyvisa.VisaIOError, match="locked by") as refused:
        other.query("A?")
    assert refused.value.error_code == StatusCode.error_resource_locked
    assert monotonic_s() - began < 2.0
    with pytest.raises(PortBusyError, match="held by visa:"):
        lab.exchange(b"B?\n", wait_s=0.05)
    waiting = lab.begin(b"B?\n", wait_s=20)
    assert one.query("A?") == "A=ok"
    assert not waiting.done()
    one.unlock()
    assert waiting.result(5) == b"B=ok\n"
    assert other.query("C?") == "C=ok"
    assert one.lock_state == NONE


def test_locks_are_nested_and_counted(lab: Lab) -> None:
    one, other = lab.open(), lab.open()
    one.lock_excl()
    one.lock_excl()
    assert one.last_status == StatusCode.success_nested_exclusive
    one.unlock()
    assert one.last_status == StatusCode.success_nested_exclusive
    assert code_of(lambda: other.query("A?")) == StatusCode.error_resource_locked
    one.unlock()
    assert one.last_status == StatusCode.success
    assert other.query("A?") == "A=ok"
    assert code_of(one.unlock) == StatusCode.error_session_not_locked


def test_a_shared_lock_is_for_all_who_have_its_key(lab: Lab) -> None:
    one, other, stranger = lab.open(), lab.open(), lab.open()
    key = one.lock()
    assert key
    assert other.lock(requested_key=key) == key
    assert (one.lock_state, stranger.lock_state) == (SHARED, SHARED)
    assert [one.query("A?"), other.query("B?")] == ["A=ok", "B=ok"]
    assert code_of(lambda: stranger.query("C?")) == StatusCode.error_resource_locked
    assert code_of(lambda: stranger.lock(0)) == StatusCode.error_resource_locked
    assert code_of(lambda: stranger.lock(30, "another")) == StatusCode.error_timeout
    one.unlock()
    assert code_of(lambda: one.query("A?")) == StatusCode.error_resource_locked
    assert other.query("B?") == "B=ok"
    other.unlock()
    assert stranger.query("C?") == "C=ok"


def test_a_key_may_be_chosen_and_another_one_does_not_nest(lab: Lab) -> None:
    one = lab.open()
    assert one.lock(requested_key="ours") == "ours"
    assert one.lock(requested_key="ours") == "ours"
    assert one.last_status == StatusCode.success_nested_shared
    assert code_of(lambda: one.lock(requested_key="theirs")) == StatusCode.error_invalid_access_key
    assert code_of(lambda: one.lock(requested_key="x" * 300)) == StatusCode.error_invalid_access_key
    one.unlock()
    assert one.last_status == StatusCode.success_nested_shared
    one.unlock()
    assert one.last_status == StatusCode.success


def test_one_who_shares_may_lock_exclusively_besides(lab: Lab) -> None:
    one, other = lab.open(), lab.open()
    other.lock(requested_key=one.lock())
    one.lock_excl()
    assert one.lock_state == EXCLUSIVE
    assert one.query("A?") == "A=ok"
    assert code_of(lambda: other.query("B?")) == StatusCode.error_resource_locked
    assert code_of(lambda: other.lock_excl(30)) == StatusCode.error_timeout
    thread, ended = in_thread(lambda: (other.lock_excl(10_000), other.query("B?"))[1])
    one.unlock()
    assert one.last_status == StatusCode.success_nested_shared
    thread.join(10)
    assert ended == ["B=ok"]
    assert code_of(lambda: one.query("A?")) == StatusCode.error_resource_locked
    other.unlock()
    assert one.query("A?") == "A=ok"


def test_who_wants_a_lock_waits_for_it_in_turn_and_no_longer_than_he_said(lab: Lab) -> None:
    one, other = lab.open(), lab.open()
    one.lock_excl()
    began = monotonic_s()
    assert code_of(lambda: other.lock_excl(80)) == StatusCode.error_timeout
    assert 0.07 < monotonic_s() - began < 3.0
    assert code_of(lambda: other.lock_excl(0)) == StatusCode.error_resource_locked
    thread, ended = in_thread(lambda: (other.lock_excl(10_000), other.query("B?"))[1])
    until(lambda: lab.broker.status()[0].queue == 1)
    one.unlock()
    thread.join(10)
    assert ended == ["B=ok"]


def test_those_who_wait_with_the_key_of_a_shared_lock_join_it(lab: Lab) -> None:
    one, *others = (lab.open() for _ in range(4))
    one.lock_excl()
    threads = [in_thread(lambda other=other: other.lock(10_000, "ours")) for other in others]
    until(lambda: lab.broker.status()[0].queue == 3)
    one.unlock()
    for thread, ended in threads:
        thread.join(10)
        assert ended == ["ours"]
    assert {other.query("A?") for other in others} == {"A=ok"}


def test_the_context_of_a_lock_unlocks_whatever_happens_inside(lab: Lab) -> None:
    one = lab.open()
    with pytest.raises(ZeroDivisionError), one.lock_context():
        raise ZeroDivisionError
    with one.lock_context(requested_key="ours") as key:
        assert key == "ours"
    assert one.lock_state == NONE


def test_a_lock_goes_with_its_session(lab: Lab) -> None:
    one, other = lab.open(), lab.open()
    one.lock_excl()
    one.close()
    assert other.query("A?") == "A=ok"


def test_a_resource_is_opened_with_a_lock(lab: Lab) -> None:
    one, other = lab.open(mode=EXCLUSIVE), lab.open()
    assert code_of(lambda: other.query("A?")) == StatusCode.error_resource_locked
    assert code_of(lambda: lab.open(mode=EXCLUSIVE)) == StatusCode.error_resource_locked
    assert code_of(lambda: lab.open(mode=SHARED, open_timeout=50)) == StatusCode.error_timeout
    one.close()
    shared = [lab.open(mode=SHARED) for _ in range(2)]
    assert {resource.query("A?") for resource in shared} == {"A=ok"}
    assert code_of(lambda: other.query("A?")) == StatusCode.error_resource_locked


def test_a_stop_passes_a_lock(lab: Lab) -> None:
    one = lab.open()
    one.lock_excl()
    one.write("SLOW?")
    until(lambda: b"SLOW?" in lab.line.lines)
    lab.run(lab.broker.stop("p", b"ST\n"))
    assert lab.line.lines[:2] == [b"SLOW?", b"ST"]
    assert code_of(one.read) == StatusCode.error_abort
    assert one.query("A?") == "A=ok"
    one.write("MV 1")
    assert one.query("A?") == "A=ok"
    assert b"MV 1" in lab.line.lines


def test_a_lock_is_void_when_the_line_was_lost_until_it_is_unlocked(lab: Lab) -> None:
    one, other = lab.open(), lab.open()
    one.lock_excl()
    lab.call(lab.line.unplug)
    lab.line.replug()
    until(lambda: lab.broker.status()[0].state == "open")
    assert code_of(lambda: one.query("A?")) == StatusCode.error_connection_lost
    assert code_of(one.lock_excl) == StatusCode.error_connection_lost
    assert other.query("A?") == "A=ok"
    one.unlock()
    assert one.query("A?") == "A=ok"


def test_locks_work_on_a_port_without_a_codec(lab: Lab) -> None:
    one, other = lab.open("raw"), lab.open("raw")
    assert one.query("A?") == "A=ok"
    one.lock_excl(2000)
    assert one.query("A?") == "A=ok"
    lab.call(lambda: lab.raw.say(b"unasked\n"))
    assert one.read() == "unasked"
    assert code_of(lambda: other.query("A?")) == StatusCode.error_resource_locked
    one.unlock()
    assert other.query("B?") == "B=ok"


PROGRAM = """
import sys, pyvisa
manager = pyvisa.ResourceManager(sys.argv[1])
dmm = manager.open_resource("p", read_termination="\\n", write_termination="\\n")
if sys.argv[2] == "lock":
    dmm.lock_excl()
    dmm.query("MINE?")
elif sys.argv[2] == "share":
    dmm.lock(requested_key="ours")
elif sys.argv[2] == "ask":
    dmm.write("SLOW?")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def program(outside: Lab) -> Iterator[Any]:
    """Another program with a session on the port, which has done what it is told."""
    started: list[subprocess.Popen[str]] = []

    def start(what: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, outside.address, what]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        stdout = started[-1].stdout
        assert stdout is not None
        assert stdout.readline() == "ready\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_lock_of_another_program_goes_with_it_when_it_is_killed(outside: Lab, program: Any) -> None:
    other, mine = program("lock"), outside.open()
    assert outside.broker.status()[0].holder == f"visa:python[{other.pid}]"
    assert code_of(lambda: mine.query("A?")) == StatusCode.error_resource_locked
    waiting = outside.begin(b"B?\n", wait_s=20)
    os.kill(other.pid, signal.SIGKILL)
    assert waiting.result(5) == b"B=ok\n"
    assert mine.query("A?") == "A=ok"


def test_programs_share_a_lock_by_its_key(outside: Lab, program: Any) -> None:
    other, mine = program("share"), outside.open()
    assert code_of(lambda: mine.query("A?")) == StatusCode.error_resource_locked
    assert mine.lock(requested_key="ours") == "ours"
    os.kill(other.pid, signal.SIGKILL)
    other.wait(10)
    assert mine.query("A?") == "A=ok"
    assert mine.lock_state == SHARED


def test_a_program_killed_in_mid_exchange_gives_the_port_back_and_nobody_gets_its_reply(
    outside: Lab, program: Any
) -> None:
    other = program("ask")
    until(lambda: b"SLOW?" in outside.line.lines)
    os.kill(other.pid, signal.SIGKILL)
    began = monotonic_s()
    assert [outside.exchange(b"B%d?\n" % turn) for turn in range(3)] == [b"B%d=ok\n" % turn for turn in range(3)]
    assert monotonic_s() - began < 3.0
    assert outside.broker.status()[0].late == 1
    assert outside.open().query("A?") == "A=ok"
