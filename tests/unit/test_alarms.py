"""Alarms: what they see of both runtimes' data, whom they tell, and what they do."""

from __future__ import annotations

import asyncio
import http.server
import json
import logging
import math
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from duodaq.alarms import Alarms, Machine, Messenger, Notice, _messenger
from duodaq.clock import Deadline, block, pause, utc_ns
from duodaq.errors import LifecycleError
from duodaq.model import AlarmDefinition, AlarmState, MailDefinition, Scalar
from duodaq.schema import scalar_batch, stage_batch
from duodaq.testing import virtual_time
from duodaq.v2 import DataDistributor
from duodaq.v4 import DataPublisher

NS = 1_000_000_000


def alarm(**facts: Any) -> AlarmDefinition:
    return AlarmDefinition(**{"name": "hot", "instrument": "dmm", "channel": "voltage", **facts})


def machine(**facts: Any) -> Machine:
    return Machine(alarm(**facts), 0)


def test_hysteresis_keeps_it_raised_until_the_value_is_well_back() -> None:
    hot = machine(high=5.0, hysteresis=1.0)
    states = [(hot.value(n * NS, value), hot.state)[1] for n, value in enumerate((4.9, 5.1, 4.5, 4.01, 4.0))]
    assert states == ["normal", "raised", "raised", "raised", "normal"]


def test_what_is_over_is_told_by_its_worst_value_and_within_the_hysteresis_by_what_is_still_wanted() -> None:
    hot = machine(high=0.9, hysteresis=0.05, latch=True, unit="mW")
    values = (0.95, 1.2, 0.92, 0.86022)
    whys = [(hot.value(n * NS, value), hot.status().why)[1] for n, value in enumerate(values)]
    assert whys == [
        "0.95 mW is above 0.9 mW",
        "1.2 mW is above 0.9 mW",
        "0.92 mW is above 0.9 mW",
        "0.86022 mW is not yet below 0.85 mW after it was above 0.9 mW",
    ]
    change = hot.value(4 * NS, 0.3)
    assert change is not None
    assert (change.new, change.why, hot.status().why) == (
        "returned",
        "1.2 mW is above 0.9 mW",
        "1.2 mW is above 0.9 mW",
    )
    hot.acknowledge(5 * NS, "ada")
    hot.value(6 * NS, 0.91)
    change = hot.value(7 * NS, 0.1)
    assert change is not None
    assert change.why == "0.91 mW is above 0.9 mW", "what was before is over"


def test_the_worst_of_what_was_too_low_and_too_fast_is_told_when_nobody_needs_to_know() -> None:
    cold = machine(low=1.0, hysteresis=0.5, rate=1.0)
    for n, value in enumerate((2.0, 0.4, 0.8, 1.2)):
        cold.value(n * NS, value)
    assert cold.status().why == "1.2 is not yet above 1.5 after it was below 1"
    change = cold.value(4 * NS, 1.6)
    assert change is not None
    assert (change.new, change.why) == ("normal", "0.4 is below 1; it changes by -1.6 /s, faster than 1 /s")


def test_delay_forgives_what_is_short() -> None:
    hot = machine(high=5.0, delay_s=2.0)
    hot.value(0, 9.0)
    assert hot.state is AlarmState.PENDING
    hot.value(1 * NS, 1.0)
    hot.value(2 * NS, 9.0)
    assert hot.tick(3 * NS) is None
    change = hot.tick(4 * NS)
    assert change is not None
    assert (change.old, change.new, change.why) == ("pending", "raised", "9 is above 5")


def test_what_latches_waits_for_somebody() -> None:
    hot = machine(low=1.0, latch=True)
    hot.value(0, 0.5)
    hot.value(NS, 2.0)
    assert hot.state is AlarmState.RETURNED
    change = hot.acknowledge(2 * NS, "ada")
    assert change is not None
    assert (change.new, change.by) == ("normal", "ada")


def test_an_acknowledgement_is_for_what_was_wrong_then() -> None:
    hot = machine(high=5.0, rate=1.0)
    hot.value(0, 6.0)
    hot.acknowledge(NS, "ada")
    assert hot.state is AlarmState.ACKNOWLEDGED
    hot.value(2 * NS, 16.0)
    assert hot.state is AlarmState.RAISED
    assert hot.status().why == "16 is above 5; it changes by 5 /s, faster than 1 /s"
    assert hot.status().raised == 2


