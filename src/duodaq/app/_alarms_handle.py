from __future__ import annotations

from collections.abc import Iterator

import msgspec

from duodaq.app._channel import Channel
from duodaq.app._pages import alarms_page, shown, told
from duodaq.app._user import user_name
from duodaq.model import AlarmStatus


class AlarmsHandle:
    """The alarms of a lab, for scripts and notebooks; every look asks the lab."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def status(self) -> list[AlarmStatus]:
        """Every alarm as it stands now."""
        return msgspec.convert(self._channel.request("alarms", {}), list[AlarmStatus])

    def acknowledge(self, name: str, by: str | None = None) -> AlarmStatus:
        """Say that somebody knows of a raised alarm; how it stands then.

        Args:
            name: Which.
            by: Who; the user of this program, if nobody is named.

        Raises:
            LifecycleError: There is no such alarm.
        """
        facts = {"alarm": name, "who": by if by is not None else user_name()}
        return msgspec.convert(self._channel.request("acknowledge", facts), AlarmStatus)

    def __iter__(self) -> Iterator[AlarmStatus]:
        return iter(self.status())

    def __getitem__(self, name: str) -> AlarmStatus:
        states = {one.name: one for one in self.status()}
        if name not in states:
            raise KeyError(f"no alarm {name!r}; there are: {', '.join(states) or 'none'}")
        return states[name]

    def _repr_html_(self) -> str:
        return shown("alarms", lambda: alarms_page(self.status()))

    def __repr__(self) -> str:
        return told("alarms", lambda: ", ".join(f"{one.name} {one.state}" for one in self) or "none")
