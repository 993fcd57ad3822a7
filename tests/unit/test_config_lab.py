"""The lab file of the manual becomes the definitions it stands for, and `describe` says what to know of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from duodaq.config import describe, load_lab
from duodaq.config._complaints import known_keys
from duodaq.errors import ConfigError
from duodaq.model import AxisDefinition, Cause, LabDefinition, PollDefinition, SafeAction

LAB = """\
[ports.stage]                       # shared by V2, V4 and a program next door
serial = { path = "/dev/ttyUSB0", baud = 19200, rtscts = true }
codec = "esp300"

[ports.dmm]
visa = "TCPIP0::127.0.0.1::5025::SOCKET"
codec = "scpi"

[instruments.dmm]                   # unmodified PyMeasure
runtime = "v2"
driver = "pymeasure.instruments.hp:HP34401A"
port = "dmm"
settings = ["function_", "nplc"]
deadline = { default = "5 s", reading = "30 s" }
poll.voltage = { read = "reading", unit = "V", every = "1 s" }

[instruments.chopper]               # home-made, opens its device itself, from a file
runtime = "v2"
driver = "./chopper.py:Chopper"
args = { device = "/dev/ttyUSB3" }
poll.rate = { call = "get_rate", unit = "Hz", every = "500 ms" }

[instruments.stage]
runtime = "v4"
driver = "duodaq:Esp300"
port = "stage"
axes.x = { number = 1, unit = "mm", limits = [0, 25] }
safe = { shutdown = "stop", crash = "stop" }
"""

ONE_PORT = '[ports.p]\ntcp = "a:1"\n'
ONE_INSTRUMENT = ONE_PORT + '[instruments.i]\nruntime = "v2"\ndriver = "./d.py:D"\nport = "p"\n'


def lab_of(text: str, folder: Path) -> LabDefinition:
    (folder / "chopper.py").write_text("class Chopper:\n    def __getattr__(self, name): ...\n")
    (folder / "d.py").write_text(
        "class D:\n    def __getattr__(self, name): ...\nclass E:\n    def __getattr__(self, name): ...\n"
    )
    (folder / "optics.toml").write_text(text)
    return load_lab(folder / "optics.toml")


def test_manuals_lab_file_becomes_its_definitions(tmp_path: Path) -> None:
    lab = lab_of(LAB, tmp_path)
    stage_port, dmm_port = lab.ports
    dmm, chopper, stage = lab.instruments
    assert lab.name == "optics"
    assert (lab.directory, lab.file) == (tmp_path, tmp_path / "optics.toml")
    assert stage_port.serial is not None
    assert (stage_port.serial["path"], stage_port.serial["baud"], stage_port.serial["rtscts"]) == (
        "/dev/ttyUSB0",
        19200,
        True,
    )
    assert (dmm_port.tcp, dmm_port.serial, dmm_port.codec) == ("127.0.0.1:5025", None, "scpi")
    assert dmm.polls == (PollDefinition("voltage", 1.0, "V", read="reading"),)
    assert dmm.watched == ("function_", "nplc")
    assert (dmm.deadline_s, dmm.method_deadline_s) == (5.0, {"reading": 30.0})
    assert chopper.args == {"device": "/dev/ttyUSB3"}
    assert chopper.base_dir == tmp_path
    assert chopper.polls == (PollDefinition("rate", 0.5, "Hz", call="get_rate"),)
    assert stage.axes == (AxisDefinition("x", 1, "mm", (0.0, 25.0)),)
    assert stage.safe == {Cause.SHUTDOWN: SafeAction("stop"), Cause.CRASH: SafeAction("stop")}


USES: dict[tuple[str, ...], tuple[str, str]] = {
    ("lab", "name"): ("[lab]\nname = 'x'\n", "lab"),
    ("lab", "recording"): ("[lab]\nrecording = 'data'\n", "lab"),
    ("lab", "record_wire"): ("[lab]\nrecord_wire = true\n", "lab"),
    ("lab", "finalise"): ('[lab]\nfinalise = ["hdf5"]\n', "lab"),
    ("lab", "keep_journal"): ('[lab]\nfinalise = ["parquet"]\nkeep_journal = false\n', "lab"),
    ("lab", "shutdown"): ("[lab]\nshutdown = '3 s'\n", "lab"),
    ("runtimes", "v2"): ("[runtimes.v2]\nworker = 'thread'\n", "lab"),
    ("runtimes", "v4"): ("[runtimes.v4]\nworker = 'thread'\n", "lab"),
}
PORT_USES = {
    "serial": 'serial = { path = "/dev/x" }',
    "tcp": 'tcp = "b:1"',
    "visa": 'visa = "TCPIP::b::1::SOCKET"',
    "codec": 'tcp = "a:1"\ncodec = "scpi"',
    "timeout": 'tcp = "a:1"\ntimeout = "9 s"',
    "idle_ms": 'tcp = "a:1"\nidle_ms = 20',
    "hold_max": 'tcp = "a:1"\nhold_max = "1 s"',
    "virtual": 'tcp = "a:1"\nidle_ms = 20\nvirtual = { tcp = 5030 }',
}
VIRTUAL_USES = {
    "pty": "pty = 'run/x'",
    "tcp": "tcp = '127.0.0.1:5031'",
    "clients": "tcp = 5030, clients = 2",
    "stall": "tcp = 5030, stall = '1 s'",
}
SERIAL_USES = {
    "path": "path = '/dev/y'",
    "usb": "usb = '0403:6001'",
    "location": "usb = '0403:6001', location = '1-2.3'",
    "interface": "usb = '0403:6001', interface = 1",
    "baud": "path = '/dev/x', baud = 115200",
    "bytesize": "path = '/dev/x', bytesize = 7",
    "parity": "path = '/dev/x', parity = 'E'",
    "stopbits": "path = '/dev/x', stopbits = 1.5",
    "rtscts": "path = '/dev/x', rtscts = true",
    "xonxoff": "path = '/dev/x', xonxoff = true",
}
INSTRUMENT_USES = {
    "runtime": None,  # these three are in every instrument already
    "driver": None,
    "port": None,
    "args": "args = { a = 1 }",
    "settings": "settings = { a = 1 }",
    "limits": "limits = { a = [0, 5] }",
    "deadline": 'deadline = "never"',
    "kill_after": 'kill_after = "3 s"',
    "poll": 'poll.a.call = "a"',
    "axes": "axes.x.number = 1",
    "safe": 'safe.crash = "hold"',
    "stop": 'stop = "ST\\r"',
    "passive": "passive = true",
    "worker": 'worker = "own"',
    "required": "required = true",
    "autostart": "autostart = false",
    "options": "options = { acquire = true }",
}


def _texts() -> dict[str, tuple[str, str]]:
    """Each key of a lab file: a file without it, and one with it."""
    plain_serial = "[ports.p]\nserial = { path = '/dev/x' }\n"
    plain_virtual = f"{ONE_PORT}codec = 'scpi'\nvirtual = {{ tcp = 5030 }}\n"
    return {
        **{f"{table}.{key}": ("", text) for (table, key), (text, _) in USES.items()},
        **{f"port.{key}": (ONE_PORT, f"[ports.p]\n{text}\n") for key, text in PORT_USES.items()},
        **{f"serial.{key}": (plain_serial, f"[ports.p]\nserial = {{ {text} }}\n") for key, text in SERIAL_USES.items()},
        **{
            f"virtual.{key}": (plain_virtual, plain_virtual.replace("tcp = 5030", text))
            for key, text in VIRTUAL_USES.items()
        },
        **{
            f"instrument.{key}": (ONE_INSTRUMENT, f"{ONE_INSTRUMENT}{text}\n")
            for key, text in INSTRUMENT_USES.items()
            if text is not None
        },
    }


@pytest.mark.parametrize("key", _texts())
def test_key_changes_the_lab(key: str, tmp_path: Path) -> None:
    without, with_it = _texts()[key]
    assert lab_of(without, tmp_path) != lab_of(with_it, tmp_path)


TOKEN = "0f6b9c1de2a84e75"
WEB_USES: dict[str, tuple[str, Any]] = {
    "host": ('"127.0.0.2"', "127.0.0.2"),
    "port": ("8401", 8401),
    "token": (f'"{TOKEN}"', TOKEN),
    "viewer_token": (f'"{TOKEN}"', TOKEN),
    "names": (f'["Lab.Example.org"]\ntoken = "{TOKEN}"', ("lab.example.org",)),
    "arming": ('["i"]', ("i",)),
}


@pytest.mark.parametrize("key", WEB_USES)
def test_key_of_the_page_is_used(key: str, tmp_path: Path) -> None:
    written, expected = WEB_USES[key]
    assert getattr(lab_of(f"{ONE_INSTRUMENT}[web]\n{key} = {written}\n", tmp_path).web, key) == expected


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ('host = "0.0.0.0"', "lets other machines in, and needs a token"),
        ('host = "::"', "lets other machines in, and needs a token"),
        ('host = "localhost.example.org"', "lets other machines in, and needs a token"),
        ('names = ["lab"]', "need a token"),
        ('token = "short"', "must be 16 plain characters or more"),
        ("port = 65536", "65535"),
        ('arming = ["laser"]', 'there is no instrument "laser"'),
    ],
)
def test_page_that_would_let_strangers_in_or_arm_what_is_not_there_is_refused(
    written: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        lab_of(f"{ONE_INSTRUMENT}[web]\n{written}\n", tmp_path)


@pytest.mark.parametrize(
    ("table", "shown"),
    [
        (("lab",), {key for table, key in USES if table == "lab"}),
        (("runtimes",), {key for table, key in USES if table == "runtimes"}),
        (("ports", "p"), set(PORT_USES)),
        (("ports", "p", "virtual"), set(VIRTUAL_USES)),
        (("ports", "p", "serial"), set(SERIAL_USES)),
        (("instruments", "i"), set(INSTRUMENT_USES)),
        (("web",), set(WEB_USES)),
    ],
)
def test_no_key_is_taken_and_then_forgotten(table: tuple[str, ...], shown: set[str]) -> None:
    assert set(known_keys(table)) == shown


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", {}),
        ('safe.crash = "hold"', {Cause.CRASH: SafeAction("hold")}),
        ('safe.stop_all = { bytes = "AB\\r" }', {Cause.STOP_ALL: SafeAction("bytes", data=b"AB\r")}),
        ('safe.shutdown = { bytes = "\\u00ff" }', {Cause.SHUTDOWN: SafeAction("bytes", data=b"\xff")}),
        ('safe.crash = { call = "park" }', {Cause.CRASH: SafeAction("call", call="park")}),
        ('safe.crash = { call = "go", args = [1] }', {Cause.CRASH: SafeAction("call", call="go", args=(1,))}),
    ],
)
def test_safe_state_is_written_in_these_ways(written: str, expected: Any, tmp_path: Path) -> None:
    assert lab_of(f"{ONE_INSTRUMENT}{written}\n", tmp_path).instruments[0].safe == expected


@pytest.mark.parametrize(
    ("written", "default", "methods"),
    [
        ("", 5.0, {}),
        ('deadline = "200 ms"', 0.2, {}),
        ("deadline = 3", 3.0, {}),
        ('deadline = "never"', None, {}),
        ('deadline = { home = "never" }', 5.0, {"home": None}),
        ('deadline = { default = "1 min", home = "2 min" }', 60.0, {"home": 120.0}),
    ],
)
def test_deadline_is_written_in_these_ways(
    written: str, default: float | None, methods: dict[str, float | None], tmp_path: Path
) -> None:
    instrument = lab_of(f"{ONE_INSTRUMENT}{written}\n", tmp_path).instruments[0]
    assert (instrument.deadline_s, instrument.method_deadline_s) == (default, methods)


@pytest.mark.parametrize("runtime", ["v2", "v4"])
@pytest.mark.parametrize("policy", ["passive", "reapply", "withhold", "ask"])
def test_policy_of_a_replacement_is_an_option_of_either_runtime(runtime: str, policy: str, tmp_path: Path) -> None:
    driver = {"v2": "pymeasure.instruments.hp:HP34401A", "v4": "duodaq:ScpiActor"}[runtime]
    (tmp_path / "lab.toml").write_text(
        f'[ports.dmm]\ntcp = "127.0.0.1:5025"\ncodec = "scpi"\n\n[instruments.dmm]\nruntime = "{runtime}"\n'
        f'driver = "{driver}"\nport = "dmm"\noptions = {{ on_reconnect = "{policy}", requeue = true }}\n'
    )
    (dmm,) = load_lab(tmp_path / "lab.toml").instruments
    assert (dmm.options["on_reconnect"], dmm.options["requeue"]) == (policy, True)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    lab = lab_of('[lab]\nrecording = "data"\n[ports.p]\nserial = { path = "run/stage" }\n', tmp_path)
    assert lab.recording_dir == tmp_path / "data"
    assert lab.ports[0].serial is not None
    assert lab.ports[0].serial["path"] == str(tmp_path / "run" / "stage")


@pytest.mark.parametrize(
    ("written", "pty", "tcp"),
    [
        ('{ pty = "run/x" }', "run/x", None),
        ("{ tcp = 5030 }", None, "127.0.0.1:5030"),
        ('{ pty = "/tmp/x", tcp = "0.0.0.0:5030" }', "/tmp/x", "0.0.0.0:5030"),
    ],
)
def test_virtual_port_is_written_in_these_ways(written: str, pty: str | None, tcp: str | None, tmp_path: Path) -> None:
    virtual = lab_of(f"{ONE_PORT}idle_ms = 20\nvirtual = {written}\n", tmp_path).ports[0].virtual
    assert virtual is not None
    assert (virtual.pty, virtual.tcp) == (str(tmp_path / pty) if pty else None, tcp)


def test_notes_say_where_programs_outside_come_in_and_what_that_means(tmp_path: Path) -> None:
    text = f'{ONE_PORT}idle_ms = 20\nvirtual = {{ pty = "run/x", tcp = "0.0.0.0:5030", clients = 3 }}\n'
    notes = "\n".join(describe(lab_of(text, tmp_path)))
    place = "programs outside duodaq use it at run/x, a device for one at a time; and at tcp 0.0.0.0:5030, up to 3"
    assert place in notes
    assert "whoever reaches 0.0.0.0:5030 over the network" in notes
    assert "while a stop-all is latched programs outside are refused" in notes
    assert "it is opened all the same" not in notes
    safe = text.replace("0.0.0.0", "127.0.0.1").replace("idle_ms = 20", "codec = 'scpi'")
    quiet = "\n".join(describe(lab_of(safe, tmp_path)))
    assert "over the network" not in quiet
    assert "are refused" not in quiet


def test_notes_say_what_delays_a_stop_and_what_nothing_makes_safe(tmp_path: Path) -> None:
    notes = "\n".join(describe(lab_of(LAB, tmp_path)))
    assert "port stage (/dev/ttyUSB0, esp300), used by stage: a stop breaks in at once" in notes
    assert "port dmm (127.0.0.1:5025, scpi), used by dmm: a stop waits for the exchange in hand, at most " in notes
    assert "chopper: no fail-safe: it has no wire path" in notes
    assert "dmm: no stop bytes" in notes
    assert "passive = true" in notes
    assert "stage: no" not in notes
    assert "safe state shutdown: stop, crash: stop, stop_all: stop" in notes


@pytest.mark.parametrize(
    "stanza",
    [
        'runtime = "v2"\ndriver = "./d.py:D"\nport = "p"\npassive = true\n',
        'runtime = "v2"\ndriver = "./d.py:D"\npassive = true\n',
        'runtime = "v4"\ndriver = "duodaq:Newport1830C"\nport = "n"\n',
    ],
)
def test_notes_ask_no_stop_of_what_neither_moves_nor_emits(stanza: str, tmp_path: Path) -> None:
    meter = '[ports.n]\ntcp = "a:2"\ncodec = "newport1830c"\n'
    notes = describe(lab_of(f"{ONE_PORT}{meter}[instruments.i]\n{stanza}", tmp_path))
    assert [note for note in notes if note.startswith("i: no")] == []


def test_notes_name_workers_and_calls_that_may_take_for_ever(tmp_path: Path) -> None:
    text = f'[runtimes.v2]\nworker = "thread"\n{ONE_INSTRUMENT}deadline = {{ home = "never" }}\n'
    notes = "\n".join(describe(lab_of(text, tmp_path)))
    assert "i (./d.py:D) in v2, worker thread, port p" in notes
    assert "i: home may take for ever" in notes


def test_notes_say_which_axis_of_a_class_of_ones_own_cannot_be_moved_or_scanned(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("class D:\n    pass\n\nclass M:\n    def move(self, axis, position): pass\n")
    axis = 'axes.temp = { number = 1, unit = "degC" }\n'
    notes = "\n".join(describe(lab_of(f'[instruments.i]\nruntime = "v2"\ndriver = "./own.py:D"\n{axis}', tmp_path)))
    assert "i: axes.temp cannot be moved: ./own.py:D has no move(axis, position)" in notes
    assert 'i: axes.temp cannot be scanned: nothing says where it is; add poll."temp.position" = { call = ' in notes
    poll = 'poll."temp.position" = { call = "move", unit = "degC" }\n'
    whole = describe(lab_of(f'[instruments.i]\nruntime = "v2"\ndriver = "./own.py:M"\n{axis}{poll}', tmp_path))
    assert [note for note in whole if "cannot" in note and "axes" in note] == []


def test_notes_say_what_a_driver_is_made_of_and_which_mark_names_no_instrument(tmp_path: Path) -> None:
    made = '[instruments.rig]\nruntime = "v2"\ndriver = "./d.py:D"\nargs = { a = "@i", b = "@stag" }\n'
    notes = "\n".join(describe(lab_of(ONE_INSTRUMENT + made, tmp_path)))
    assert "rig (./d.py:D) in v2, worker process, made of i; " in notes
    assert 'rig: args.b stays the text "@stag": the lab has no instrument of that name' in notes
    assert "args.a" not in notes


def test_notes_warn_of_a_line_that_two_share_without_codec(tmp_path: Path) -> None:
    second = ONE_INSTRUMENT.replace(ONE_PORT, "").replace("instruments.i", "instruments.j")
    shared = "port p: shared by i and j with neither codec nor idle_ms"
    assert shared in "\n".join(describe(lab_of(ONE_INSTRUMENT + second, tmp_path)))
    quiet = (ONE_INSTRUMENT + second).replace(ONE_PORT, ONE_PORT + "idle_ms = 20\n")
    assert shared not in "\n".join(describe(lab_of(quiet, tmp_path)))


def test_notes_name_a_port_that_nobody_uses(tmp_path: Path) -> None:
    assert "port p: no instrument uses it" in "\n".join(describe(lab_of(ONE_PORT, tmp_path)))
