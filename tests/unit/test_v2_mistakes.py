"""A mistake in a driver's program is told as what it is; what the driver raises to say no is a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from duodaq.errors import InstrumentError, RefusedError
from duodaq.model import Execute, InstrumentDefinition
from duodaq.v2._fault import typed_error
from duodaq.v2._host import DriverHost


class Driver:
    def misspelt(self) -> Any:
        return self.seril

    def forgotten(self) -> Any:
        return speed  # noqa: F821 - the driver's mistake

    def adds_up(self) -> Any:
        return "speed " + 3

    def deep(self) -> Any:
        return json.loads(None)  # it raises on purpose, but the driver does not

    def says_no(self) -> Any:
        raise TypeError("a speed is a number")

    def says_no_again(self) -> Any:
        try:
            return self.misspelt()
        except AttributeError as error:
            raise AttributeError("no such speed") from error

    def looks_up(self) -> Any:
        return {"FAST": 1}["SLOW"]

    def divides(self) -> Any:
        return 1 / 0

    def understands(self) -> Any:
        return float(b"")


def raised_by(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011  - whatever it is
        call()
    return caught.value


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("misspelt", "AttributeError: 'Driver' object has no attribute 'seril'"),
        ("forgotten", "NameError: name 'speed' is not defined"),
        ("adds_up", "TypeError: can only concatenate str"),
        ("deep", "TypeError: the JSON object must be"),
    ],
)
def test_a_mistake_in_a_driver_is_told_with_its_line(name: str, words: str) -> None:
    method = getattr(Driver(), name)
    typed = typed_error(raised_by(method), "chopper", name)
    assert type(typed) is InstrumentError
    line = method.__func__.__code__.co_firstlineno + 1
    assert f"the driver's own code failed: {words}" in str(typed)
    assert f"at {__file__}:{line}" in str(typed)
    assert "said no" not in str(typed)


@pytest.mark.parametrize("name", ["says_no", "says_no_again", "looks_up"])
def test_what_a_driver_raises_itself_is_a_refusal(name: str) -> None:
    typed = typed_error(raised_by(getattr(Driver(), name)), "chopper", name)
    assert type(typed) is RefusedError
    assert "the driver said no" in str(typed)


@pytest.mark.parametrize(
    ("name", "kind"), [("divides", "raised Zero"), ("understands", "said no"), ("looks_up", "said no")]
)
def test_what_breaks_off_in_a_driver_has_its_line_and_what_it_says_itself_has_none(name: str, kind: str) -> None:
    method = getattr(Driver(), name)
    typed = str(typed_error(raised_by(method), "chopper", name))
    assert f"the driver {kind}" in typed
    assert f", at {__file__}:{method.__func__.__code__.co_firstlineno + 1}" in typed
    assert __file__ not in str(typed_error(raised_by(Driver().says_no), "chopper", "says_no"))


@pytest.mark.parametrize(("name", "args"), [("nothing", ()), ("says_no", (1,)), ("forgotten", (1, 2))])
def test_who_asks_for_what_there_is_not_is_refused(name: str, args: tuple[Any, ...]) -> None:
    host = DriverHost(InstrumentDefinition("chopper", "v2", Driver), lambda port, holder: None)
    host.connect()
    with ThreadPoolExecutor(1) as thread:  # as its own thread does: none of this file's lines is in the traceback
        error = thread.submit(host.execute, Execute(name, args)).exception()
    assert error is not None
    assert type(typed_error(error, "chopper", name)) is RefusedError
