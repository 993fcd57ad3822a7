"""Which drivers travel before their stanzas, and that the stanzas come together again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from duodaq.model import Cause, InstrumentDefinition, PollDefinition, SafeAction
from duodaq.workers._plan import drivers_ahead, with_drivers, without_drivers


class Driver:
    pass


class Other:
    pass


class Mode(msgspec.Struct):
    fast: bool = True


PLAIN = InstrumentDefinition("plain", "v2", Driver, args={"rate": 3}, safe={Cause.CRASH: SafeAction("call", call="go")})
NAMED = InstrumentDefinition("named", "v2", "mylab.chopper:Chopper")


def test_stanzas_come_together_again() -> None:
    ahead = drivers_ahead([PLAIN, NAMED])
    assert ahead == {"plain": Driver}
    sent = without_drivers([PLAIN, NAMED], ahead)
    assert Driver not in [one.driver for one in sent]
    assert sent[1] is NAMED
    assert with_drivers(sent, ahead) == (PLAIN, NAMED)


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
    assert drivers_ahead([replace(PLAIN, **facts)]) == {}


def test_driver_that_was_exchanged_meanwhile_is_the_one_that_comes() -> None:
    ahead = drivers_ahead([PLAIN])
    changed = replace(PLAIN, driver=Other)
    assert with_drivers(without_drivers([changed], ahead), ahead) == (changed,)
