"""What can be wrong with a lab file whose every key is right, as far as that can be known without hardware."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from keyword import iskeyword

from pydantic import ValidationError

from duodaq.config._ancestry import is_no_actor
from duodaq.config._complaints import Said, complaints
from duodaq.config._driver_lookup import BUILT_IN_CODECS, DriverMissingError, built_in, find_driver
from duodaq.config._lab_file import LabFile
from duodaq.config._members import members_of
from duodaq.config._options import CLASSIC_KEYS, OPTIONS
from duodaq.config._positions import KeyPath
from duodaq.config._where import worker_of
from duodaq.config._words import choose
from duodaq.drivers import CODECS, codec
from duodaq.errors import OutOfRangeError
from duodaq.model import Execute, InstrumentDefinition, LabDefinition, PortDefinition, RuntimeDefinition, check_limits


def check_lab(lab: LabDefinition) -> Iterator[Said]:
    """Everything that contradicts itself or is not there: where, what, and what would be right."""
    for port in lab.ports:
        yield from _codec_exists(port)
    yield from _one_line_one_port(lab)
    yield from _virtual_ports_fit(lab)
    yield from _arms_what_is_there(lab)
    for instrument in lab.instruments:
        yield from _name_is_usable(instrument)
        yield from _name_is_free(instrument)
        yield from _driver_exists(instrument, lab)
        yield from _driver_has(instrument, lab)
        yield from _axes_differ(instrument)
        yield from _asks_others_only(instrument)
        wrong_port = [*_port_fits(instrument, lab), *_opens_no_shared_device(instrument, lab)]
        yield from wrong_port or _can_be_stopped(
            instrument, lab
        )  # a wrong port has no right stop: one problem, said once


def check_tables(tables: LabFile, lab: LabDefinition) -> Iterator[Said]:
    """What does not go together inside a stanza: options and keys that its runtime does not know, or never looks at."""
    for table, runtime in ((tables.runtimes.v2, lab.v2), (tables.runtimes.v4, lab.v4)):
        if "memory" in table.model_fields_set:
            yield from _memory_is_limited(runtime, lab)
    if "keep_journal" in tables.lab.model_fields_set and "parquet" not in tables.lab.finalise:
        yield (
            ("lab", "keep_journal"),
            "only where recordings are finalised to Parquet can their journal be left out",
            'Write finalise = ["parquet"], or leave this key out: the journal is kept.',
        )
    for name, table in tables.instruments.items():
        at = ("instruments", name)
        options = OPTIONS[table.runtime]
        try:
            options.model_validate(table.options)
        except ValidationError as error:
            yield from complaints(error, options, (*at, "options"))
        for key in sorted(table.model_fields_set & set(CLASSIC_KEYS)):
            if table.runtime == "v4":
                yield (*at, key), "belongs to instruments in v2", f"Leave it out: {CLASSIC_KEYS[key]}"


def _memory_is_limited(runtime: RuntimeDefinition, lab: LabDefinition) -> Iterator[Said]:
    workers = [runtime.worker, *(worker_of(one, runtime) for one in lab.instruments if one.runtime == runtime.name)]
    if not {"process", "own"}.intersection(workers):
        yield (
            ("runtimes", runtime.name, "memory"),
            f'limits nothing: no instrument of {runtime.name} lives in a worker process (worker = "{runtime.worker}")',
            f'Leave it out, or write worker = "process" in [runtimes.{runtime.name}] or in an instrument of it',
        )


def port_of(instrument: InstrumentDefinition, lab: LabDefinition) -> PortDefinition | None:
    """The port that `instrument` is on, if it is on one that exists."""
    return next((port for port in lab.ports if port.name == instrument.port), None)


def _codec_exists(port: PortDefinition) -> Iterator[Said]:
    if port.codec is not None and port.codec not in CODECS:
        remedy = choose(port.codec, CODECS, "The codecs") + "; without one, leave the key out and set idle_ms"
        yield ("ports", port.name, "codec"), f'there is no codec "{port.codec}"', remedy


def address_of(port: PortDefinition) -> str:
    """What the port is connected to: a device's path, its USB identity, host:port, or a VISA resource."""
    if port.visa is not None:
        return port.visa.resource
    if port.tcp is not None:
        return port.tcp
    serial = port.serial or {}
    usb = " ".join(str(serial[key]) for key in ("usb", "location", "interface") if key in serial)
    return str(serial.get("path") or usb)


def _one_line_one_port(lab: LabDefinition) -> Iterator[Said]:
    owners: dict[str, str] = {}
    for port in lab.ports:
        owner = owners.setdefault(address_of(port), port.name)
        if owner != port.name:
            yield (
                ("ports", port.name),
                f"is the same line as ports.{owner} ({address_of(port)})",
                f'Keep one of the two, and let both instruments say port = "{owner}"',
            )


