"""What has to be done so that a running lab becomes what its file says: the comparison alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from duodaq.config import LabPlan, load_lab, plan_change
from duodaq.config._spelling import instrument_keys, toml
from duodaq.errors import ConfigError
from duodaq.model import AxisDefinition, Cause, InstrumentDefinition, LabDefinition, PollDefinition, SafeAction

LAB = """\
[lab]
name = "bench"

[ports.a]
tcp = "127.0.0.1:5001"
codec = "scpi"

[ports.b]
tcp = "127.0.0.1:5002"
codec = "scpi"

[instruments.one]
runtime = "v2"
driver = "./dial.py:Dial"
port = "a"
poll.angle = { call = "angle", unit = "deg", every = "500 ms" }
safe = { shutdown = "stop" }
stop = "OFF\\n"

[instruments.two]
runtime = "v2"
driver = "./dial.py:Dial"
port = "a"

[instruments.three]
runtime = "v4"
driver = "duodaq:ScpiActor"
port = "b"

[instruments.sum]
runtime = "v2"
driver = "./dial.py:Sum"
args = { first = "@one" }
"""

Planned = Callable[..., LabPlan]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dial.py").write_text(
        "class Dial:\n    gain = 1.0\n\n    def angle(self): ...\n\n\nclass Sum:\n    def __init__(self, first): ...\n"
    )
    return tmp_path


@pytest.fixture
def read(folder: Path) -> Callable[[str], LabDefinition]:
    def lab(text: str) -> LabDefinition:
        (folder / "lab.toml").write_text(text)
        return load_lab(folder / "lab.toml")

    return lab


@pytest.fixture
def planned(read: Callable[[str], LabDefinition]) -> Planned:
    """The plan from the lab above to the same with some texts replaced, and others put behind it."""

    def plan(*changes: tuple[str, str], more: str = "") -> LabPlan:
        text = LAB
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        return plan_change(read(LAB), read(text + more))

    return plan


def steps(plan: LabPlan) -> list[list[str]]:
    return [[f"{s.what} {s.subject} {s.name}" for s in unit.steps] for unit in plan.units]


def stanza(name: str) -> str:
    """The lines of one stanza."""
    begin = LAB.index(f"[{name}]")
    end = LAB.find("\n[", begin)
    return LAB[begin : end + 1 if end >= 0 else len(LAB)]


def test_a_lab_that_is_as_its_file_says_needs_nothing(planned: Planned) -> None:
    plan = planned()
    assert plan.empty
    assert (plan.units, plan.refused, plan.notes) == ((), (), ())


def test_a_changed_key_is_named_with_its_value_before_and_after_and_touches_one_instrument(planned: Planned) -> None:
    plan = planned(('every = "500 ms"', 'every = "2 s"'), ('stop = "OFF\\n"', 'stop = "OFF\\r"'))
    assert steps(plan) == [["change instrument one"]]
    (stop, poll) = plan.units[0].steps[0].keys
    assert (stop.key, stop.before, stop.after) == ("stop", '"OFF\\n"', '"OFF\\r"')
    assert (poll.key, poll.before, poll.after) == ("poll.angle.every", '"500 ms"', '"2 s"')


def test_an_instrument_that_comes_and_one_that_goes_are_steps_of_their_own_the_one_that_goes_first(
    planned: Planned,
) -> None:
    new = '[instruments.four]\nruntime = "v2"\ndriver = "./dial.py:Dial"\nport = "b"\n'
    plan = planned((stanza("instruments.two"), ""), more=new)
    assert steps(plan) == [["remove instrument two"], ["add instrument four"]]
    assert {one.key for one in plan.units[1].steps[0].keys} >= {"driver", "port", "runtime"}
    assert any("two goes" in note and "nothing is sent to it" in note for note in plan.notes)


def test_who_goes_with_a_safe_action_is_said_to_take_it_first(planned: Planned) -> None:
    plan = planned((stanza("instruments.one"), ""), ('"@one"', '"nobody"'))
    told = "no stop reaches it afterwards; first takes its safe state: its stop bytes b'OFF\\n' (safe.shutdown)"
    assert f"one goes: {told}" in plan.notes


def test_a_port_that_is_opened_anew_takes_along_all_that_is_on_it_and_nobody_else(planned: Planned) -> None:
    plan = planned(("127.0.0.1:5001", "127.0.0.1:6001"))
    assert [sorted(unit) for unit in steps(plan)] == [
        ["change port a", "restart instrument one", "restart instrument two"]
    ]
    assert {s.why for s in plan.units[0].steps if s.subject == "instrument"} == {"its port a is opened anew"}
    assert any("stand or fall together" in note for note in plan.notes)
    first = "one first takes its safe state: its stop bytes b'OFF\\n' (safe.shutdown), since its port is opened anew"
    assert [note for note in plan.notes if "safe state" in note] == [first], "two holds"
    assert first in plan.to_dict()["notes"]


def test_what_is_called_or_written_to_make_safe_is_said_in_the_plan_and_an_unchanged_port_asks_nothing(
    planned: Planned,
) -> None:
    call = ('safe = { shutdown = "stop" }', 'safe = { shutdown = { call = "angle" } }')
    plan = planned(call)
    assert not [note for note in plan.notes if "safe state" in note], "its port stays open"
    for kind, said in ((SafeAction("call", call="off"), "call off"), (SafeAction("bytes", data=b"OUT 0"), "b'OUT 0'")):
        before = plan.before
        one = replace(before.instruments[0], safe={Cause.SHUTDOWN: kind})
        before = replace(before, instruments=(one, *before.instruments[1:]))
        port = replace(before.ports[0], timeout_s=9.0)
        notes = plan_change(before, replace(before, ports=(port, *before.ports[1:]))).notes
        assert any(note.startswith("one first takes its safe state: ") and said in note for note in notes)


def test_a_new_port_is_opened_before_who_uses_it_and_an_old_one_closed_behind_who_left_it(planned: Planned) -> None:
    plan = planned(
        (stanza("ports.b"), '[ports.c]\ntcp = "127.0.0.1:5003"\ncodec = "scpi"\n\n'), ('port = "b"', 'port = "c"')
    )
    assert steps(plan) == [["add port c"], ["change instrument three"], ["remove port b"]]


def test_a_port_under_another_name_is_closed_before_its_line_is_opened_again(planned: Planned) -> None:
    plan = planned(("[ports.b]", "[ports.c]"), ('port = "b"', 'port = "c"'))
    assert [sorted(unit) for unit in steps(plan)] == [["add port c", "change instrument three", "remove port b"]]


def test_who_opens_a_device_itself_that_a_port_gives_up_waits_for_that(planned: Planned) -> None:
    plan = planned(
        (stanza("ports.b"), ""), (stanza("instruments.three"), ""), ('first = "@one"', 'first = "127.0.0.1:5002"')
    )
    assert [sorted(unit) for unit in steps(plan)] == [
        ["remove instrument three"],
        ["change instrument sum", "remove port b"],
    ]


def test_who_asks_one_that_is_new_or_gone_begins_anew_behind_it(planned: Planned, read: Any) -> None:
    plan = planned(('"@one"', '"@five"'), more='[instruments.five]\nruntime = "v2"\ndriver = "./dial.py:Dial"\n')
    assert steps(plan) == [["add instrument five"], ["change instrument sum"]]
    without = read(LAB.replace(stanza("instruments.one"), ""))
    assert steps(plan_change(without, read(LAB))) == [["add instrument one"], ["restart instrument sum"]]
    gone = plan_change(read(LAB), without)
    assert steps(gone) == [["remove instrument one"], ["restart instrument sum"]]
    assert gone.units[1].steps[0].why == "it asked one, which goes"


def test_new_ones_come_up_in_the_order_in_which_they_ask_each_other(planned: Planned) -> None:
    def new(name: str, asks: str) -> str:
        args = f'args = {{ first = "@{asks}" }}\n' if asks else ""
        return f'[instruments.{name}]\nruntime = "v2"\ndriver = "./dial.py:Sum"\n{args}'

    plan = planned(more=new("x", "y") + new("y", "z") + new("z", ""))
    assert steps(plan) == [["add instrument z"], ["add instrument y"], ["add instrument x"]]


def test_a_move_to_the_other_runtime_is_refused_whole_and_named_a_migration(planned: Planned) -> None:
    plan = planned(
        (
            'runtime = "v4"\ndriver = "duodaq:ScpiActor"',
            'runtime = "v2"\ndriver = "./dial.py:Dial"\npassive = true',
        )
    )
    assert plan.empty
    (refusal,) = plan.refused
    assert refusal.key == "instruments.three.runtime"
    assert "migration" in refusal.why
    assert "duodaq migrate" in refusal.remedy
    assert {one.id: one.runtime for one in plan.target.instruments}["three"] == "v4"


def test_what_stays_keeps_its_port_and_that_is_refused_too(planned: Planned) -> None:
    plan = planned(('driver = "duodaq:ScpiActor"', 'driver = "duodaq:ScpiActor"\nworker = "thread"'), ("5002", "6002"))
    assert [one.key for one in plan.refused] == ["instruments.three.worker", "ports.b"]
    assert plan.empty
    assert [one.tcp for one in plan.target.ports] == ["127.0.0.1:5001", "127.0.0.1:5002"]


def test_a_file_that_what_stays_would_contradict_is_refused(planned: Planned) -> None:
    with pytest.raises(ConfigError, match="three would stay as it is, and then"):
        planned(
            ('driver = "duodaq:ScpiActor"', 'driver = "duodaq:ScpiActor"\nworker = "thread"'),
            ("[ports.b]", "[ports.c]"),
            ('port = "b"', 'port = "c"'),
        )


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('[runtimes.v2]\nworker = "thread"\n', "runtimes.v2.worker"),
        ("[web]\nport = 8555\n", "web.port"),
        ('[web]\ntoken = "0123456789abcdef"\n', "web.token"),
        ("[metrics]\nport = 9555\n", "metrics.port"),
        ('[logging]\nfile = "lab.log"\n', "logging"),
        ('[flight_recorder]\nlast = "30 s"\n', "flight_recorder.last"),
    ],
)
def test_what_is_laid_down_at_the_start_is_refused_by_its_key(planned: Planned, more: str, key: str) -> None:
    plan = planned(more=more)
    assert plan.empty
    assert [one.key for one in plan.refused] == [key]
    assert "0123456789abcdef" not in str(plan.to_dict())


def test_alarms_and_what_the_lab_does_with_recordings_are_taken_over(planned: Planned) -> None:
    alarm = '[alarms.turned]\nchannel = "one.angle"\nlow = 0.0\n'
    plan = planned(
        ('name = "bench"', 'name = "bench"\nrecording = "data"\nshutdown = "4 s"\nfinalise = ["parquet"]'), more=alarm
    )
    assert not plan.units
    (step,) = plan.alarms
    assert (step.what, step.name) == ("add", "turned")
    assert {one.key: one.after for one in step.keys} == {"channel": '"one.angle"', "low": "0"}
    assert {one.key for one in plan.lab} == {"lab.recording", "lab.shutdown", "lab.finalise"}


def test_another_lab_and_another_folder_are_no_change_of_this_one(read: Any, tmp_path: Path) -> None:
    lab = read(LAB)
    with pytest.raises(ConfigError, match='describes the lab "other", and the one that runs is "bench"'):
        plan_change(lab, replace(lab, name="other"))
    with pytest.raises(ConfigError, match="paths in a lab file are relative to its folder"):
        plan_change(lab, replace(lab, directory=tmp_path / "elsewhere"))


def test_two_plans_that_differ_have_two_digests(planned: Planned) -> None:
    one, other = planned(("5001", "6001")), planned(("5001", "6002"))
    assert one.digest != other.digest
    assert one.digest == planned(("5001", "6001")).digest


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (12, "12"),
        (0.05, "0.05"),
        ('a "b" \\', '"a \\"b\\" \\\\"'),
        (b"ST\r\n", '"ST\\r\\n"'),
        ((0, 25.0), "[0, 25]"),
        (frozenset({"b", "a"}), '["a", "b"]'),
        ({"call": "shut", "args": [1]}, '{ call = "shut", args = [1] }'),
        ("\x00µ", '"\\u0000µ"'),
    ],
)
def test_values_are_spelled_as_in_a_lab_file(value: Any, text: str) -> None:
    assert toml(value) == text


ANOTHER: dict[str, Any] = {
    "runtime": "v4",
    "driver": "./dial.py:Sum",
    "port": "b",
    "args": {"first": 1},
    "settings": {"gain": 1},
    "watched": ("gain",),
    "polls": (PollDefinition("angle", 1.0, call="angle"),),
    "deadline_s": 7.0,
    "method_deadline_s": {"angle": 2.0},
    "kill_after_s": 3.0,
    "axes": (AxisDefinition("x", 1, "mm", (0.0, 5.0)),),
    "safe": {Cause.SHUTDOWN: SafeAction("stop")},
    "stop": b"OFF\n",
    "passive": True,
    "worker": "own",
    "required": True,
    "autostart": False,
    "options": {"restart": "never"},
    "limits": {"gain": (0.0, 5.0)},
}


def test_every_field_of_an_instrument_is_in_its_spelling() -> None:
    plain = InstrumentDefinition("one", "v2", "./dial.py:Dial", port="a")
    assert ANOTHER.keys() == {one.name for one in fields(plain)} - {"id", "epoch", "numbers", "base_dir"}
    spelled = [instrument_keys(plain), *(instrument_keys(replace(plain, **{k: v})) for k, v in ANOTHER.items())]
    assert all(one != other for one, other in combinations(spelled, 2))


def test_changed_limits_are_shown_and_two_such_plans_are_told_apart(planned: Planned) -> None:
    changes = [planned((stanza("instruments.two"), stanza("instruments.two") + limit)) for limit in LIMITS]
    keys = [(key.key, key.before, key.after) for plan in changes for key in plan.units[0].steps[0].keys]
    assert keys == [("limits.gain", None, "[0, 5]"), ("limits.gain", None, "[0, 500]")]
    assert changes[0].digest != changes[1].digest


LIMITS = ("limits.gain = [0, 5]\n", "limits.gain = [0, 500]\n")
