"""What the manager and a worker say to each other arrives as it was said; nothing dangerous comes out of a parcel."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import functools
import os
import pathlib
import pickle
import threading
import typing
import uuid
from typing import Any

import msgspec
import numpy as np
import pytest

from duodaq import clock
from duodaq.errors import DataError, PortBusyError, RefusedError
from duodaq.link import BlobRef
from duodaq.model import (
    ChannelInfo,
    ComponentReport,
    Execute,
    GetParameter,
    InstrumentState,
    InstrumentStatus,
    Outcome,
    ParameterEntry,
    ReadChannel,
    RuntimeStatus,
    Scalar,
    SetParameter,
    Stop,
)
from duodaq.ports import Block488, FixedLength, Lines, LockOutcome, LockVerdict, Terminated, TerminatedOrBlock
from duodaq.ports import _sentences as said
from duodaq.workers import _messages as m

ERROR = {"classes": ["RefusedError"], "text": "no", "facts": {"code": 7}}
ENTRY = ParameterEntry("stage", "x.position", 1.5, "mm", 7, 3, "v4")
STATUS = InstrumentStatus("stage", "v4", InstrumentState.READY, port="p")
SEAT = said.SeatFacts(3, 0.2, None, True, False)
FROM_MANAGER = [
    m.Make(1, b"plan"),
    m.Ask(2**62, "command", "body", "trace"),
    m.Order(2**62, "stage", Execute("move", (1.5, "x", None)), 2.0, "trace"),
    m.Order(1, "stage", SetParameter("level", b"\x00")),
    m.Cancel(1),
    m.Probe(1),
    said.Granted(1),
    said.Granted(1, ERROR),
    said.Ended(1, b"reply\n", ERROR),
    said.Written(1, 2**62),
    said.Heard(1, b"\x00\xff"),
    m.Stops("p", 4),
    m.Lost("p"),
    m.PortIs("p"),
    said.Stopped(1, 7, None),
    said.LockTold(1, LockOutcome(LockVerdict.DONE, "key", "shared", "visa:a.py[1]")),
    said.LockTold(1, None, ERROR),
    m.Known(ENTRY),
    m.Taken(5),
    m.Taken(5, [1, 2]),
    m.Credit([1, 2]),
    m.NeighbourAnswer(1, 2.5, None, None),
]
FROM_WORKER = [
    m.Made(ERROR),
    m.Answer(4, reading=Scalar("dmm", "voltage", "V", 1, 0, 1.5, "v2")),
    m.Answer(1, 2.5, None, None),
    m.Answer(1, None, ERROR, ERROR),
    m.Alive(1),
    m.Snapshot(RuntimeStatus.RUNNING, [STATUS], [ChannelInfo("stage", "x", "mm")]),
    m.Figures(None),
    said.TicketAsk(1, "p", "me", 2, None, 5),
    said.TicketEnd(1),
    said.Exchanged(1, "p", b"A?\n", True, 1.0, False, True, 4, None, seat=SEAT, holder="me"),
    said.SeatEnd(1, True),
    said.Reading(1, False),
    said.Abandoned(1),
    said.Suspect("p", True),
    said.StopPort(1, "p", None, "stop", True),
    said.LockAsk(1, "p", SEAT, "me", "shared", "key", 2.0),
    said.LockWithdrawn(1),
    m.Put("stage", "x", 1, "mm"),
    m.Kept("stage", "x.velocity", 2.0),
    m.Nature("stage", True),
    m.Stale("stage"),
    m.Rows([Scalar("dmm", "voltage", "V", 1, 0, -0.0, "v2", {"range": 10})]),
    m.Item(1, BlobRef(1, 64, 24, "<f8", (3,))),
    m.Batch(b"body", BlobRef(1, 64, 24, "|u1", (24,))),
    m.Ring(2**30),
    m.Log("duodaq.x", 20, "line"),
    m.NeighbourAsk(1, "rig", "stage", "command", 1.0, None),
    m.RecorderAsk(1, "start", None),
]


@pytest.mark.parametrize(
    ("result", "as_it_is"),
    [
        (Scalar("dmm", "voltage", "V", 2**62, 7, 1.5, "v2"), True),
        (Scalar("dmm", "voltage", "µV", 1, 0, float("inf"), "v4"), True),
        (Scalar("dmm", "voltage", "V", 1, 0, 1.5, "v2", {"late": True}), False),
        (Scalar("dmm", "voltage", "V", 1, 0, np.float64(1.5), "v2"), False),
        (Scalar("dmm", "voltage", "\udcb5V", 1, 0, 1.5, "v2"), False),
        (1.5, False),
        (None, False),
    ],
)
def test_a_result_arrives_as_it_was_and_one_measured_number_without_a_pickle(result: Any, as_it_is: bool) -> None:
    answer = m.decode_from_worker(m.encode(m.answer_with(3, result)))
    assert (answer.number, answer.result, type(answer.result)) == (3, result, type(result))
    assert (answer.reading is not None) is as_it_is


def test_every_sentence_has_an_example_here() -> None:
    assert {type(one) for one in FROM_MANAGER} == set(typing.get_args(m.FromManager))
    assert {type(one) for one in FROM_WORKER} == set(typing.get_args(m.FromWorker))


@pytest.mark.parametrize("said", FROM_MANAGER, ids=lambda one: type(one).__name__)
def test_what_the_manager_says_arrives_as_it_was_said(said: m.Message) -> None:
    assert m.decode_from_manager(m.encode(said)) == said
    with pytest.raises(msgspec.MsgspecError):
        m.decode_from_worker(m.encode(said))


@pytest.mark.parametrize("said", FROM_WORKER, ids=lambda one: type(one).__name__)
def test_what_a_worker_says_arrives_as_it_was_said(said: m.Message) -> None:
    assert m.decode_from_worker(m.encode(said)) == said
    with pytest.raises(msgspec.MsgspecError):
        m.decode_from_manager(m.encode(said))


VALUES = [
    None, True, -0.0, float("inf"), "µ", b"\x00", 2**63 - 1, -(2**63), 2**63, -(2**70), 1j,
    (1, (2, [3])), [(1,)], {"a": (1,)}, {1: 2}, {1, 2}, frozenset({1}), bytearray(b"x"), slice(1, 2), range(1, 9, 2),
    "\udcff no text",
    collections.OrderedDict(a=1), collections.deque([1], maxlen=2), collections.Counter("aab"),
    collections.defaultdict(list, {"a": [1]}),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(1), datetime.date(2026, 1, 2),
    decimal.Decimal("1.10"), fractions.Fraction(1, 3), uuid.UUID(int=5), pathlib.PurePosixPath("/a/b"),
    np.float64(1.5), np.int16(-3), np.bool_(True), np.datetime64("2026-01-02"),
    Execute("move", (1.5, (2,)), {"a": None}), STATUS, InstrumentState.HUNG, ENTRY,
    (ComponentReport("v2.dmm", Outcome.CLEAN),),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_out_of_its_parcel_as_it_went_in(value: Any) -> None:
    came = m.unpack(m.decode_from_worker(m.encode(m.Answer(1, m.result_parcel(value)))).body)
    assert type(came) is type(value)
    assert came == value
    told = m.unpack_trusted(m.decode_from_manager(m.encode(m.Ask(1, "command", m.parcel(value)))).body)
    assert type(told) is type(value)
    assert told == value


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_command_that_is_ordered_arrives_as_it_was_given(value: Any) -> None:
    for command in (SetParameter("level", value), Execute("move", (1, value)), Execute("move", (value,), {"a": value})):
        if m.may_be_ordered(command):
            came = m.decode_from_manager(m.encode(m.Order(1, "stage", command))).command
            assert repr(came) == repr(command)  # says more than equality: 1 is no True, a tuple no list


def test_most_commands_are_ordered() -> None:
    ordered = [Execute("move", (1.5, -3, True, None, "µm", b"\xff")), SetParameter("level", 2), GetParameter("level")]
    assert all(map(m.may_be_ordered, [*ordered, ReadChannel("voltage")]))
    kinds = [Execute("move", kwargs={"to": 1}), Execute("move", ((1, 2),)), SetParameter("level", 2**63), Stop()]
    assert not any(map(m.may_be_ordered, kinds))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">u2").reshape(2, 3),
        np.arange(30.0)[::2],
        np.asfortranarray(np.ones((3, 4))),
        np.zeros(0),
        np.array(5),
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([None, "x", (1,)], dtype=object),
        np.array(["2026-01-02"], dtype="datetime64[ns]"),
        np.ma.masked_array([1, 2], mask=[True, False]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_comes_out_of_its_parcel_as_it_went_in(array: np.ndarray) -> None:
    came = m.unpack(m.result_parcel(array))
    assert type(came) is type(array)
    assert came.dtype == array.dtype
    np.testing.assert_array_equal(came, array)


def test_a_framing_comes_out_of_its_parcel() -> None:
    for made in (Terminated(b";"), TerminatedOrBlock(b";"), Lines(1, b";"), FixedLength(2), Block488()):
        framing = m.unpack(m.result_parcel(made))
        assert type(framing) is type(made)
        text = b"#11a\n" if isinstance(made, Block488) else b"a;"
        assert framing.feed(text) == text
    message = m.unpack(m.result_parcel(TerminatedOrBlock()))
    assert message.feed(b"1,#11\n\n") == b"1,#11\n\n"


class OfADriver:
    """A class of a driver's own."""


