"""Which recorded answer a command gets. Pure: commands in, recorded commands out.

The rules that must stay:

* Whoever writes exactly what was recorded, in that order, is answered exactly as recorded (with ``in_order``; without
  it the one exception is below). Each rule keeps the right one among those it leaves, so no rule may be made harder.
* A query is answered from the state it is asked in: first by what was set (on its own port, then on all others of the
  recording), then by the stretch of the recording that the last setting began, then by what the device last said of
  itself (busy or not), then in order. What the device last said only prefers: a program that waits for an answer to
  change comes to that change, however it asks.
* Where an action's readings and a poll's stand in one stretch, actions' readings are served to everybody, for polls go
  by the wall clock, and a scan shall find at each point what it found there.
* An exchange that broke off is silent again only where all went as recorded; else another answers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from duodaq.sim.replay._rebuild import Command
from duodaq.sim.replay._state import Entry, History, State, split_argument

AtEnd = Literal["repeat", "cycle"]
"""What a query gets when all recorded answers of its state have been given: the last again, or all of them again."""

_AHEAD = 64
"""How many answers ahead a better one is looked for."""


@dataclass(slots=True)
class _Known:
    """All that was recorded of one command: where, and in which states."""

    answered: bool = False
    sets: bool = False
    steady: bool = False
    broken: bool = False
    places: list[int] = field(default_factory=list[int])
    by_state: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict[int, list[int]](list))


class Matcher:
    """Follows one program, or several, through a recording.

    Args:
        commands: The recording.
        in_order: Answers of equal state strictly in recorded order, polls' too.
        at_end: What comes when they are used up.
    """

    def __init__(self, commands: Sequence[Command], *, in_order: bool = False, at_end: AtEnd = "repeat") -> None:
        self.commands = commands
        self._in_order = in_order
        self._at_end: AtEnd = at_end
        self._known: defaultdict[Entry, _Known] = defaultdict(_Known)
        self._settings, self._replies = History(), History()
        self._marks: list[int] = []
        self._setters: list[int] = []
        self._previous: list[int] = []
        self._learn()
        self._state, self._said = State(), State()
        self._stretch = -1
        self._last: dict[Entry, int] = {}
        self._last_on: dict[str, int] = {}
        self._places: dict[Entry, list[int]] = {}

    def knows(self, port: str, key: bytes) -> bool:
        """Whether this command was recorded on this port."""
        return (port, key) in self._known

    def keys(self, port: str) -> list[bytes]:
        """Every command that was recorded on this port."""
        return [key for name, key in self._known if name == port]

    def answered(self, port: str, key: bytes) -> bool:
        """Whether it was ever answered."""
        return self._known[port, key].answered

    def write(self, port: str, key: bytes) -> Command | None:
        """Take a command: the recorded one whose answer it gets, or None if it was never recorded."""
        known = self._known.get((port, key))
        if known is None:
            self.set(port, key)
            return None
        if known.sets:
            self.set(port, key)
            self._follow(known)
        found = self._choose((port, key), known)
        self._last[port, key] = self._last_on[port] = found
        command = self.commands[found]
        if known.steady and command.reply:
            self._said.put((port, key), command.answer)
        return command

    def set(self, port: str, key: bytes) -> None:
        """Take a command for what it sets, if it may set anything, and answer nothing."""
        if b"?" not in key:
            subject, argument = split_argument(key)
            self._state.put((port, subject), argument)
            self._places.clear()

    # --- what was recorded

    def _learn(self) -> None:
        for command in self.commands:
            known = self._known[command.port, command.key]
            known.answered |= bool(command.reply)
            known.broken |= command.broken
            known.places.append(command.index)
        for (_, key), known in self._known.items():
            answers = [self.commands[place].answer for place in known.places]
            known.steady = 2 * len(set(answers)) <= len(answers)
            known.sets = b"?" not in key and (not known.answered or bool(split_argument(key)[1]))
        state = State()
        latest: dict[str, int] = {}
        for command in self.commands:
            entry = (command.port, command.key)
            known = self._known[entry]
            if known.sets:
                subject, argument = split_argument(command.key)
                state.put((command.port, subject), argument)
                self._settings.put((command.port, subject), argument, command.index)
            if known.steady and command.reply:
                self._replies.put(entry, command.answer, command.index)
            self._marks.append(state.mark)
            if known.sets:
                self._setters.append(command.index)
            known.by_state[state.mark].append(command.index)
            self._previous.append(latest.get(command.port, -1))
            latest[command.port] = command.index

    # --- where the program is

    def _follow(self, known: _Known) -> None:
        """A setting was written: find the stretch of the recording that it begins."""
        alike = known.by_state.get(self._state.mark)
        if alike is not None:
            later = bisect_right(alike, self._stretch)
            if later < len(alike):
                self._stretch = alike[later]
            elif self._stretch < 0 or self._marks[self._stretch] != self._state.mark:
                self._stretch = alike[0]
            return
        later = bisect_right(known.places, self._stretch)
        self._stretch = known.places[later] if later < len(known.places) else known.places[0]

    def _choose(self, entry: Entry, known: _Known) -> int:
        if entry not in self._places:  # as long as nothing is set, they are the same
            self._places[entry] = self._of_actions(self._in_stretch(self._in_state(entry, known)))
        places = self._places[entry]
        if known.broken:
            places = self._whole(places, known, entry[0])
        last = self._last.get(entry, -1)
        later = bisect_right(places, last)
        if later == len(places):
            return self._again(places, last)
        return self._as_said(places[later : later + _AHEAD], entry)

    def _again(self, places: list[int], last: int) -> int:
        if last in places[-1:] and self._at_end == "repeat":
            return last
        return places[0]

    def _in_state(self, entry: Entry, known: _Known) -> list[int]:
        """Where what had been set was the same as now, or most like it."""
        alike = known.by_state.get(self._state.mark)
        if alike is not None:
            return alike
        firsts = [places[0] for places in known.by_state.values()]
        found = self._settings.nearest(firsts, self._state, entry[0])
        return known.by_state[self._marks[found]]

    def _in_stretch(self, places: list[int]) -> list[int]:
        setters = self._setters
        after = bisect_right(setters, self._stretch)
        first = max(self._stretch, 0)
        end = setters[after] if after < len(setters) else len(self.commands)
        return places[bisect_left(places, first) : bisect_left(places, end)] or places

    def _of_actions(self, places: list[int]) -> list[int]:
        if self._in_order:
            return places
        return [place for place in places if self.commands[place].traced] or places

    def _whole(self, places: list[int], known: _Known, port: str) -> list[int]:
        """Leave out what broke off, unless the program stands where that happened."""
        before = self._last_on.get(port, -1)

        def fits(place: int) -> bool:
            return not self.commands[place].broken or self._previous[place] == before

        return [p for p in places if fits(p)] or [p for p in known.places if not self.commands[p].broken] or places

    def _as_said(self, later: list[int], entry: Entry) -> int:
        """The next one, or the first after it that came while the device said more nearly the same of itself as now."""
        if self._replies.agrees(later[0], self._said, apart=entry):
            return later[0]
        return self._replies.nearest(later, self._said, entry[0], apart=entry)
