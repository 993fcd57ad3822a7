"""Positions: each key of a TOML text is found on its line, however it is written."""

from __future__ import annotations

import textwrap
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duodaq.config._positions import KeyPath, Positions

TEXT = textwrap.dedent('''\
    # a comment with [brackets] and = signs
    [ports.stage]   # another
    serial = { path = "/dev/ttyUSB0", baud = 19200 }
    codec = "esp300"

    [ports."with.dot"]
    note = """
    [not.a.table]
    key = 3
    """
    after = 1

    [instruments.dmm]
    settings = [
      "function_",   # one
      "nplc",
    ]
    poll.voltage = { read = "reading", every = "1 s" }
    poll.current.read = 'a # b'
    poll.current.unit = "A"

    [[things]]
    a = 1
    [[things]]
    a = 2
    b.c = [{ d = 1 }, { d = 2 }]
    ''')

LINES: dict[KeyPath, int] = {
    ("ports", "stage"): 2,
    ("ports", "stage", "serial", "baud"): 3,
    ("ports", "stage", "codec"): 4,
    ("ports", "with.dot"): 6,
    ("ports", "with.dot", "note"): 7,
    ("ports", "with.dot", "after"): 11,
    ("instruments", "dmm"): 13,
    ("instruments", "dmm", "settings"): 14,
    ("instruments", "dmm", "settings", 1): 16,
    ("instruments", "dmm", "poll", "voltage", "every"): 18,
    ("instruments", "dmm", "poll", "current"): 19,
    ("instruments", "dmm", "poll", "current", "unit"): 20,
    ("things", 0, "a"): 23,
    ("things", 1): 24,
    ("things", 1, "b", "c", 1, "d"): 26,
}


@pytest.mark.parametrize(("path", "line"), LINES.items(), ids=[".".join(map(str, path)) for path in LINES])
def test_key_is_found_on_its_line(path: KeyPath, line: int) -> None:
    assert Positions(TEXT).line(path) == line


def test_key_that_is_missing_is_at_the_nearest_table_around_it() -> None:
    assert Positions(TEXT).line(("instruments", "dmm", "driver")) == 13
    assert Positions(TEXT).line(("nothing", "of", "it")) is None


def test_second_declaration_is_told_from_the_first() -> None:
    positions = Positions('[a.b]\nx = 1\ny = 2\nx = 3\n[a.c]\n[a.b]\nz = "\n')
    assert positions.again == {("a", "b", "x"): 4, ("a", "b"): 6}
    assert positions.first[("a", "b", "x")] == 2


def test_tables_that_are_only_implied_may_be_implied_again() -> None:
    assert Positions("[a.b]\n[a.c]\n[a]\np.q = 1\np.r = 2\n").again == {}


_keys = st.text("abcxyz_-1", min_size=1, max_size=4) | st.text(min_size=0, max_size=3).map(lambda t: f"{t} q")
_values = st.recursive(
    st.integers() | st.booleans() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=6,
)


def _write(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return '"' + "".join(f"\\U{ord(c):08x}" if not c.isalnum() else c for c in value) + '"'
        case list():
            return "[\n" + "".join(f"  {_write(item)}, # {{ [\n" for item in value) + "]"
        case dict():
            return "{ " + ", ".join(f"{_write(key)} = {_write(item)}" for key, item in value.items()) + " }"
        case _:
            raise TypeError(value)


def _paths(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {p for key, item in items for p in ((*path, key), *_paths(item, (*path, key)))}


@given(st.dictionaries(_keys.filter(lambda k: not any(0xD800 <= ord(c) < 0xE000 for c in k)), _values, max_size=4))
def test_exactly_the_paths_that_tomllib_sees_are_found(table: dict[str, Any]) -> None:
    text = "".join(f"{_write(key)} = {_write(value)}\n" for key, value in table.items())
    assert set(Positions(text).first) == _paths(tomllib.loads(text))