@pytest.mark.parametrize(("latch", "state", "by"), [(False, "acknowledged", "ada"), (True, "raised", "")])
def test_when_all_that_is_left_is_known_it_is_acknowledged_again_unless_it_latches(
    latch: bool, state: str, by: str
) -> None:
    hot = machine(high=5.0, stale_s=1.0, latch=latch)
    hot.value(0, 6.0)
    hot.acknowledge(0, "ada")
    hot.tick(2 * NS)
    assert (hot.state, hot.status().by) == ("raised", "")
    hot.value(3 * NS, 6.0)
    assert (hot.state, hot.status().by, hot.status().why) == (state, by, "6 is above 5")
    assert hot.status().raised == 2


def test_no_number_is_no_value() -> None:
    hot = machine(high=5.0, stale_s=3.0)
    hot.value(0, 6.0)
    hot.value(NS, math.nan)
    assert hot.state is AlarmState.RAISED
    hot.value(2 * NS, 1.0)
    for second in (3, 4, 5, 6):
        hot.value(second * NS, math.nan)
    hot.tick(6 * NS)
    assert hot.status().why == "no value for 3 s"


# ---- in the data ---------------------------------------------------------------------------------------------------


class Lab:
    def __init__(self, *definitions: AlarmDefinition) -> None:
        self.v2, self.v4 = DataDistributor(), DataPublisher()
        self.stopped = 0
        self.alarms = Alarms("lab", definitions, self.v2, self.v4, self.stop_all)
        self.changes = self.alarms.subscribe("test")
        self._numbers = iter(range(10**9))

    async def stop_all(self, who: str) -> None:
        self.stopped += 1
        assert who == "the alarm hot"

    def measure(self, value: float, unit: str = "V", channel: str = "voltage", origin: str = "v2") -> None:
        self.v2.publish(Scalar("dmm", channel, unit, utc_ns(), next(self._numbers), value, origin))

    async def states(self, count: int) -> list[str]:
        return [str((await self.changes.get(5.0)).new) for _ in range(count)]

    def state(self) -> AlarmState:
        return self.alarms.status()[0].state