def _virtual_ports_fit(lab: LabDefinition) -> Iterator[Said]:
    taken = {address_of(port): f"ports.{port.name} itself" for port in lab.ports}
    for port in lab.ports:
        virtual, at = port.virtual, ("ports", port.name, "virtual")
        if virtual is None:
            continue
        if port.codec is None and port.visa is not None:
            what = (
                "needs a codec on a VISA port: nothing is heard there that is not fetched, and only a codec knows when"
            )
            yield at, what, f"Name the codec in [ports.{port.name}], or leave virtual out"
        elif port.codec is None and port.idle_ms is None:
            remedy = "Name the codec, or write idle_ms = 20: the silence, in milliseconds, that ends an exchange"
            yield at, "needs to know where an exchange ends, and this port has neither codec nor idle_ms", remedy
        if virtual.pty is not None and sys.platform != "linux":
            yield (*at, "pty"), "needs Linux, which tells who opens and closes a pty", "Write tcp = 5030 instead"
        for key, place in (("pty", virtual.pty), ("tcp", virtual.tcp)):
            if place is not None and place in taken:
                yield (*at, key), f"{place} is taken by {taken[place]}", "Choose a place of its own"
            elif place is not None:
                taken[place] = f"ports.{port.name}.virtual"


INSTRUMENT_NAMES_TAKEN = frozenset(
    {
        *("alarms", "apply", "close", "grid", "holders", "journal", "log", "logs", "parameters", "plan", "ports"),
        *(
            "migrate",
            "presets",
            "record_wire",
            "reset_stop",
            "scan",
            "scans",
            "start_recording",
            "status",
            "stop_all",
            "stop_log",
            "stop_recording",
            "stop_wire",
            "wire_tail",
        ),
    }
)
AXIS_NAMES_TAKEN = frozenset(
    {
        *("axes", "call", "call_soon", "channels", "control", "driver", "driver_name", "finish", "fly", "get"),
        *("get_soon", "holder", "id", "parameters", "read", "read_soon", "recover", "release", "restart", "runtime"),
        *("set", "set_soon", "snap", "start", "status", "stop"),
    }
)
"""What ``lab.x`` and ``lab.stage.x`` mean already."""


def _arms_what_is_there(lab: LabDefinition) -> Iterator[Said]:
    known = [instrument.id for instrument in lab.instruments]
    for name in lab.web.arming:
        if name not in known:
            yield ("web", "arming"), f'there is no instrument "{name}"', choose(name, known, "Instruments here")


def _name_is_free(instrument: InstrumentDefinition) -> Iterator[Said]:
    path, id = ("instruments", instrument.id), instrument.id
    if id in INSTRUMENT_NAMES_TAKEN:
        yield path, f'"{id}" means something already: lab.{id}', "Choose another name"
    for axis in instrument.axes:
        if axis.name in AXIS_NAMES_TAKEN:
            what = f'"{axis.name}" means something already: lab.{id}.{axis.name}'
            yield (*path, "axes", axis.name), what, "Choose another name"


def _name_is_usable(instrument: InstrumentDefinition) -> Iterator[Said]:
    for path, name in [
        (("instruments", instrument.id), instrument.id),
        *((("instruments", instrument.id, "axes", axis.name), axis.name) for axis in instrument.axes),
    ]:
        if not name.isidentifier() or name.startswith("_") or iskeyword(name):
            better = "".join(c if c.isalnum() else "_" for c in name).strip("_")
            better += "_" * iskeyword(better)
            remedy = f"Letters, digits and _, and a letter first, such as {better if better.isidentifier() else 'dmm'}"
            yield path, f'"{name}" cannot be written as lab.{name}', remedy


def _driver_exists(instrument: InstrumentDefinition, lab: LabDefinition) -> Iterator[Said]:
    path, driver = ("instruments", instrument.id, "driver"), str(instrument.driver)
    try:
        find_driver(driver, lab.directory)
    except DriverMissingError as error:
        yield path, error.what, error.remedy
        return
    if built_in(driver) and instrument.runtime == "v2":
        yield path, f'"{driver}" is an actor, and actors live in v4', 'Write runtime = "v4"'
    if not built_in(driver) and instrument.runtime == "v4" and is_no_actor(driver, lab.directory):
        yield path, f'"{driver}" is no actor (no InstrumentActor), and v4 hosts actors only', 'Write runtime = "v2"'


_OTHER_CALLS = frozenset({"connect", "StartAcquisition", "StopAcquisition", "SnapFrame", "Stop", "Shutdown"})
"""What has a deadline, and is no method of a driver."""


