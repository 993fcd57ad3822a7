"""For which driver call a thread speaks that makes none itself: what a stop refuses it, and whose replies it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from duodaq.clock import Deadline, block
from duodaq.errors import PortTimeoutError, ReplyTimeoutError, StoppedError
from duodaq.model import Fate, PortDefinition
from duodaq.ports import BlockingSession
from duodaq.testing._scripted_port import Answer, ScriptedCodec, ScriptedTransport
from duodaq.testing._visa_lab import VisaLab

Worker = Callable[..., Future[Any]]


def _answer(line: bytes) -> Answer | None:
    after_s = float(line[5:-1]) / 1000 if line.startswith(b"SLOW ") else 0.0
    return Answer(line[:-1] + b"=ok\n", after_s) if line.endswith(b"?") else None


@pytest.fixture
def device() -> ScriptedTransport:
    return ScriptedTransport(_answer)


@pytest.fixture(params=["scripted", None], ids=["codec", "raw"])
def spoken(request: pytest.FixtureRequest) -> str | None:
    return request.param


@pytest.fixture
def lab(device: ScriptedTransport, spoken: str | None) -> Iterator[VisaLab]:
    made = VisaLab("manager")
    facts: dict[str, Any] = {"timeout_s": 1.0, "options": {"quiet_s": 0.01}, "idle_ms": None if spoken else 20}
    made.add(PortDefinition("p", codec=spoken, **facts), ScriptedCodec() if spoken else None, device)
    yield made
    made.close()


@pytest.fixture
def session(lab: VisaLab) -> Iterator[BlockingSession]:
    made = lab.broker.session("p", "driver")
    yield made
    made.close()


@pytest.fixture
def other() -> Iterator[Worker]:
    """Runs what it is given in a thread that lives on, as a driver's own may."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


def stop(lab: VisaLab) -> None:
    lab.run(lab.broker.stop("p", b"ST\n"))


def overdue_call(session: BlockingSession, work: Callable[[], Any], *, moving: bool = True) -> None:
    """A call that does `work`, and is not done in time."""

    def call() -> None:
        with session.call(moving=moving):
            work()
            raise ReplyTimeoutError("it is not done in time", fate=Fate.UNKNOWN)

    with pytest.raises(ReplyTimeoutError):
        call()


def moves(device: ScriptedTransport) -> list[bytes]:
    return [line for line in device.lines if line.startswith(b"MV")]


def test_a_thread_of_a_call_that_timed_out_is_refused_after_a_stop(
    lab: VisaLab, session: BlockingSession, device: ScriptedTransport, other: Worker
) -> None:
    overdue_call(session, lambda: other(session.write, b"MV 1\n").result())
    other(session.write, b"MV 2\n").result()
    stop(lab)
    for _ in range(2):
        with pytest.raises(StoppedError):
            other(session.write, b"MV 3\n").result()
    assert moves(device) == [b"MV 1", b"MV 2"]


@pytest.mark.parametrize("moving", [False, True])
def test_it_is_refused_within_later_calls_too_until_it_was_told_and_a_call_may_move(
    lab: VisaLab, session: BlockingSession, device: ScriptedTransport, other: Worker, moving: bool
) -> None:
    overdue_call(session, lambda: other(session.write, b"MV 1\n").result())
    stop(lab)
    for _ in range(1 if moving else 2):
        with session.call(moving=moving):
            for _ in range(2):
                with pytest.raises(StoppedError):
                    other(session.write, b"MV 2\n").result()
    with session.call(moving=True):
        other(session.write, b"MV 3\n").result()
    assert moves(device) == [b"MV 1", b"MV 3"]


def test_a_thread_that_first_writes_when_its_call_has_timed_out_is_refused_after_a_stop(
    lab: VisaLab, session: BlockingSession, device: ScriptedTransport, other: Worker
) -> None:
    overdue_call(session, lambda: None)
    stop(lab)
    with pytest.raises(StoppedError):
        other(session.write, b"MV 1\n").result()
    assert moves(device) == []


