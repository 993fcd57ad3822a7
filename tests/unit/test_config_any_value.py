"""Whatever stands at a key of a lab file, the outcome is a lab or a ConfigError with a line, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from duodaq.config import describe, load_lab
from duodaq.errors import ConfigError

KEYS = {
    "lab": ["name", "recording", "shutdown"],
    "runtimes.v2": ["worker"],
    "ports.p": ["serial", "serial.path", "serial.usb", "serial.stopbits", "tcp", "visa", "virtual", "codec", "timeout"],
    "ports.q": ["idle_ms", "hold_max", "virtual.pty", "virtual.tcp", "virtual.clients", "virtual.stall"],
    "instruments.a": ["runtime", "driver", "port", "args", "settings", "deadline", "deadline.default", "kill_after"],
    "instruments.b": ["poll", "poll.x", "poll.x.read", "poll.x.call", "poll.x.args", "poll.x.every", "axes", "axes.x"],
    "instruments.c": ["axes.x.number", "axes.x.limits", "safe", "safe.crash", "safe.crash.args", "safe.crash.bytes"],
    "instruments.d": ["stop", "passive", "worker", "required", "options", "options.hold_max_s", "options.restart"],
}
VALUES = [
    *('""', '"a"', '"ä→"', '"::"', '"a:b"', '"duodaq:"', '"duodaq.clock:Deadline"', '"./x.py:X"', '"never"', '"-1 s"'),
    *("0", "-1", "1.5", "nan", "inf", "true", "[]", "[1, [2]]", '["a"]', "{}", "{ a = 1 }", "{ default = {} }"),
    *("1979-05-27T07:32:00Z", "07:32:00", "[1979-05-27]"),
]
ENDS = [
    'runtime = "v2"\ndriver = "duodaq.clock:Deadline"\n',
    'runtime = "v4"\ndriver = "duodaq:Esp300"\nport = "p"\n',
    "",
]


@pytest.mark.parametrize("table", KEYS)
def test_any_value_at_any_key_is_a_lab_or_a_clear_refusal(table: str, tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    for key in KEYS[table]:
        for value in VALUES:
            for end in ENDS if table.startswith("instruments") else ['tcp = "a:1"\n', ""]:
                file.write_text(f"[{table}]\n{key} = {value}\n{end}", encoding="utf-8")
                assert _is_a_lab_or_refused_with_a_line(file), file.read_text(encoding="utf-8")


def _is_a_lab_or_refused_with_a_line(file: Path) -> bool:
    try:
        return describe(load_lab(file)) is not None
    except ConfigError as error:
        return f"{file}:" in str(error)
