"""What can be wrong with the alarms of a lab file whose every key is right, and with who looks at the lab."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from duodaq.config._complaints import Said
from duodaq.config._lab_file import LabFile
from duodaq.config._words import choose, nearest
from duodaq.model import AlarmDefinition, LabDefinition, install_command
from duodaq.units import convert, same_unit


def check_alarms(lab: LabDefinition) -> Iterator[Said]:
    """Everything about alarms that contradicts itself or is not there: where, what, and what would be right."""
    for alarm in lab.alarms:
        yield from _has_a_channel(alarm, lab)
        if alarm.email and lab.mail is None:
            remedy = 'Add a table: [mail], with server = "smtp.example.org:587" and sender = "lab@example.org"'
            yield ("alarms", alarm.name, "email"), "needs a server for mail, and the lab has none", remedy
    if lab.mail is not None and not any(alarm.email for alarm in lab.alarms):
        yield ("mail",), "sends nothing: no alarm has email", 'Write email = ["someone@example.org"] in an alarm'


def check_observers(tables: LabFile) -> Iterator[Said]:
    """What is asked for and cannot be had, for its library is not installed."""
    wanted = (("metrics", tables.metrics, "prometheus_client"), ("telemetry", tables.telemetry, "opentelemetry.sdk"))
    for name, table, package in wanted:
        if table is not None and not _is_there(package):
            yield (
                (name,),
                f"needs {package.replace('_', '-')}, which is not installed",
                f"Run: {install_command(package)}",
            )


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # what holds it is not there either
        return False


def _has_a_channel(alarm: AlarmDefinition, lab: LabDefinition) -> Iterator[Said]:
    at = ("alarms", alarm.name, "channel")
    instrument = next((one for one in lab.instruments if one.id == alarm.instrument), None)
    if instrument is None:
        names = [one.id for one in lab.instruments]
        yield (
            at,
            f'there is no instrument "{alarm.instrument}"',
            choose(alarm.instrument, names, "The instruments here"),
        )
        return
    polls = {poll.channel: poll for poll in instrument.polls}
    poll = polls.get(alarm.channel)
    if poll is None and instrument.runtime == "v2" and (meant := nearest(alarm.channel, polls)):
        remedy = f'Did you mean "{alarm.instrument}.{meant}"?'
        yield at, f'"{alarm.channel}" is no channel of {alarm.instrument}', remedy
    elif poll is not None and alarm.unit is not None and poll.unit and not _fits(poll.unit, alarm.unit):
        what = f'"{alarm.unit}" cannot be had from {alarm.instrument}.{alarm.channel}, which is in "{poll.unit}"'
        yield ("alarms", alarm.name, "unit"), what, f'Write unit = "{poll.unit}", or leave it out'


def _fits(unit: str, target: str) -> bool:
    if same_unit(unit, target):
        return True
    try:
        convert(1.0, unit, target)
    except ValueError:
        return False
    return True
