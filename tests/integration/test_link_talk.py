"""Talks over a control socket: without a thread or a loop at the client's end, and what ends them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from duodaq.clock import Deadline, block, monotonic_s
from duodaq.errors import DataError, DeliveryError, LifecycleError, PortLostError, PortTimeoutError
from duodaq.link import LAB_PROTOCOL, BlockingTalk, LinkClient, News, encode, find_lab
from duodaq.model import PortDefinition
from duodaq.ports import LabPorts
from duodaq.ports import _sentences as said
from duodaq.testing._scripted_port import Answer, ScriptedTransport
from duodaq.testing._visa_lab import BlockCodec, VisaLab


def device(line: bytes) -> bytes | Answer | None:
    if line == b"SLOW?":
        return Answer(b"SLOW=late\n", 0.2)
    return line[:-1] + b"=ok\n" if line.endswith(b"?") and line != b"MUTE?" else None


@pytest.fixture
def lab() -> Iterator[VisaLab]:
    made = VisaLab("outside")
    made.add(
        PortDefinition("p", serial={"path": "x"}, codec="block", timeout_s=1.0, options={"quiet_s": 0.02}),
        BlockCodec(),
        ScriptedTransport(device),
    )
    made.serve()
    yield made
    made.close()


@pytest.fixture
def ports(lab: VisaLab) -> Iterator[LabPorts]:
    made = LabPorts(find_lab(lab.name), LAB_PROTOCOL)
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.sock"


def until(condition: Any, limit_s: float = 5.0) -> None:
    ends = Deadline(limit_s)
    while not condition():
        assert not ends.passed, "it did not come to that"
        block(0.002)


def served(path: Path, answer: Callable[[socket.socket], None]) -> threading.Thread:
    """A server of one client, whose end of the connection `answer` gets."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        with listener, listener.accept()[0] as end:
            end.recv(1000)
            answer(end)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def talk(path: Path, version: int = LAB_PROTOCOL, topic: str = "ports") -> BlockingTalk:
    return BlockingTalk(path, version, topic, lambda _: None, lambda _: None)


def test_who_speaks_another_version_or_of_something_else_is_refused_with_the_reason(lab: VisaLab) -> None:
    with pytest.raises(LifecycleError, match="version"):
        talk(find_lab(lab.name), LAB_PROTOCOL + 1)
    with pytest.raises(LifecycleError, match="nothing to be said about 'weather'"):
        talk(find_lab(lab.name), topic="weather")


def test_nobody_there_is_said_so(path: Path) -> None:
    with pytest.raises(LifecycleError, match="nobody serves"):
        talk(path)


def test_a_server_that_hangs_up_or_says_nothing_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duodaq.link._talk._HELLO_S", 0.2)
    thread = served(path, lambda _: None)
    with pytest.raises(LifecycleError, match="hung up"):
        talk(path)
    thread.join(5)
    path.unlink()
    go_on = threading.Event()
    thread = served(path, lambda _: go_on.wait(5) and None)
    with pytest.raises(LifecycleError, match="no answer"):
        talk(path)
    go_on.set()
    thread.join(5)


@pytest.mark.parametrize("rubbish", [b"\xff\xff\xff\xff", b"\x01\x00\x00\x00\xc1", encode(5), encode(["said"])])
def test_a_server_that_says_rubbish_ends_the_talk(path: Path, rubbish: bytes) -> None:
    def answer(end: socket.socket) -> None:
        end.sendall(encode(("hello", LAB_PROTOCOL, 1)) + encode(("talking", "ports")))
        end.recv(100)
        end.sendall(rubbish)
        end.recv(100)

    thread = served(path, answer)
    why: list[str] = []
    made = BlockingTalk(path, LAB_PROTOCOL, "ports", lambda _: None, why.append)
    made.send(b"go on")
    news = News()
    with news:
        until(lambda: made.await_news(news, 0.05) or not made.alive)
    assert "makes no sense" in why[0]
    with pytest.raises(DeliveryError, match="over"):
        made.send(b"x")
    made.close()
    thread.join(5)