def test_a_thread_that_serves_every_call_serves_those_after_a_stop(
    lab: VisaLab, session: BlockingSession, device: ScriptedTransport, other: Worker
) -> None:
    for number in (1, 2):
        with session.call(moving=True):
            other(session.write, b"MV %d\n" % number).result()
        stop(lab)
        with session.call():
            other(session.write, b"LOOK\n").result()
    assert moves(device) == [b"MV 1", b"MV 2"]
    assert device.lines.count(b"LOOK") == 2


def test_a_thread_that_goes_on_after_its_call_returned_is_refused_after_a_stop_until_the_next(
    lab: VisaLab, session: BlockingSession, device: ScriptedTransport, other: Worker, spoken: str | None
) -> None:
    with session.call(moving=True):
        other(session.write, b"MV 1\n").result()
    stop(lab)
    with pytest.raises(StoppedError):
        other(session.write, b"MV 2\n").result()
    if spoken:
        with session.call(), pytest.raises(StoppedError):  # a poll allows nothing
            other(session.write, b"MV 3\n").result()
    with session.call(moving=True):
        other(session.write, b"MV 4\n").result()
    assert moves(device) == [b"MV 1", b"MV 4"]


def test_a_session_without_calls_writes_after_a_stop(
    lab: VisaLab, session: BlockingSession, device: ScriptedTransport, other: Worker
) -> None:
    session.write(b"MV 1\n")
    stop(lab)
    session.write(b"MV 2\n")
    other(session.write, b"MV 3\n").result()
    assert moves(device) == [b"MV 1", b"MV 2", b"MV 3"]


@pytest.mark.parametrize("spoken", ["scripted"], indirect=True)
class TestReplies:
    def test_what_a_thread_asked_for_a_call_that_timed_out_answers_no_later_question(
        self, session: BlockingSession, other: Worker, device: ScriptedTransport
    ) -> None:
        overdue_call(session, lambda: other(session.write, b"A?\n").result())
        with session.call():
            session.write(b"B?\n")
            assert session.read_until(b"\n", 1) == b"B=ok\n"
        with pytest.raises(PortTimeoutError, match="another one has asked"):
            other(session.read_until, b"\n", 0.1).result()
        other(session.write, b"C?\n").result()
        assert other(session.read_until, b"\n", 1).result() == b"C=ok\n"

    def test_a_thread_that_waits_for_that_reply_is_told_and_gets_no_other(
        self, session: BlockingSession, other: Worker, device: ScriptedTransport
    ) -> None:
        waiting: list[Future[bytes]] = []

        def ask() -> bytes:
            session.write(b"SLOW 150?\n")
            return session.read_until(b"\n", 5)

        def begin() -> None:
            waiting.append(other(ask))
            limit = Deadline(5)
            while not device.lines and not limit.passed:
                block(0.002)

        overdue_call(session, begin)
        with session.call():
            session.write(b"B?\n")
            assert session.read_until(b"\n", 1) == b"B=ok\n"
        with pytest.raises(PortTimeoutError, match="another one has asked"):
            waiting[0].result(5)

    def test_it_cannot_ask_while_another_one_waits_for_a_reply(
        self, session: BlockingSession, other: Worker, device: ScriptedTransport
    ) -> None:
        overdue_call(session, lambda: other(session.write, b"LOOK\n").result())
        with session.call():
            session.write(b"B?\n")
            with pytest.raises(PortTimeoutError, match="another one is asking"):
                other(session.write, b"A?\n").result()
            assert session.read_until(b"\n", 1) == b"B=ok\n"
        assert device.lines == [b"LOOK", b"B?"]
        other(session.write, b"A?\n").result()
        assert other(session.read_until, b"\n", 1).result() == b"A=ok\n"

    def test_a_reply_that_was_left_by_a_call_that_returned_is_still_read(
        self, session: BlockingSession, other: Worker, device: ScriptedTransport
    ) -> None:
        with session.call():
            other(session.write, b"A?\n").result()
        with session.call():
            session.write(b"B?\n")
            assert [session.read_until(b"\n", 1) for _ in "AB"] == [b"A=ok\n", b"B=ok\n"]