class Says:
    """Pickles as a call of `what`."""

    def __init__(self, what: Any, *args: Any) -> None:
        self.call = (what, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("value", [OfADriver(), [OfADriver], {"a": OfADriver}, lambda: 1, Says(len, "a")])
def test_what_is_a_drivers_own_is_refused_in_the_worker_with_what_to_return_instead(value: Any) -> None:
    with pytest.raises(DataError, match="return plain values"):
        m.result_parcel(value)


def test_what_cannot_be_pickled_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="lock does not travel"):
        m.parcel(threading.Lock())


def named(module: str, name: str) -> msgspec.msgpack.Ext:
    """A pickle that holds nothing but that name."""
    strings = b"".join(b"\x8c" + bytes([len(one)]) + one.encode() for one in (module, name))
    return msgspec.msgpack.Ext(1, b"\x80\x05" + strings + b"\x93.")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("builtins", "dict.fromkeys"),
        ("functools", "partial"),
        ("subprocess", "Popen"),
        ("collections", "namedtuple"),
        ("collections", "_sys"),
        ("pathlib", "os"),
        ("decimal", "sys"),
        ("numpy", "load"),
        ("numpy", "memmap"),
        ("numpy", "os"),
        ("numpy.testing", "runstring"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy", "ndarray.tofile"),
        ("numpy.ctypeslib", "load_library"),
        ("duodaq.clock", "block"),
        ("duodaq.workers._worker_main", "leave"),
        ("duodaq.workers._fork_child", "call_named"),
        ("duodaq.workers._messages", "unpack_trusted"),
        ("duodaq.workers._messages", "pickle"),
        ("duodaq.workers._process", "os"),
        ("duodaq.v2.families", "load"),
        ("duodaq.v2", "V2Runtime"),
        ("duodaq.sim.__main__", "main"),
        ("duodaq.ports", "Broker"),
        ("duodaq.model._life", "msgspec"),
        ("mylab.chopper", "Chopper"),
        ("__main__", "Chopper"),
    ],
)
def test_a_name_that_is_none_of_values_is_refused_before_it_is_called(module: str, name: str) -> None:
    with pytest.raises(DataError):
        m.unpack(named(module, name))


