"""Which stanzas travel before the word to start them, and that what is started is what they are by then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from duodaq.model import Cause, InstrumentDefinition, PollDefinition, SafeAction
from duodaq.workers._plan import stanzas_ahead, started, to_start


class Driver:
    pass


class Other:
    pass


class Mode(msgspec.Struct):
    fast: bool = True


PLAIN = InstrumentDefinition("plain", "v2", Driver, args={"rate": 3}, safe={Cause.CRASH: SafeAction("call", call="go")})
NAMED = InstrumentDefinition("named", "v2", "mylab.chopper:Chopper")


def test_stanzas_that_went_ahead_are_started_by_their_names() -> None:
    ahead = stanzas_ahead([PLAIN, NAMED])
    stanzas = to_start([PLAIN, NAMED], ahead)
    assert stanzas == ("plain", "named")
    assert started(stanzas, ahead) == (PLAIN, NAMED)


@pytest.mark.parametrize(
    "facts",
    [
        {"args": {"mode": Mode()}},
        {"options": {"mode": Mode()}},
        {"settings": {"mode": Mode()}},
        {"safe": {Cause.CRASH: SafeAction("call", call="go", args=(Mode(),))}},
        {"polls": (PollDefinition("a", 1.0, call="get", args=(Mode(),)),)},
    ],
)
def test_what_a_notebook_defined_travels_as_a_whole(facts: dict[str, Any]) -> None:
    assert stanzas_ahead([replace(PLAIN, **facts)]) == {}


@pytest.mark.parametrize("facts", [{"driver": Other}, {"settings": {"rate": 4}}, {"args": {}}, {"passive": True}])
def test_stanza_that_was_changed_meanwhile_is_started_as_it_is_now(facts: dict[str, Any]) -> None:
    ahead = stanzas_ahead([PLAIN])
    changed = replace(PLAIN, **facts)
    assert started(to_start([changed], ahead), ahead) == (changed,)


def test_driver_never_makes_a_second_journey() -> None:
    (sent,) = to_start([replace(PLAIN, settings={"rate": 4})], stanzas_ahead([PLAIN]))
    assert isinstance(sent, InstrumentDefinition)
    assert sent.driver is not Driver


def test_stanza_that_came_meanwhile_is_started_too() -> None:
    assert started(to_start([PLAIN, NAMED], stanzas_ahead([PLAIN])), stanzas_ahead([PLAIN])) == (PLAIN, NAMED)
