"""Every way to get a lab file wrong has one clear sentence: file, line, key, what is wrong and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from duodaq.config import load_lab
from duodaq.errors import ConfigError

Refusal = Callable[[Path], str]
INSTRUMENT_KEYS = (
    "args, autostart, axes, deadline, driver, kill_after, limits, options, passive, poll, port, required, runtime, "
    "safe, settings, stop, worker"
)
FORMS = 'write "hold", "stop", { call = "method" } or { bytes = "ST\\r" }'
VISA = 'visa = "TCPIP0::127.0.0.1::5025::SOCKET"'
NO_STOP = (
    '"stop" means stop bytes, and this instrument has none. Give them with stop = "…" (and a port), '
    'or write "hold" or { call = "method" }'
)

# what is replaced · by what · what is said, after the file's name
MISTAKES: dict[str, tuple[str, str, str]] = {
    # keys
    "unknown key": (
        "baud",
        "boud",
        '2: ports.stage.serial.boud: unknown key. Did you mean "baud"? The keys here: baud, bytesize, interface, '
        "location, parity, path, rtscts, stopbits, usb, xonxoff",
    ),
    "unknown table": (
        "[ports.stage]",
        "[port.stage]",
        '1: port: unknown key. Did you mean "ports"? The keys here: alarms, flight_recorder, instruments, lab, '
        "logging, mail, metrics, ports, runtimes, telemetry, web",
    ),
    "unknown key without a likeness": (
        'runtime = "v4"',
        'runtime = "v4"\ncolour = 1',
        f"25: instruments.stage.colour: unknown key. The keys here: {INSTRUMENT_KEYS}",
    ),
    "unknown key in a dotted table": (
        'read = "reading", ',
        'read = "reading", evry = 1, ',
        '15: instruments.dmm.poll.voltage.evry: unknown key. Did you mean "every"? '
        "The keys here: args, call, every, read, unit",
    ),
    "missing driver": (
        'driver = "duodaq:Esp300"\n',
        "",
        "23: instruments.stage.driver: is required, and missing. "
        'Write for example driver = "package.module:Class" or "./file.py:Class"',
    ),
    "missing runtime": (
        'runtime = "v4"\n',
        "",
        '23: instruments.stage.runtime: is required, and missing. Write runtime = "v2" for a blocking driver class, '
        '"v4" for an actor',
    ),
    "missing axis number": (
        "number = 1, ",
        "",
        "27: instruments.stage.axes.x.number: is required, and missing. "
        "Write the axis number that the controller uses, number = 1",
    ),
    # types
    "wrong choice": ('"v4"', '"v3"', '24: instruments.stage.runtime: must be "v2" or "v4", not the string "v3"'),
    "wrong parity": (
        "rtscts = true",
        'parity = "X"',
        '2: ports.stage.serial.parity: must be "N", "E", "O", "M" or "S", not the string "X"',
    ),
    "string for a number": (
        "19200",
        '"19200"',
        '2: ports.stage.serial.baud: must be a whole number, not the string "19200"',
    ),
    "fraction for a whole number": (
        "19200",
        "19200.5",
        "2: ports.stage.serial.baud: must be a whole number, not the number 19200.5",
    ),
    "number for a flag": (
        "rtscts = true",
        "rtscts = 1",
        "2: ports.stage.serial.rtscts: must be true or false, not the number 1",
    ),
    "number for a string": (
        'port = "stage"',
        "port = 3",
        "26: instruments.stage.port: must be a string, not the number 3",
    ),
    "number for a table": (
        'args = { device = "/dev/ttyUSB3" }',
        "args = 3",
        "20: instruments.chopper.args: must be a table, not the number 3",
    ),
    "table for a string": (
        'port = "stage"',
        "port = { a = 1 }",
        "26: instruments.stage.port: must be a string, not a table",
    ),
    "too small": ("19200", "-1", "2: ports.stage.serial.baud: must be greater than 0"),
    "stop bits": ("rtscts = true", "stopbits = 3", "2: ports.stage.serial.stopbits: must be 1, 1.5 or 2, not 3"),
    "unknown worker of a runtime": (
        "[ports.stage]",
        '[runtimes.v2]\nworker = "processes"\n[ports.stage]',
        '2: runtimes.v2.worker: must be "inline", "thread" or "process", not the string "processes"',
    ),
    "memory without a unit": (
        "[ports.stage]",
        "[runtimes.v2]\nmemory = 500\n[ports.stage]",
        '2: runtimes.v2.memory: must be an amount of memory such as "500 MB" or "2 GB", not the number 500',
    ),
    "too little memory": (
        "[ports.stage]",
        '[runtimes.v2]\nmemory = "1 MB"\n[ports.stage]',
        '2: runtimes.v2.memory: must be "50 MB" at least, not "1 MB": a worker could not even begin',
    ),
    "unknown worker": (
        'runtime = "v4"',
        'runtime = "v4"\nworker = "core"',
        '25: instruments.stage.worker: must be "inline", "thread", "process" or "own", not the string "core"',
    ),
    "settings that are neither list nor table": (
        '["function_", "nplc"]',
        "3",
        '13: instruments.dmm.settings: must be a list of names to watch, ["nplc"], or a table of values to apply, '
        "{ nplc = 10 }; it is the number 3",
    ),
    "passive": (
        'runtime = "v4"',
        'runtime = "v4"\npassive = ["a", 1]',
        "25: instruments.stage.passive: must be true, or a list of the methods and parameters that neither move nor "
        'emit, ["get_rate"]; it is the list ["a", 1]',
    ),
    # durations
    "duration with a wrong unit": (
        "500 ms",
        "500 msec",
        "21: instruments.chopper.poll.rate.every: '500 msec' is not a duration; write for example "
        '"5 s", "200 ms" or "never"',
    ),
    "duration of another type": (
        '"500 ms"',
        "true",
        '21: instruments.chopper.poll.rate.every: must be a duration such as "5 s" or "200 ms", not true',
    ),
    "never where it cannot be": (
        "500 ms",
        "never",
        '21: instruments.chopper.poll.rate.every: cannot be "never" here; write a duration such as "5 s"',
    ),
    "negative duration": (
        '"500 ms"',
        "-1",
        "21: instruments.chopper.poll.rate.every: -1 is negative; a duration is not",
    ),
    "duration without an end": (
        '"500 ms"',
        "inf",
        '21: instruments.chopper.poll.rate.every: must end some time; write a duration such as "5 s"',
    ),
    "silence without an end": (
        'codec = "scpi"',
        "idle_ms = inf",
        "7: ports.dmm.idle_ms: must be a finite number",
    ),
    "no duration at all": ('"500 ms"', "0", "21: instruments.chopper.poll.rate.every: must be greater than 0"),
    "deadline of a method": (
        '"30 s"',
        "[1]",
        '14: instruments.dmm.deadline: "reading" must be a duration such as "5 s" or "200 ms", not the list [1]',
    ),
    # polls, axes, safe states, stop bytes
    "poll without a way to ask": (
        'call = "get_rate", ',
        "",
        '21: instruments.chopper.poll.rate: needs either read = "attribute" or call = "method", and not both',
    ),
    "arguments for an attribute": (
        'read = "reading"',
        'read = "reading", args = [1]',
        "15: instruments.dmm.poll.voltage: args go with call; an attribute that is read takes none",
    ),
    "limits that fall": (
        "[0, 25]",
        "[25, 0]",
        "27: instruments.stage.axes.x.limits: must rise: [0, 25] rather than [25, 0]",
    ),
    "limits that are no pair": (
        "[0, 25]",
        "25",
        "27: instruments.stage.axes.x.limits: must be two numbers, [lowest, highest], not the number 25",
    ),
    "axis number zero": (
        "number = 1",
        "number = 0",
        "27: instruments.stage.axes.x.number: axes are counted from 1. Write 1 for the first",
    ),
    "axis number twice": (
        "axes.x =",
        "axes.y = { number = 1 }\naxes.x =",
        "28: instruments.stage.axes.x.number: axis 1 is already y. Each axis has a number of its own",
    ),
    "unknown safe action": (
        'shutdown = "stop"',
        'shutdown = "off"',
        f'28: instruments.stage.safe.shutdown: the string "off" is not a safe action; {FORMS}',
    ),
    "unknown cause": (
        'shutdown = "stop"',
        'shutdwn = "hold"',
        '28: instruments.stage.safe.shutdwn: unknown key. Did you mean "shutdown"? The keys here: '
        "crash, shutdown, stop_all",
    ),
    "safe action with odd keys": (
        'shutdown = "stop"',
        "shutdown = { run = 1 }",
        f"28: instruments.stage.safe.shutdown: a table with 'run' is not a safe action; {FORMS}",
    ),
    "arguments of a safe call": (
        'shutdown = "stop"',
        'shutdown = { call = "park", args = 1 }',
        "28: instruments.stage.safe.shutdown: args must be a list, not the number 1",
    ),
    "stop bytes of another type": (
        'port = "stage"',
        'port = "stage"\nstop = 3',
        '27: instruments.stage.stop: must be a string of the bytes to send, such as "ST\\r", not the number 3',
    ),
    "empty stop bytes": (
        'port = "stage"',
        'port = "stage"\nstop = ""',
        "27: instruments.stage.stop: is empty; leave the key out if there is nothing to send",
    ),
    "stop bytes that are none": (
        'port = "stage"',
        'port = "stage"\nstop = "→"',
        "27: instruments.stage.stop: may only hold characters up to U+00FF, one for each byte",
    ),
    "safe stop that nothing can do": (
        'port = "dmm"',
        'port = "dmm"\nsafe.crash = "stop"',
        f"13: instruments.dmm.safe.crash: {NO_STOP}",
    ),
    "safe bytes without a port": (
        'device = "/dev/ttyUSB3" }',
        'device = "/dev/ttyUSB3" }\nsafe.crash = { bytes = "X" }',
        "21: instruments.chopper.safe.crash: these bytes have no port to go to. "
        'Name the port (port = "…"), or use { call = "method" }',
    ),
    "stop bytes without a port": (
        'device = "/dev/ttyUSB3" }',
        'device = "/dev/ttyUSB3" }\nstop = "X"',
        '21: instruments.chopper.stop: these bytes have no port to go to. Name the port (port = "…"); '
        "an instrument that opens its device itself cannot be stopped by bytes",
    ),
    # what a runtime does not know
    "option that the runtime does not know": (
        'port = "dmm"',
        'port = "dmm"\noptions = { restart = "never" }',
        "13: instruments.dmm.options.restart: unknown key. The keys here: "
        "acquire, axis_unit, hold_max_s, on_reconnect, requeue, snap, snap_unit, timeout_s",
    ),
    "option with a wrong choice": (
        'port = "stage"',
        'port = "stage"\noptions.restart = "always"',
        '27: instruments.stage.options.restart: must be "permanent", "transient" or "never", not the string "always"',
    ),
    "how long a call may hold the line": (
        'port = "dmm"',
        'port = "dmm"\noptions.hold_max_s = "2 s"',
        "13: instruments.dmm.options.hold_max_s: must be seconds, 0.2, or a table of seconds by method, "
        '{ sweep = 2.0 }; it is the string "2 s"',
    ),
    "key of the other runtime": (
        'port = "stage"',
        'port = "stage"\npassive = true',
        "27: instruments.stage.passive: belongs to instruments in v2. "
        "Leave it out: an actor's handlers say themselves what moves",
    ),
    # names and drivers
    "name that means something already": (
        "[instruments.chopper]",
        "[instruments.scan]",
        '17: instruments.scan: "scan" means something already: lab.scan. Choose another name',
    ),
    "axis name that means something already": (
        "axes.x",
        "axes.stop",
        '27: instruments.stage.axes.stop: "stop" means something already: lab.stage.stop. Choose another name',
    ),
    "name that Python cannot write": (
        "[instruments.chopper]",
        "[instruments.my-chopper]",
        '17: instruments.my-chopper: "my-chopper" cannot be written as lab.my-chopper. '
        "Letters, digits and _, and a letter first, such as my_chopper",
    ),
    "instrument twice": (
        "[instruments.stage]",
        "[instruments.dmm]",
        "23: instruments.dmm: is here for the second time; the first is on line 9. Rename or remove one",
    ),
    "key twice": (
        'port = "stage"',
        'port = "stage"\nport = "dmm"',
        "27: instruments.stage.port: is here for the second time; the first is on line 26. Rename or remove one",
    ),
    "driver that is not written as one": (
        '"drivers.meters:HP34401A"',
        '"HP34401A"',
        '11: instruments.dmm.driver: "HP34401A" is not a driver. Write "package.module:Class", "./file.py:Class", '
        'or for an actor of duodaq "duodaq:Esp300"',
    ),
    "package that is not installed": (
        "drivers.meters",
        "nowhere_at_all.meters",
        '11: instruments.dmm.driver: there is no module "nowhere_at_all" in this environment. '
        'Install it (pip install nowhere_at_all), or name a file: driver = "./nowhere_at_all.py:Class"',
    ),
    "file beside the lab file, written as a module": (
        "./chopper.py",
        "chopper",
        '19: instruments.chopper.driver: there is no module "chopper" in this environment. '
        'It stands beside the lab file, so name the file: driver = "./chopper.py:Class"',
    ),
    "module that the package has not": (
        "drivers.meters",
        "drivers.metres",
        '11: instruments.dmm.driver: there is no module "drivers.metres". Did you mean "drivers.meters"?',
    ),
    "class that the module has not": (
        "HP34401A",
        "HP34401",
        '11: instruments.dmm.driver: drivers.meters has no class "HP34401". Did you mean "HP34401A"? It has: HP34401A',
    ),
    "file that is not there": (
        "./chopper.py",
        "./choper.py",
        "19: instruments.chopper.driver: there is no file ./choper.py beside the lab file. "
        'Did you mean "chopper.py"? Python files there: broken.py, chopper.py',
    ),
    "file that is not Python": (
        "./chopper.py",
        "./broken.py",
        "19: instruments.chopper.driver: ./broken.py is not readable Python: invalid syntax (broken.py, line 1). "
        "Mend the file first",
    ),
    "class that the file has not": (
        ":Chopper",
        ":Choper",
        '19: instruments.chopper.driver: ./chopper.py has no class "Choper". Did you mean "Chopper"? It has: Chopper',
    ),
    "actor that duodaq has not": (
        "duodaq:Esp300",
        "duodaq:Esp301",
        '25: instruments.stage.driver: duodaq has no actor "Esp301". Did you mean "Esp300"? '
        "Its actors: Elliptec, Esp300, MaiTai, Newport1830C, PvcamActor, ScpiActor",
    ),
    "actor in v2": (
        'runtime = "v4"',
        'runtime = "v2"',
        '25: instruments.stage.driver: "duodaq:Esp300" is an actor, and actors live in v4. Write runtime = "v4"',
    ),
    # not TOML
    "not TOML": (
        "[ports.stage]",
        "[ports.stage",
        "1: is not TOML: expected ']' at the end of a table declaration. The line reads: [ports.stage",
    ),
    "not TOML at its end": (
        'safe = { shutdown = "stop", crash = "stop" }\n',
        "safe = ",
        "28: is not TOML: invalid value. The line reads: safe =",
    ),
}


def test_lab_without_a_mistake_loads_and_no_driver_is_executed(lab_folder: Path, lab_text: str) -> None:
    (lab_folder / "lab.toml").write_text(lab_text)
    assert [i.id for i in load_lab(lab_folder / "lab.toml").instruments] == ["dmm", "chopper", "stage"]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_has_one_clear_sentence(mistake: str, sentence: Callable[[str, str], str]) -> None:
    right, wrong, said = MISTAKES[mistake]
    assert sentence(right, wrong) == said


def test_all_mistakes_are_said_at_once_in_the_order_of_the_file(
    lab_folder: Path, lab_text: str, refusal: Refusal
) -> None:
    file = lab_folder / "lab.toml"
    file.write_text(lab_text.replace("[0, 25]", "[25, 0]").replace("baud", "boud").replace("500 ms", "5"))
    header, *lines = refusal(file).splitlines()
    assert header == f"{file}: 3 problems"
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{file}:2", "ports.stage.serial.boud"],
        [f"{file}:21", "instruments.chopper.poll.rate.every"],
        [f"{file}:27", "instruments.stage.axes.x.limits"],
    ]


def test_all_mistakes_in_the_table_of_a_visa_are_said_and_those_elsewhere(
    lab_folder: Path, lab_text: str, refusal: Refusal
) -> None:
    file = lab_folder / "lab.toml"
    visa = 'visa = { resurce = "GPIB0::3::INSTR", lib = "@py" }'
    file.write_text(lab_text.replace(VISA, visa).replace(":Chopper", ":Choper"))
    assert [line.split(": ", 2)[:2] for line in refusal(file).splitlines()[1:]] == [
        [f"{file}:6", "ports.dmm.visa.resource"],
        [f"{file}:6", "ports.dmm.visa.resurce"],
        [f"{file}:6", "ports.dmm.visa.lib"],
        [f"{file}:19", "instruments.chopper.driver"],
    ]


def test_nothing_is_said_that_follows_from_another_mistake(lab_folder: Path, lab_text: str, refusal: Refusal) -> None:
    """Of an instrument on a port that is misspelt, nor that nobody needs the memory that a misspelt one may need."""
    file = lab_folder / "lab.toml"
    mistaken = lab_text.replace('codec = "esp300"', 'codek = "esp300"').replace(":Esp300", ":Esp301")
    mistaken = mistaken.replace('runtime = "v2"', 'runtime = "v3"', 1).replace(":Chopper", ":Choper")
    file.write_text(
        mistaken.replace("args = {", 'worker = "inline"\nargs = {')
        + '[runtimes.v2]\nworker = "inline"\nmemory = "1 GB"\n'
    )
    assert [line.split(": ", 2)[1] for line in refusal(file).splitlines()[1:]] == [
        "ports.stage.codek",
        "instruments.dmm.runtime",
        "instruments.chopper.driver",
    ]


def test_facts_of_a_single_mistake_are_fields(lab_folder: Path, lab_text: str) -> None:
    (lab_folder / "lab.toml").write_text(lab_text.replace("baud", "boud"))
    with pytest.raises(ConfigError) as caught:
        load_lab(lab_folder / "lab.toml")
    error = caught.value
    assert (error.file, error.line, error.key) == (str(lab_folder / "lab.toml"), 2, "ports.stage.serial.boud")
    assert error.remedy is not None