def _driver_has(instrument: InstrumentDefinition, lab: LabDefinition) -> Iterator[Said]:
    """What the stanza names in a class of somebody's own is there, as far as its file tells."""
    driver = str(instrument.driver)
    members = members_of(driver, lab.directory) if instrument.runtime == "v2" else None
    if members is None:
        return
    at = ("instruments", instrument.id)
    asked: list[tuple[KeyPath, str]] = []
    for poll in instrument.polls:
        asked += [((*at, "poll", poll.channel, key), name) for key in ("call", "read") if (name := getattr(poll, key))]
    asked += [
        ((*at, "safe", cause.value, "call"), action.call) for cause, action in instrument.safe.items() if action.call
    ]
    asked += [((*at, "settings"), name) for name in instrument.watched]
    asked += [((*at, key, name), name) for key in ("settings", "limits") for name in getattr(instrument, key)]
    if not isinstance(instrument.passive, bool):
        asked += [((*at, "passive"), name) for name in instrument.passive]
    limited = _OTHER_CALLS.union(poll.channel for poll in instrument.polls)
    asked += [((*at, "deadline", name), name) for name in instrument.method_deadline_s if name not in limited]
    for path, name in asked:
        if name.partition(".")[0] not in members:
            shown = [one for one in members if not one.startswith("_")]
            yield path, f'{driver} has no "{name}"', choose(name, shown, "It has")


def _port_fits(instrument: InstrumentDefinition, lab: LabDefinition) -> Iterator[Said]:
    path = ("instruments", instrument.id, "port")
    needed = BUILT_IN_CODECS.get(built_in(str(instrument.driver)) or "")
    if instrument.port is None:
        if needed:
            known = ", ".join(port.name for port in lab.ports) or "none yet"
            yield path, f'"{instrument.driver}" needs a port, and has none', f"Write port = … (the ports here: {known})"
        return
    port = port_of(instrument, lab)
    if port is None:
        names = [p.name for p in lab.ports]
        remedy = choose(instrument.port, names, "The ports here") + f"; a new one begins with [ports.{instrument.port}]"
        yield path, f'there is no port "{instrument.port}"', remedy
    elif needed and port.codec != needed and (port.codec is None or port.codec in CODECS):
        has = f'has the codec "{port.codec}"' if port.codec else "has no codec"
        yield (
            path,
            f'"{instrument.driver}" speaks "{needed}", and ports.{port.name} {has}',
            f'Write codec = "{needed}" in [ports.{port.name}]',
        )


def _opens_no_shared_device(instrument: InstrumentDefinition, lab: LabDefinition) -> Iterator[Said]:
    owners = {address_of(port): port.name for port in lab.ports}
    for name, value in instrument.args.items():
        if isinstance(value, str) and value in owners and instrument.port is None:
            yield (
                ("instruments", instrument.id, "args", name),
                f"{value} belongs to ports.{owners[value]}, and only one program part may open it",
                f'Write port = "{owners[value]}" and leave it out of args, or remove that port',
            )


_AXES_FROM_ZERO = frozenset({"Elliptec", None})
"""The built-in actors that count axes from 0, and every driver of somebody else's."""


def _axes_differ(instrument: InstrumentDefinition) -> Iterator[Said]:
    owners: dict[int, str] = {}
    for axis in instrument.axes:
        owner = owners.setdefault(axis.number, axis.name)
        if axis.number == 0 and built_in(str(instrument.driver)) not in _AXES_FROM_ZERO:
            path = ("instruments", instrument.id, "axes", axis.name, "number")
            yield path, "axes are counted from 1", "Write 1 for the first"
        if owner != axis.name:
            path = ("instruments", instrument.id, "axes", axis.name, "number")
            yield path, f"axis {axis.number} is already {owner}", "Each axis has a number of its own"


def _asks_others_only(instrument: InstrumentDefinition) -> Iterator[Said]:
    for name, value in instrument.args.items():
        if value == f"@{instrument.id}":
            what = f'"{value}" is this instrument itself, and it would wait for its own answer'
            yield ("instruments", instrument.id, "args", name), what, "Name another instrument of the lab"


def _can_be_stopped(instrument: InstrumentDefinition, lab: LabDefinition) -> Iterator[Said]:
    if instrument.stop is not None and instrument.port is None:
        yield (
            ("instruments", instrument.id, "stop"),
            "these bytes have no port to go to",
            'Name the port (port = "…"); an instrument that opens its device itself cannot be stopped by bytes',
        )
    for cause, action in instrument.safe.items():
        path = ("instruments", instrument.id, "safe", cause.value)
        if action.kind == "bytes" and instrument.port is None:
            yield path, "these bytes have no port to go to", 'Name the port (port = "…"), or use { call = "method" }'
        if action.kind == "stop" and not is_stoppable(instrument, lab):
            yield (
                path,
                '"stop" means stop bytes, and this instrument has none',
                'Give them with stop = "…" (and a port), or write "hold" or { call = "method" }',
            )
        if action.kind == "call":
            try:
                check_limits(instrument, Execute(str(action.call), action.args))
            except OutOfRangeError as error:
                yield path, f"it would be refused: {error.what}", "Keep it within the limits of its axis"


def is_stoppable(instrument: InstrumentDefinition, lab: LabDefinition) -> bool:
    """Whether something can stop `instrument`: its own bytes, its codec's, or a built-in actor without a wire."""
    if instrument.port is None:
        return built_in(str(instrument.driver)) in BUILT_IN_CODECS
    port = port_of(instrument, lab)
    if instrument.stop is not None or port is None:
        return True
    return port.codec is not None and (port.codec not in CODECS or codec(port.codec).stop_bytes(None) is not None)