@contextmanager
def hearing(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    logger = logging.getLogger("duodaq")
    before, logger.propagate = logger.propagate, True
    try:
        with caplog.at_level(logging.INFO, "duodaq"):
            yield
    finally:
        logger.propagate = before


@virtual_time
async def test_values_are_converted_to_the_alarms_unit() -> None:
    lab = Lab(alarm(high=5.0, unit="mV"))
    await lab.alarms.start()
    lab.measure(0.004)
    lab.measure(0.006)
    assert await lab.states(1) == ["raised"]
    status = lab.alarms.status()[0]
    assert (status.value, status.unit, status.why) == (pytest.approx(6.0), "mV", "6 mV is above 5 mV")
    assert await lab.alarms.close(1.0)


@virtual_time
async def test_a_value_at_its_limit_is_not_beyond_it_in_another_unit() -> None:
    lab = Lab(alarm(high=0.009, unit="kV"))
    await lab.alarms.start()
    lab.measure(9.0)
    lab.measure(10.0)
    change = await lab.changes.get(5.0)
    assert (change.new, change.value, change.why) == ("raised", 0.01, "0.01 kV is above 0.009 kV")
    assert await lab.alarms.close(1.0)


@virtual_time
async def test_an_alarm_that_cannot_be_evaluated_is_no_quiet_one() -> None:
    lab = Lab(alarm(high=5.0, unit="A"))
    await lab.alarms.start()
    lab.measure(0.0)
    assert await lab.states(1) == ["raised"]
    assert lab.alarms.status()[0].why == "its values are in V, which is no A"
    await lab.alarms.close(1.0)


@virtual_time
async def test_each_value_is_seen_once_on_the_side_where_it_was_measured() -> None:
    lab = Lab(
        alarm(high=5.0),
        alarm(name="far", instrument="stage", channel="x.position", high=2.0),
        alarm(name="warm", instrument="probe", channel="t", high=2.0),
    )
    await lab.alarms.start()
    lab.measure(9.0, origin="v4")
    t_ns = utc_ns()
    echo = Scalar("dmm", "voltage", "V", t_ns, 0, 9.0, "v2")
    lab.v4.publish(scalar_batch([echo], "v2"))
    lab.v4.publish(
        stage_batch(
            instrument="stage", channel="position", t_ns=[t_ns], sequence=[0], axis=["x"], position=[3.0],
            velocity=[None], state=["idle"], unit=["mm"],
        )
    )  # fmt: skip
    lab.v4.publish(scalar_batch([Scalar("probe", "t", "K", t_ns, 0, 3.0, "v4")], "v4"))
    assert await lab.states(2) == ["raised", "raised"]
    assert {one.name: str(one.state) for one in lab.alarms.status()} == {
        "hot": "normal", "far": "raised", "warm": "raised",
    }  # fmt: skip
    await lab.alarms.close(1.0)


async def test_silence_raises_it_and_a_value_ends_it() -> None:
    lab = Lab(alarm(stale_s=0.05))
    await lab.alarms.start()
    assert await lab.states(1) == ["raised"]
    lab.measure(1.0)
    assert await lab.states(1) == ["normal"]
    await lab.alarms.close(1.0)


@virtual_time
async def test_a_raised_alarm_stops_everything_once_and_holds_scans_until_acknowledged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lab = Lab(alarm(high=5.0, stop_all=True, pause_scan=True, latch=True, note="open the valve"))
    with hearing(caplog):
        await lab.alarms.start()
        for value in (6.0, 7.0, 1.0):
            lab.measure(value)
        assert await lab.states(2) == ["raised", "returned"]
        await pause(0.01)
        assert (lab.stopped, lab.alarms.holds) == (1, ("hot",))
        assert lab.alarms.acknowledge("hot", "ada").state is AlarmState.NORMAL
    assert lab.alarms.holds == ()
    said = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    assert [one["event"] for one in said] == ["alarm raised", "alarm returned", "alarm normal"]
    assert said[0]["why"] == "6 V is above 5 V"
    assert (said[0]["note"], said[2]["by"]) == ("open the valve", "ada")
    await lab.alarms.close(1.0)


@virtual_time
async def test_a_listener_that_fails_keeps_no_alarm_from_what_it_does(caplog: pytest.LogCaptureFixture) -> None:
    lab = Lab(alarm(high=5.0, stop_all=True))
    lab.alarms.listeners.append(lambda change: 1 / 0)
    with hearing(caplog):
        await lab.alarms.start()
        for value in (6.0, 1.0, 7.0):
            lab.measure(value)
        assert await lab.states(3) == ["raised", "normal", "raised"]
        await pause(0.01)
    assert lab.stopped == 2
    said = [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]
    assert said.count("somebody who listens to alarms failed") == 3
    await lab.alarms.close(1.0)


def test_who_acknowledges_what_is_not_there_learns_what_is() -> None:
    async def run() -> None:
        lab = Lab(alarm(high=5.0))
        with pytest.raises(LifecycleError, match="no alarm 'hott'; there are: hot"):
            lab.alarms.acknowledge("hott")
        assert lab.alarms.acknowledge("hot").state is AlarmState.NORMAL

    asyncio.run(run())


@virtual_time
async def test_a_flood_slows_no_instrument_and_what_is_wrong_at_its_end_is_seen() -> None:
    lab = Lab(alarm(high=5.0))
    await lab.alarms.start()
    await pause(0)
    for _ in range(70_000):
        lab.measure(1.0)
    lab.measure(9.0)
    assert await lab.states(1) == ["raised"]
    row = lab.v2.ledger().row("dmm.voltage", "alarms")
    assert row.produced == 70_001
    assert row.lost == 70_001 - 65_536
    assert row.balanced
    await lab.alarms.close(1.0)


# ---- who is told ---------------------------------------------------------------------------------------------------


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.heard.append(json.loads(body))
        self.send_response(server.answers.pop(0) if server.answers else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP as one message takes."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        in_message = False
        while line := self.rfile.readline():
            self.server.heard.append(line.rstrip().decode())
            if in_message:
                in_message = line != b".\r\n"
                reply = b"" if in_message else b"250 taken\r\n"
            elif line.upper().startswith(b"DATA"):
                in_message, reply = True, b"354 go on\r\n"
            else:
                reply = b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 fine\r\n"
            self.wfile.write(reply)
            if reply.startswith(b"221"):
                return


@contextmanager
def serving(handler: Any, server_class: Any) -> Iterator[Any]:
    with server_class(("127.0.0.1", 0), handler) as server:
        server.heard, server.answers = [], []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def messenger(mail: MailDefinition | None = None) -> Iterator[Messenger]:
    one = Messenger(mail, pauses_s=(0.01, 0.01))
    try:
        yield one
    finally:
        one.end()
        until(lambda: one.ended)


def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    ends = Deadline(limit_s)
    while not condition():
        assert not ends.passed
        block(0.002)


def test_a_webhook_is_sent_the_facts_and_tried_again_if_it_fails() -> None:
    with serving(Hook, http.server.HTTPServer) as server, messenger() as told:
        server.answers = [503]
        told.post(Notice("lab: alarm hot raised", {"alarm": "hot"}, f"http://127.0.0.1:{server.server_port}/hook"))
        until(lambda: told.sent["webhook"] == 1)
        assert server.heard == [{"text": "lab: alarm hot raised", "alarm": "hot"}] * 2
        assert told.failed["webhook"] == 0


def test_what_nobody_takes_is_logged_and_counted_and_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with hearing(caplog), messenger() as told:
        told.post(Notice("lab: alarm hot raised", {"alarm": "hot"}, "http://127.0.0.1:9/hook", ("a@b",)))
        until(lambda: told.failed == {"webhook": 1, "email": 1})
    said = [record.msg for record in caplog.records]
    assert sorted((one["event"], one["by"], one["alarm"]) for one in said) == [
        ("nobody was told of an alarm", "email", "hot"),
        ("nobody was told of an alarm", "webhook", "hot"),
    ]


@contextmanager
def silent() -> Iterator[str]:
    """An address that takes connections and never answers; at its end it hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_an_address_that_never_answers_holds_up_no_other_and_no_mail() -> None:
    with serving(Hook, http.server.HTTPServer) as hook, serving(Mailbox, socketserver.TCPServer) as post:
        mail = MailDefinition("127.0.0.1", post.server_address[1], "lab@example.org", security="none")
        with messenger(mail) as told, silent() as mute:
            told.post(Notice("gas", {"alarm": "gas"}, mute, ("ada@example.org",)))
            told.post(Notice("fire", {"alarm": "fire"}, f"http://127.0.0.1:{hook.server_port}/"))
            until(lambda: told.sent == {"webhook": 1, "email": 1})
            assert hook.heard == [{"text": "fire", "alarm": "fire"}]
            assert told.failed == {"webhook": 0, "email": 0}
            assert not told.ended
        assert told.failed == {"webhook": 1, "email": 0}


def test_threads_that_tell_and_notices_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_messenger, "_LINES", 2)
    monkeypatch.setattr(_messenger, "_WAITING", 3)
    with serving(Hook, http.server.HTTPServer) as hook, messenger() as told:
        with silent() as one, silent() as other:
            for mute in (one, other):
                told.post(Notice("gas", {}, mute))
            for number in range(10):
                told.post(Notice("fire", {"number": number}, f"http://127.0.0.1:{hook.server_port}/"))
            assert [thread.name for thread in threading.enumerate()].count("alarm messenger") == 2
            assert 4 <= told.failed["webhook"] <= 6, "three wait in each of two lines, if not one less"
        until(lambda: told.ended)
        assert len(hook.heard) == told.sent["webhook"] == 12 - told.failed["webhook"]
        told.post(Notice("over", {}, f"http://127.0.0.1:{hook.server_port}/"))
        until(lambda: hook.heard[-1] == {"text": "over"})


def test_mail_has_the_alarm_in_its_subject_and_the_facts_in_its_text() -> None:
    with serving(Mailbox, socketserver.TCPServer) as server:
        mail = MailDefinition("127.0.0.1", server.server_address[1], "lab@example.org", security="none")
        with messenger(mail) as told:
            told.post(Notice("lab: alarm hot raised", {"alarm": "hot", "why": "6 V"}, None, ("ada@example.org",)))
            until(lambda: told.sent["email"] == 1)
    said = "\n".join(server.heard)
    assert "rcpt to:<ada@example.org>" in said.lower()
    assert "Subject: lab: alarm hot raised" in said
    assert "why: 6 V" in said


@virtual_time
async def test_raised_and_over_are_told_and_nothing_between() -> None:
    with serving(Hook, http.server.HTTPServer) as server:
        lab = Lab(alarm(high=5.0, delay_s=0.0, webhook=f"http://127.0.0.1:{server.server_port}/"))
        await lab.alarms.start()
        for value in (6.0, 7.0, 1.0, 2.0):
            lab.measure(value)
        assert await lab.states(2) == ["raised", "normal"]
        await asyncio.to_thread(until, lambda: len(server.heard) == 2)
        assert [one["state"] for one in server.heard] == ["raised", "normal"]
        assert server.heard[0]["text"] == "lab: alarm hot raised: 6 V is above 5 V"
        assert await lab.alarms.close(5.0)


def test_an_alarm_that_ends_while_something_else_is_pending_is_told_to_be_over(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(alarm(high=5.0, rate=2.0, delay_s=1.0, webhook="http://127.0.0.1:9/"))
    told: list[str] = []
    monkeypatch.setattr(lab.alarms.messenger, "post", lambda notice: told.append(notice.facts["state"]))
    hot, begun_ns = lab.alarms._machines["hot"], utc_ns()
    with hearing(caplog):
        for second, value in ((0, 6.0), (1, 6.0), (2, 1.0), (3, 1.0)):  # it falls too fast, but not for long
            lab.alarms._changed(hot, hot.value(begun_ns + second * NS, value))
    assert hot.state is AlarmState.NORMAL
    assert told == ["raised", "pending"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