@pytest.mark.parametrize(
    "attack",
    [
        Says(os.system, "true"),
        Says(eval, "1"),
        Says(functools.partial, os.system, "true"),
        Says(functools.partial, int, "1"),
        Says(np.load, "/dev/null"),
        Says(clock.block, 0.0),
        Says(getattr, (), "__class__"),
        Says(os._exit, 3),
    ],
    ids=lambda attack: getattr(attack.call[0], "__qualname__", "partial"),
)
def test_a_parcel_cannot_call_anything(attack: Says) -> None:
    with pytest.raises(DataError):
        m.unpack(msgspec.msgpack.Ext(1, pickle.dumps(attack)))


def test_a_range_too_long_to_be_made_a_list_of_is_refused() -> None:
    with pytest.raises(DataError):
        m.unpack(m.parcel(Says(list, range(2**40))))


@pytest.mark.parametrize("data", [b"", b".", b"\x80\x05", b"garbage", b"\x80\x05N", pickle.dumps([1])[:-3]])
def test_a_parcel_that_is_none_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        m.unpack(msgspec.msgpack.Ext(1, data))
    with pytest.raises(DataError, match="unknown kind 5"):
        m.unpack(msgspec.msgpack.Ext(5, data))


def test_a_text_that_is_none_is_spelled_out_in_words_about_it() -> None:
    status = msgspec.structs.replace(STATUS, message="said \udcff")
    said = m.Snapshot(RuntimeStatus.RUNNING, [status], [])
    came = m.decode_from_worker(m.encode(said))
    assert came.instruments[0].message == "said \\udcff"
    error = m.Answer(1, None, *m.error_parts(RefusedError("no: \udc80")))
    assert "no: \\udc80" in m.decode_from_worker(m.encode(error)).error["text"]


def test_an_error_arrives_with_its_class_its_facts_and_its_cause() -> None:
    busy = PortBusyError("not free", holder="scan", held_s=1.5, port="p")
    busy.__cause__ = ZeroDivisionError("by what")
    error, cause = m.decode_from_worker(m.encode(m.Answer(1, None, *m.error_parts(busy)))).error, None
    came = m.error_of(error, cause)
    assert isinstance(came, PortBusyError)
    assert (came.holder, came.held_s, came.__cause__) == ("scan", 1.5, None)
    answer = m.decode_from_worker(m.encode(m.Answer(1, None, *m.error_parts(busy))))
    cause_came = m.error_of(answer.error, answer.cause).__cause__
    assert isinstance(cause_came, ZeroDivisionError)
    assert str(cause_came) == "by what"


def test_an_error_of_a_drivers_own_class_arrives_as_the_nearest_that_is_known() -> None:
    class DriftError(ValueError):
        pass

    came = m.error_of(*m.error_parts(DriftError("too far")))
    assert type(came) is ValueError
    assert str(came) == "DriftError: too far"
