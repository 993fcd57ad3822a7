"""One stanza from V2 to V4, as plain values: a decision, without a file or a lab."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from duodaq.migration._equivalents import Equivalents
from duodaq.units import parse_duration_s

KEPT = ("port", "required", "autostart", "worker", "stop")
"""Keys that mean the same in both runtimes."""
_DROPPED = {"kill_after": "an actor that does not end is killed at options.stop_timeout_s"}
_NEEDLESS = {"passive": "an actor's handlers say themselves what moves"}
_TURNED = frozenset({"runtime", "driver", "axes", "args", "settings", "limits", "deadline", "poll", "safe", "options"})
_KNOWN = frozenset({*KEPT, *_TURNED, *_DROPPED, *_NEEDLESS})
_SHARED_OPTIONS = frozenset({"on_reconnect", "requeue"})


@dataclass
class Converted:
    """A stanza in V4.

    Attributes:
        stanza: What stands in it, in the order in which it is written.
        unsaid: What of V2's could not be said in V4, and why: a line each.
        needless: What needs not be said there, and why.
    """

    stanza: dict[str, Any] = field(default_factory=dict[str, Any])
    unsaid: list[str] = field(default_factory=list[str])
    needless: list[str] = field(default_factory=list[str])


def to_v4(stanza: Mapping[str, Any], equivalents: Equivalents) -> Converted:
    """The V4 stanza that stands for a V2 one, whose V4 driver is known.

    Args:
        stanza: The table of the lab file.
        equivalents: What its driver's names are called in V4.
    """
    done = Converted({"runtime": "v4", "driver": equivalents.driver})
    made = _Making(stanza, equivalents, done)
    for key in stanza:
        if key in KEPT:
            done.stanza[key] = stanza[key]
    made.axes()
    made.args()
    made.settings()
    made.limits()
    made.deadline()
    made.polls()
    made.safe()
    made.options()
    done.unsaid += [f"{key}: {why}" for key, why in _DROPPED.items() if key in stanza]
    done.unsaid += [f"{key}: nothing in V4 stands for it" for key in stanza.keys() - _KNOWN]
    done.needless = [f"{key}: {why}" for key, why in _NEEDLESS.items() if key in stanza]
    return done


def left_unsaid(v2: Mapping[str, Any], v4: Mapping[str, Any], equivalents: Equivalents) -> list[str]:
    """What a V4 stanza, as it stands in a file, does not say of the V2 one that it stands for: a line each.

    What somebody wrote into it by hand, under V2's name, is said.
    """
    made = to_v4(v2, equivalents)
    lost: list[str] = []
    for line in made.unsaid:
        key, name = _subject(line)
        by_hand = name in _names_in(v4, key) if name else key in v4 and key not in made.stanza
        if not by_hand:
            lost.append(line)
    for key in ("settings", "limits", "poll", "safe"):
        missing = _names_in(made.stanza, key) - _names_in(v4, key)
        lost += [f"{key}: {name}: the V4 stanza does not say it, and could" for name in sorted(missing)]
    for axis, table in made.stanza.get("axes", {}).items():
        if "limits" in table and "limits" not in v4.get("axes", {}).get(axis, {"limits": ()}):
            lost.append(f"axes.{axis}: the V4 stanza has no limits for it, and could")
    return lost


def _subject(line: str) -> tuple[str, str]:
    """The key of a stanza that a line is about, and the name in it."""
    head, _, rest = line.partition(": ")
    key, _, name = head.partition(".")
    return key, name or (rest.partition(": ")[0] if key in ("settings", "limits", "deadline", "options") else "")


def _names_in(stanza: Mapping[str, Any], key: str) -> set[str]:
    found: Any = stanza.get(key, ())
    return set(cast("Iterable[str]", found)) if isinstance(found, Mapping | list | tuple) else set()


class _Making:
    def __init__(self, stanza: Mapping[str, Any], equivalents: Equivalents, done: Converted) -> None:
        self._old = stanza
        self._same = equivalents
        self._new = done.stanza
        self._unsaid = done.unsaid
        self._rates: dict[str, float] = {}

    def axes(self) -> None:
        """The axes that it names, and those that its polls and settings use."""
        axes: dict[str, Any] = dict(self._old.get("axes", {}))
        if not self._same.axes:
            if axes:
                self._new["axes"] = axes
            return
        for name in self._names():
            axis, dot, _ = name.partition(".")
            if dot and axis in self._same.axes and axis not in axes:
                axes[axis] = {"number": self._same.axes[axis], "unit": self._unit_of(axis) or "mm"}
                if f"{axis}.position" in self._table("limits"):
                    continue
                self._unsaid.append(f"axes.{axis}: V2 has no limits for it; give it limits = [lowest, highest]")
        if not axes:
            axes["x"] = {"number": 1, "unit": "mm"}
            self._unsaid.append("axes: V2 does not say which there are; x is axis 1 here, in mm and without limits")
        for axis, table in axes.items():
            if limits := self._table("limits").get(f"{axis}.position"):
                axes[axis] = {**table, "limits": table.get("limits", limits)}  # every way of moving it keeps to these
        self._new["axes"] = axes

    def args(self) -> None:
        """What the polls' rates become; V2's own arguments are for another constructor."""
        if given := self._table("args"):
            self._unsaid.append(f"args: {', '.join(given)}: arguments of V2's constructor, not of {self._same.driver}")
        for poll in self._polls():
            channel, rate = self._same.channels.get(self._same.parameter(_asked(poll[1])) or "", ("", ""))
            if channel == poll[0] and (every_s := parse_duration_s(poll[1].get("every", 1.0))):
                self._rates[rate] = round(1 / every_s, 6)
        if self._rates:
            self._new["args"] = dict(self._rates)

    def settings(self) -> None:
        given = self._old.get("settings")
        if given is None:
            return
        found: dict[str, Any] = {}
        watched: list[str] = []
        for name in given:
            wanted = self._same.parameter(name)
            if wanted is None:
                self._unsaid.append(f"settings: {name}: {self._same.lacks}")
            elif isinstance(given, Mapping):
                found[wanted] = given[name]
            else:
                watched.append(wanted)
        if found or watched:
            self._new["settings"] = found or watched

    def limits(self) -> None:
        """What a setting may be set to, under V4's name; of an axis that has got its own they stand there."""
        kept: dict[str, Any] = {}
        for name, limits in self._table("limits").items():
            wanted = self._same.parameter(name)
            if wanted is None:
                self._unsaid.append(f"limits: {name}: {self._same.lacks}; nothing keeps to these limits in V4")
            elif self._new.get("axes", {}).get(name.removesuffix(".position"), {}).get("limits") != limits:
                kept[wanted] = limits
        if kept:
            self._new["limits"] = kept

    def deadline(self) -> None:
        given = self._old.get("deadline")
        if given is None:
            return
        if not isinstance(given, Mapping):
            self._new["deadline"] = given
            return
        kept: dict[str, Any] = {}
        for name, limit in cast("Mapping[str, Any]", given).items():
            wanted = name if name == "default" else self._same.calls.get(name) or self._same.parameter(name)
            if wanted is None and (polled := [c for c, p in self._polls() if name in (p.get("read"), p.get("call"))]):
                kept |= dict.fromkeys(polled, limit)
            elif wanted is None:
                self._unsaid.append(f"deadline: {name}: {self._same.driver} has no method or channel of that name")
            else:
                kept[wanted] = limit
        if kept:
            self._new["deadline"] = kept

    def polls(self) -> None:
        kept: dict[str, Any] = {}
        for channel, poll in self._polls():
            asked = _asked(poll)
            parameter = self._same.parameter(asked)
            own = self._same.channels.get(parameter or "", ("", ""))[0]
            if own == channel:
                continue  # the actor has this channel of itself, at the rate that args give
            wanted = self._same.queries.get(asked) or parameter
            how = {"read": wanted} if wanted else self._same.polled.get(channel)
            if how is None or poll.get("args"):
                why = f"{self._same.driver} has nothing like {asked}" if self._same.told else self._same.lacks
                self._unsaid.append(f"poll.{channel}: {why}")
                continue
            if channel in self._new.get("axes", {}):
                self._unsaid.append(f"poll.{channel}: V4's axis {channel} has a stream of that name; rename one")
                continue
            kept[channel] = {**how, **{k: poll[k] for k in ("unit", "every") if k in poll}}
        if kept:
            self._new["poll"] = kept

    def safe(self) -> None:
        kept: dict[str, Any] = {}
        for cause, action in self._table("safe").items():
            table: Mapping[str, Any] = cast("Any", action) if isinstance(action, Mapping) else {}
            called = table.get("call")
            if called is None:
                kept[cause] = action
            elif called in self._same.calls:
                kept[cause] = {**table, "call": self._same.calls[called]}
            else:
                self._unsaid.append(f"safe.{cause}: {self._same.driver} has no operation {called}")
        if kept:
            self._new["safe"] = kept

    def options(self) -> None:
        given = self._table("options")
        kept = {key: value for key, value in given.items() if key in _SHARED_OPTIONS}
        self._unsaid += [f"options: {key}: only V2 knows it" for key in given if key not in {*kept, "acquire"}]
        if given.get("acquire", True) and self._table("poll"):
            kept["acquire"] = True  # V2 polls by itself, an actor when it is told to
        if kept:
            self._new["options"] = kept

    def _names(self) -> list[str]:
        named = [_asked(poll) for _, poll in self._polls()]
        return [*named, *self._old.get("settings", ()), *self._table("limits")]

    def _unit_of(self, axis: str) -> str:
        return next((p.get("unit", "") for _, p in self._polls() if _asked(p) == f"{axis}.position"), "")

    def _polls(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [*self._table("poll").items()]

    def _table(self, key: str) -> Mapping[str, Any]:
        found = self._old.get(key, {})
        return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


def _asked(poll: Mapping[str, Any]) -> str:
    return poll.get("read") or poll.get("call") or ""
