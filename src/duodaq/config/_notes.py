"""What is good to know of a lab before it runs: none of it is an error, all of it is what `duodaq check` prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from duodaq.config._checks import address_of, is_stoppable
from duodaq.config._driver_lookup import built_in
from duodaq.config._members import members_of
from duodaq.config._where import worker_of
from duodaq.drivers import codec
from duodaq.model import Cause, InstrumentDefinition, LabDefinition, PortDefinition
from duodaq.ports import worker_key
from duodaq.units import is_known


def describe(lab: LabDefinition) -> list[str]:
    """Sentences about `lab`: its ports, how long each can delay a stop, its instruments, what has no fail-safe."""
    return [
        *(_about_port(port, lab) for port in lab.ports),
        *(note for port in lab.ports for note in _about_visa(port, lab)),
        *(note for port in lab.ports for note in _about_virtual(port, lab)),
        *(_about_instrument(instrument, lab) for instrument in lab.instruments),
        *(note for instrument in lab.instruments for note in _warnings(instrument, lab)),
        *(note for port in lab.ports for note in _port_warnings(port, lab)),
    ]


def _about_port(port: PortDefinition, lab: LabDefinition) -> str:
    users = ", ".join(_users(port, lab)) or "nobody"
    return (
        f"port {port.name} ({address_of(port)}, {port.codec or 'no codec'}), used by {users}: {_stop_delay(port, lab)}"
    )


def _about_visa(port: PortDefinition, lab: LabDefinition) -> Iterator[str]:
    if port.visa is None:
        return
    library = f"the VISA library {port.visa.library}" if port.visa.library else "whichever VISA library is installed"
    sharing = [one.name for one in _sharing_worker(port, lab)]
    with_ = f" that it shares with {' and '.join(sharing)}: one exchange at a time" if sharing else " of its own"
    yield f"port {port.name}: {library} carries it, in a worker process{with_}"
    yield (
        f"port {port.name}: if the program that runs the lab is killed, nobody can write its crash actions: "
        "a VISA resource has no line that the watchdog could take over"
    )
    if port.codec is None:
        yield (
            f'port {port.name}: without a codec only what has a "?" is known to be a question, whose writer keeps the '
            "line until it is answered; any other answer that is not read within idle_ms may reach whoever reads next"
        )


def _sharing_worker(port: PortDefinition, lab: LabDefinition) -> list[PortDefinition]:
    """The other ports that one worker process carries with `port`, one exchange at a time."""
    if port.visa is None:
        return []
    key = worker_key(port.visa)
    return [one for one in lab.ports if one.visa is not None and one is not port and worker_key(one.visa) == key]


def _about_virtual(port: PortDefinition, lab: LabDefinition) -> Iterator[str]:
    virtual = port.virtual
    if virtual is None:
        return
    places: list[str] = []
    if virtual.pty is not None:
        places.append(f"{_shown(virtual.pty, lab)}, a device for one at a time")
    if virtual.tcp is not None:
        places.append(f"tcp {virtual.tcp}, up to {virtual.clients} at once")
    yield f"port {port.name}: programs outside duodaq use it at {'; and at '.join(places)}"
    if virtual.tcp is not None and not _is_local(virtual.tcp):
        yield f"port {port.name}: whoever reaches {virtual.tcp} over the network may use it; 127.0.0.1 keeps it here"
    if port.codec is None:
        yield (
            f"port {port.name}: no codec knows what moves, so while a stop-all is latched programs outside are refused "
            f"whatever they write; an answer that begins later than idle_ms ({port.idle_ms:g} ms) reaches nobody"
        )


def _shown(path: str, lab: LabDefinition) -> str:
    return str(Path(path).relative_to(lab.directory)) if Path(path).is_relative_to(lab.directory) else path


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


def _users(port: PortDefinition, lab: LabDefinition) -> list[str]:
    return [instrument.id for instrument in lab.instruments if instrument.port == port.name]


def _stop_delay(port: PortDefinition, lab: LabDefinition) -> str:
    """When a stop is on the wire: at once where the protocol takes it at any time, else after the exchange in hand."""
    if port.visa is not None:
        on_board = [port, *_sharing_worker(port, lab)]
        slowest = max(on_board, key=lambda one: one.timeout_s)
        whose = "its timeout" if slowest is port else f"the timeout of {slowest.name}"
        if len(on_board) == 1:
            return f"a stop waits for the read in hand, at most {port.timeout_s:g} s ({whose}): VISA takes no other"
        names = " or ".join(one.name for one in on_board)
        return f"a stop waits for the read in hand of {names}, at most {slowest.timeout_s:g} s ({whose})"
    if port.codec is None:
        longest = f"{port.timeout_s:g} s (its timeout)"
        return f"a stop waits for the exchange in hand, at most {longest}"
    spoken = codec(port.codec)
    stop = spoken.stop_bytes(None)
    if stop is not None and spoken.is_break_in(stop):
        return "a stop breaks in at once"
    return f"a stop waits for the exchange in hand, at most {max(spoken.longest_reply_s, 0.0):g} s"


def _about_instrument(instrument: InstrumentDefinition, lab: LabDefinition) -> str:
    runtime = lab.v2 if instrument.runtime == "v2" else lab.v4
    where = f"port {instrument.port}" if instrument.port else _without_port(instrument, lab)
    actions = ", ".join(f"{cause.value}: {action_of(instrument, cause)}" for cause in Cause)
    worker = worker_of(instrument, runtime)
    return (
        f"{instrument.id} ({instrument.driver}) in {instrument.runtime}, worker {worker}, {where}; safe state {actions}"
    )


def _without_port(instrument: InstrumentDefinition, lab: LabDefinition) -> str:
    known = {one.id for one in lab.instruments}
    parts = [name for name in _named(instrument).values() if name in known]
    return f"made of {' and '.join(parts)}" if parts else "opens its device itself"


def _named(instrument: InstrumentDefinition) -> dict[str, str]:
    """What its arguments of the form ``"@name"`` name, by argument."""
    texts = {arg: value for arg, value in instrument.args.items() if isinstance(value, str)}
    return {arg: value[1:] for arg, value in texts.items() if value.startswith("@")}


def action_of(instrument: InstrumentDefinition, cause: Cause) -> str:
    action = instrument.safe.get(cause)
    if action is None:
        return "stop" if cause is Cause.STOP_ALL else "hold"
    return {"call": f"call {action.call}", "bytes": f"bytes {action.data!r}"}.get(action.kind, action.kind)


_PASSIVE_ACTORS = frozenset({"Newport1830C"})
"""The built-in actors of which nothing moves or emits."""


def _needs_no_stop(instrument: InstrumentDefinition) -> bool:
    return instrument.passive is True or built_in(str(instrument.driver)) in _PASSIVE_ACTORS


def _unreachable(instrument: InstrumentDefinition, lab: LabDefinition) -> Iterator[str]:
    if _needs_no_stop(instrument):
        return
    if instrument.port is None:
        yield (
            f"{instrument.id}: no fail-safe: it has no wire path, so nothing can make it safe when its driver hangs "
            "or its process dies"
        )
    elif not is_stoppable(instrument, lab):
        passive = "; if it neither moves nor emits, passive = true" if instrument.runtime == "v2" else ""
        yield (
            f"{instrument.id}: no stop bytes: stop and stop-all reach it through its driver only; if its protocol has "
            f'any, add stop = "…"{passive}'
        )


def _warnings(instrument: InstrumentDefinition, lab: LabDefinition) -> Iterator[str]:
    yield from _unreachable(instrument, lab)
    known = {one.id for one in lab.instruments}
    for arg, name in _named(instrument).items():
        if name not in known:  # no mistake for certain: "@py" names a VISA backend
            yield f'{instrument.id}: args.{arg} stays the text "@{name}": the lab has no instrument of that name'
    units = {f"poll.{one.channel}": one.unit for one in instrument.polls}
    units |= {f"axes.{one.name}": one.unit for one in instrument.axes}
    yield from _axes_without(instrument, lab)
    for key, unit in units.items():
        if not is_known(unit):
            yield f'{instrument.id}: {key} is in "{unit}", a unit of its own: it is shown as it is, and never converted'
    for name, limit in {"calls": instrument.deadline_s, **instrument.method_deadline_s}.items():
        if limit is None:
            yield f"{instrument.id}: {name} may take for ever (deadline never): a hang there is not noticed"


def _axes_without(instrument: InstrumentDefinition, lab: LabDefinition) -> Iterator[str]:
    """Axes of a V2 class that cannot be moved or scanned, as far as its file tells."""
    members = members_of(str(instrument.driver), lab.directory) if instrument.runtime == "v2" else None
    if members is None:
        return
    channels = {poll.channel for poll in instrument.polls}
    for axis in instrument.axes:
        if "move" not in members:
            yield f"{instrument.id}: axes.{axis.name} cannot be moved: {instrument.driver} has no move(axis, position)"
        if f"{axis.name}.position" not in channels:
            yield (
                f"{instrument.id}: axes.{axis.name} cannot be scanned: nothing says where it is; add "
                f'poll."{axis.name}.position" = {{ call = "…", unit = "{axis.unit}" }}'
            )


def _port_warnings(port: PortDefinition, lab: LabDefinition) -> Iterator[str]:
    users = _users(port, lab)
    if not users and port.virtual is None:
        yield f"port {port.name}: no instrument uses it; it is opened all the same"
    if len(users) > 1 and port.codec is None and port.idle_ms is None:
        yield (
            f"port {port.name}: shared by {' and '.join(users)} with neither codec nor idle_ms: each driver call keeps "
            "the line until it returns; name its codec if there is one, or set idle_ms"
        )
