from __future__ import annotations

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from duodaq.app import connect
from duodaq.cli._console import say_json
from duodaq.cli._report import aged, alarm_table
from duodaq.model import AlarmState

_OVER = (AlarmState.NORMAL, AlarmState.ACKNOWLEDGED, AlarmState.PENDING)


def show_alarms(lab: str | None, acknowledge: list[str], out: Console, *, as_json: bool) -> int:
    """Print the alarms of a running lab, once those named are acknowledged; 1 if any is raised or has been.

    Raises:
        LifecycleError: There is no such alarm, or no such lab runs.
    """
    with connect(lab) as client:
        for name in acknowledge:
            client.alarms.acknowledge(name)
        states = client.alarms.status()
        instruments = {one["id"]: one["state"] for one in client.status()["instruments"]}
    plain = [msgspec.to_builtins(one) for one in states]
    if as_json:
        say_json(out, plain)
    elif not plain:
        out.print(Text(f"{client.name} has no alarms."))
    else:
        out.print(alarm_table(plain, instruments))
        for one in plain:
            if old := aged(one, instruments):
                out.print(escape(f"{one['name']}: its value is {old}"), soft_wrap=True)
        for one in states:
            if one.why:
                out.print(escape(f"{one.name}: {one.why}" + (f" ({one.note})" if one.note else "")), soft_wrap=True)
    return 0 if all(one.state in _OVER for one in states) else 1