def test_whoever_waits_reads_for_all_and_nobody_is_forgotten(lab: VisaLab, ports: LabPorts) -> None:
    """One reads for the others, and leaves first; one of those must read on."""
    wrong: list[Any] = []

    def use(number: int) -> None:
        session = ports.session("p", f"user {number}", impatient=True)
        for turn in range(30):
            word = b"N%dT%d" % (number, turn)
            session.write(b"SLOW?\n" if number == 0 and turn % 15 == 3 else word + b"?\n")
            got, _ = session.read_message(100, b"\n", 10.0)
            if got not in (word + b"=ok\n", b"SLOW=late\n"):
                wrong.append(got)
        session.close()

    threads = [threading.Thread(target=use, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == []


def test_who_waits_when_the_lab_hangs_up_or_the_program_leaves_is_told_at_once(lab: VisaLab, ports: LabPorts) -> None:
    for leave in (lambda: ports.close(), lambda: lab.run(lab.end_server())):
        with_ports = ports if ports.alive else LabPorts(find_lab(lab.name), LAB_PROTOCOL)
        ended: list[Any] = []

        def wait(mine: LabPorts = with_ports, ended: list[Any] = ended) -> None:
            session = mine.session("p", "who waits", impatient=True)
            try:
                session.read_message(10, b"\n", 20.0)
            except PortLostError as error:
                ended.append(error)

        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        pipe = with_ports._talk._pipe
        until(lambda pipe=pipe: len(pipe._waiting) == 2)
        began = monotonic_s()
        leave()
        for thread in threads:
            thread.join(10)
        assert len(ended) == 3
        assert monotonic_s() - began < 3.0
        with_ports.close()


def test_a_session_that_is_made_when_the_connection_is_over_is_over_too(lab: VisaLab, ports: LabPorts) -> None:
    ports.close()
    session = ports.session("p", "late")
    began = monotonic_s()
    with pytest.raises(PortLostError, match="over"):
        session.read_message(10, b"\n", 10.0)
    assert monotonic_s() - began < 5


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_program_that_forks_does_not_speak_on_its_parents_connection(lab: VisaLab, ports: LabPorts) -> None:
    session = ports.session("p", "parent", impatient=True)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # nothing but this in the child
        try:
            session.write(b"A?\n")
            os.write(write, b"it spoke")
        except DeliveryError as error:
            os.write(write, str(error).encode() + (b" alive" if ports.alive else b" dead"))
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as told:
        answer = told.read()
    assert b"belongs to process" in answer
    assert answer.endswith(b" dead")
    session.write(b"A?\n")
    assert session.read_message(10, b"\n")[0] == b"A=ok\n"


FORGED: dict[str, Any] = {
    "no sentence": b"\xc1",
    "another's sentence": msgspec.msgpack.encode(["m", 1, b""]),
    "a stop": said.StopPort(1, "p", None, "me", True),
    "a framing of its own": said.Exchanged(1, "p", b"A?\n", ["x"], 1.0, False, False, None, None),
    "no such port": said.LockAsk(1, "q", said.SeatFacts(1, None, None, False, False), "me", "shared"),
    "no such lock": said.LockAsk(1, "p", said.SeatFacts(1, None, None, False, False), "me", "forever"),
}


@pytest.mark.parametrize("sentence", FORGED.values(), ids=list(FORGED))
def test_a_program_that_says_what_it_may_not_is_disconnected_and_nothing_is_written(
    lab: VisaLab, sentence: Any
) -> None:
    ended: list[str] = []
    made = BlockingTalk(find_lab(lab.name), LAB_PROTOCOL, "ports", lambda _: None, ended.append)
    made.send(sentence if isinstance(sentence, bytes) else msgspec.msgpack.encode(sentence))
    news = News()
    with news:
        until(lambda: made.await_news(news, 0.05) or not made.alive)
    assert ended == ["the lab hung up"]
    assert lab.broker.log("p") == () or all(record.direction == "!" for record in lab.broker.log("p"))
    assert lab.exchange(b"A?\n") == b"A=ok\n"


def test_no_program_outside_passes_a_latched_stop(lab: VisaLab, ports: LabPorts) -> None:
    lab.broker.latch("the test")
    made: list[Any] = []
    one = BlockingTalk(find_lab(lab.name), LAB_PROTOCOL, "ports", made.append, lambda _: None)
    one.send(msgspec.msgpack.encode(said.Exchanged(1, "p", b"MV 1\n", True, 1.0, False, False, None, None, lane=0)))
    news = News()
    with news:
        until(lambda: one.await_news(news, 0.05) or len(made) > 1)
    ended = msgspec.msgpack.decode(made[-1], type=said.Ended)
    assert ended.error is not None
    assert "UnsafeStateError" in ended.error["classes"]
    one.close()


def test_an_exchange_that_is_never_answered_ends_by_its_deadline(lab: VisaLab, ports: LabPorts) -> None:
    session = ports.session("p", "impatient", impatient=True)
    session.timeout_s = 0.3
    session.write(b"MUTE?\n")
    began = monotonic_s()
    with pytest.raises(PortTimeoutError):
        session.read_message(10, b"\n")
    assert monotonic_s() - began < 2.0
    with pytest.raises(DataError, match="only what the port's codec says"):
        ports.send(said.Exchanged(1, "p", b"A?\n", ports._lines.pack(object()), 1.0, False, False, None, None))


async def test_requests_go_on_beside_a_talk_of_the_same_client_program(lab: VisaLab) -> None:
    client = await LinkClient.open(find_lab(lab.name), version=LAB_PROTOCOL)
    with pytest.raises(ValueError, match="ports and nothing else"):
        await client.request("status")
    await client.aclose()
