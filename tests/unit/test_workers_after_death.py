"""What becomes of a dead worker's commands and settings, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from duodaq.model import (
    Cause,
    Command,
    Execute,
    Fate,
    GetParameter,
    InstrumentDefinition,
    PollDefinition,
    SafeAction,
    SetParameter,
    StartAcquisition,
    StopAcquisition,
)
from duodaq.workers._after_death import (
    Remembered,
    definition_for_replacement,
    differences,
    fate_after_death,
    waits_for_replacement,
)


def stanza(**facts: Any) -> InstrumentDefinition:
    return InstrumentDefinition("dmm", "v2", "mylab:Meter", **facts)


@pytest.mark.parametrize("requeue", [False, True])
@pytest.mark.parametrize(
    ("command", "moves"),
    [
        (GetParameter("nplc"), False),
        (SetParameter("nplc", 1), True),
        (Execute("home"), True),
        (StartAcquisition(), False),
        (StopAcquisition(), False),
    ],
    ids=lambda one: type(one).__name__,
)
def test_the_fate_of_a_command(command: Command, moves: bool, requeue: bool) -> None:
    definition = stanza(options={"requeue": requeue})
    not_done = moves and not requeue
    assert fate_after_death(True, command, definition) is Fate.UNKNOWN
    assert fate_after_death(False, command, definition) is (Fate.NOT_DONE if not_done else None)
    assert waits_for_replacement(command, definition) is not not_done


SET = {"range": 10}


@pytest.mark.parametrize(
    ("policy", "latched", "given", "withheld", "waiting"),
    [
        ("reapply", False, {"nplc": 1, "range": 10}, [], {}),
        ("withhold", False, {}, ["nplc", "range"], {}),
        ("ask", False, {}, ["nplc", "range"], {"nplc": 1, "range": 10}),
        ("ask", True, {}, ["nplc", "range"], {"nplc": 1, "range": 10}),
    ],
)
def test_the_settings_of_a_replacement(policy, latched, given, withheld, waiting) -> None:
    known = Remembered(settings=dict(SET))
    definition = stanza(settings={"nplc": 1}, options={"on_reconnect": policy})
    replaced, left_out = definition_for_replacement(definition, known, latched=latched)
    assert (replaced.settings, sorted(left_out), known.waiting) == (given, withheld, waiting)
    assert definition.settings == {"nplc": 1}


@pytest.mark.parametrize(
    ("policy", "kind", "given", "waiting"),
    [
        ("passive", "bytes", {"nplc": 1}, {"output": True}),
        ("passive", "call", {"nplc": 1}, {"output": True}),
        ("passive", "hold", {"nplc": 1, "output": True}, {}),
        ("reapply", "bytes", {"nplc": 1, "output": True}, {}),
    ],
)
def test_what_a_crash_action_made_safe_is_not_undone_unless_the_stanza_asks_for_it(
    policy, kind, given, waiting
) -> None:
    definition = stanza(
        settings={"nplc": 1, "output": True},
        passive=frozenset({"nplc"}),
        safe={Cause.CRASH: SafeAction(kind, call="off", data=b"OUTP OFF\n")},
        options={"on_reconnect": policy},
    )
    known = Remembered()
    replaced, _ = definition_for_replacement(definition, known, latched=False)
    assert (replaced.settings, known.waiting) == (given, waiting)


@pytest.mark.parametrize("policy", ["passive", "reapply"])
def test_what_was_asked_last_without_an_answer_is_not_undone(policy: str) -> None:
    known = Remembered()
    known.note(SetParameter("output", True))
    known.doubt(SetParameter("output", False))
    known.doubt(SetParameter("nplc", 10))
    definition = stanza(
        settings={"nplc": 1, "output": True}, passive=frozenset({"nplc"}), options={"on_reconnect": policy}
    )
    replaced, withheld = definition_for_replacement(definition, known, latched=False)
    assert (replaced.settings, withheld) == ({"nplc": 1}, ["output"])
    known.note(SetParameter("output", True))
    replaced, withheld = definition_for_replacement(definition, known, latched=False)
    assert (replaced.settings, withheld) == ({"nplc": 1, "output": True}, [])


def test_what_was_asked_last_is_remembered() -> None:
    known = Remembered()
    for command in (SetParameter("range", 1), SetParameter("range", 10), StartAcquisition({"rate": 5})):
        known.note(command)
    replaced, _ = definition_for_replacement(stanza(), known, latched=False)
    assert (known.settings, replaced.options["acquire"]) == ({"range": 10}, {"rate": 5})
    known.note(StopAcquisition())
    replaced, _ = definition_for_replacement(stanza(), known, latched=False)
    assert replaced.options["acquire"] is False


def test_a_replacement_tells_which_settings_are_not_what_they_were() -> None:
    definition = stanza(
        settings={"nplc": 1}, watched=("range", "level", "gain"), polls=(PollDefinition("level", 1.0, read="level"),)
    )
    before = {"nplc": 10, "range": 3, "level": 0.1, "gain": 1, "other": 5}
    after = {"nplc": 1, "range": 3, "level": 0.2, "other": 6}
    assert differences(definition, before, after) == {"nplc": 1}


@pytest.mark.parametrize("latched", [False, True])
@pytest.mark.parametrize("policy", ["passive", "reapply"])
def test_what_was_set_before_a_stop_waits_for_somebody_until_it_is_set_again(policy: str, latched: bool) -> None:
    definition = stanza(
        settings={"nplc": 1, "output": True}, passive=frozenset({"nplc"}), options={"on_reconnect": policy}
    )
    known = Remembered()
    known.note_stop(definition, streams=False)
    replaced, withheld = definition_for_replacement(definition, known, latched=latched)
    assert (replaced.settings, withheld, known.waiting) == ({"nplc": 1}, ["output"], {"output": True})
    known.note(SetParameter("output", True))
    replaced, _ = definition_for_replacement(definition, known, latched=False)
    assert (replaced.settings, known.waiting) == ({"nplc": 1, "output": True}, {})


@pytest.mark.parametrize("streams", [False, True])
def test_a_stream_that_emits_does_not_begin_again_after_a_stop(streams: bool) -> None:
    known = Remembered()
    known.note(StartAcquisition({"rate": 5}))
    known.note_stop(stanza(), streams=streams)
    replaced, _ = definition_for_replacement(stanza(), known, latched=False)
    assert replaced.options["acquire"] == (False if streams else {"rate": 5})
