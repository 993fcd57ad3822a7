"""One recorded instrument, sans-IO: cuts what programs write into commands and says what was recorded, in its time."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any

from duodaq.errors import PortLostError
from duodaq.sim._simulator import Line, Reply, Tally
from duodaq.sim.replay._matching import Matcher
from duodaq.sim.replay._rebuild import Command, cut_lines, is_text
from duodaq.sim.replay._state import split_argument

CLIENTS = 16
_GAP_S = 0.02
"""After so much silence a command without an end of line is whole."""
_LIKE = 0.6
_ENDS = b"\r\n"
_KEPT = 10_000
"""So many different unknown commands are kept by name."""
_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$")


@dataclass(frozen=True, slots=True)
class UnknownPolicy:
    """What a command gets that was never recorded: nothing, a text, the answer to the nearest known one, or the end."""

    kind: str = "silent"
    text: bytes = b""

    @classmethod
    def parse(cls, word: str) -> UnknownPolicy:
        """From ``silent``, ``error=TEXT``, ``nearest`` or ``stop``.

        Raises:
            ValueError: It is none of them.
        """
        kind, _, text = word.partition("=")
        if kind not in ("silent", "error", "nearest", "stop") or bool(text) != (kind == "error"):
            raise ValueError(
                f"{word!r} says not what an unknown command gets; possible: silent, error=TEXT, nearest, stop"
            )
        return cls(kind, text.encode())


class ReplayedInstrument:
    """Answers like the instrument on one port of a recording; several of one recording share its matcher.

    Args:
        matcher: Chooses the answers.
        port: Which port's commands these are.
        lines: Whether commands end with CR or LF, all of them.
        speed: 1 keeps the recorded times, 10 is ten times faster, infinity leaves nothing to wait for.
        unknown: What commands get that were never recorded.

    Attributes:
        unknown: How often each command came that was never recorded.
        unknown_beyond: How many more came when too many different ones had.
        on_unknown: Called with the port and the first of each unknown command.
    """

    model = "recorded"

    def __init__(
        self,
        matcher: Matcher,
        port: str,
        *,
        lines: bool,
        speed: float = math.inf,
        unknown: UnknownPolicy | None = None,
    ) -> None:
        self.name = port
        self.line = Line(processing_s=0.0, max_clients=CLIENTS)
        self.tally = Tally()
        self.paced = False
        self.unknown: Counter[str] = Counter()
        self.unknown_beyond = 0
        self.on_unknown: Callable[[str, str], None] | None = None
        self.broken = 0
        self._matcher = matcher
        self._policy = unknown or UnknownPolicy()
        self._lines = lines
        self._speed = speed
        self._keys = sorted(matcher.keys(port), key=len, reverse=True)
        self._bare = {command.key for command in matcher.commands if command.port == port and not command.ended}
        self._text = all(is_text(key) for key in self._keys)
        self._answered = [key for key in self._keys if matcher.answered(port, key)]
        self._end = _reply_end(port, matcher.commands)
        self._rests: dict[int, bytes] = {}
        self._cut_at_s: dict[int, float] = {}
        self._unasked: list[tuple[float, int, Reply]] = []
        self._pushed = 0
        self._latest: Command | None = None

    def open_session(self, client: int, now_s: float) -> bytes:
        """It says nothing unasked."""
        self._rests[client] = b""
        return b""

    def close_session(self, client: int) -> None:
        """A half-written command goes with its client."""
        self._rests.pop(client, None)
        self._cut_at_s.pop(client, None)
        self._unasked = [due for due in self._unasked if due[2].client != client]
        heapify(self._unasked)

    def feed(self, data: bytes, now_s: float, client: int = 0, pending: int = 0) -> list[Reply]:
        """Take bytes; what they are answered."""
        self.tally.interleavings += bool(pending)
        rest = self._rests.get(client, b"") + data
        if self._lines:
            keys, self._rests[client] = cut_lines(rest)
        else:
            keys, self._rests[client] = self._cut(rest)
            self._cut_at_s.pop(client, None)
            if self._rests[client]:
                self._cut_at_s[client] = now_s + _GAP_S
        return self._take(keys, now_s, client)

    def due(self, now_s: float) -> list[Reply]:
        """What it says by itself, and the answers to commands that silence has ended."""
        replies: list[Reply] = []
        while self._unasked and self._unasked[0][0] <= now_s:
            replies.append(heappop(self._unasked)[2])
        for client, at_s in tuple(self._cut_at_s.items()):
            if at_s <= now_s:
                del self._cut_at_s[client]
                keys, rest = self._cut(self._rests[client], whole=True)
                self._rests[client] = b""
                replies += self._take([*keys, rest] if rest else keys, now_s, client)
        return replies

    def due_at_s(self) -> float | None:
        """When `due` wants to be called next."""
        return min([*(due[0] for due in self._unasked[:1]), *self._cut_at_s.values()], default=None)

    def power_cycle(self, now_s: float) -> None:
        """What it was about to say is gone; a recording has no other state to lose."""
        self._unasked.clear()
        self._rests = dict.fromkeys(self._rests, b"")
        self._cut_at_s.clear()

    def report(self) -> dict[str, Any]:
        """The tally, the unknown commands with how often each came, and how many exchanges broke off as recorded."""
        return {**self.tally.as_dict(), "unknown": dict(self.unknown), "broken": self.broken}

    # --- commands

    def _cut(self, data: bytes, whole: bool = False) -> tuple[list[bytes], bytes]:
        """Commands told apart by what is known, with or without an end of line; `whole`: nothing more follows."""
        keys: list[bytes] = []
        while data := data.lstrip(_ENDS) if self._text else data:
            if not whole and any(len(key) > len(data) and key.startswith(data) for key in self._keys):
                break
            key = next((key for key in self._keys if data.startswith(key) and self._ends(data, key, whole)), None)
            if key is None:
                key = self._line(data)
                if key == data:
                    break
            keys.append(key)
            data = data[len(key) :]
        return keys, data

    def _ends(self, data: bytes, key: bytes, whole: bool) -> bool:
        """Whether the command `key`, with which `data` begins, ends where it ended when it was recorded.

        One that always had an end of line goes on to it, or to silence: ``1PA1`` is no part of ``1PA12``. One that had
        none may be followed at once by others, but by others that are known, if it stands in a line.
        """
        if not self._text:
            return True
        line = self._line(data)
        if len(line) == len(key):
            return whole or key in self._bare or len(line) < len(data)
        return key in self._bare and (len(line) == len(data) or self._is_known(line))

    def _line(self, data: bytes) -> bytes:
        """What stands before the first end of line; all of it where there is none, or where bytes are no text."""
        return re.split(rb"[\r\n]", data, maxsplit=1)[0] if self._text else data

    def _is_known(self, line: bytes) -> bool:
        """Whether nothing but known commands stand in this line, of which the last may be one with an end."""
        reached = {0}
        for at in range(len(line)):
            if at in reached:
                ends = ((key, at + len(key)) for key in self._keys if line.startswith(key, at))
                reached |= {end for key, end in ends if key in self._bare or end == len(line)}
        return len(line) in reached

    def _take(self, keys: list[bytes], now_s: float, client: int) -> list[Reply]:
        replies: list[Reply] = []
        for key in keys:
            self.tally.commands += 1
            delay_s, data = self._answer(key, now_s, client)
            if data:
                self.tally.exchanges += 1
                replies.append(Reply(delay_s, data, client))
        return replies

    def _answer(self, key: bytes, now_s: float, client: int) -> tuple[float, bytes]:
        command = self._matcher.write(self.name, key)
        if command is None:
            self._count_unknown(key.decode("latin-1"))
            near = self._near(key) if self._policy.kind == "nearest" else None
            if near is None:
                return 0.0, self._unknown(key)
            command = self._matcher.write(self.name, near)
            assert command is not None, "what was recorded is known"
        self.broken += command.broken
        if command is not self._latest:
            self._schedule(command, now_s, client)
        self._latest = command
        last_s = command.reply[-1][0] if command.reply else 0.0
        return last_s / self._speed, command.answer

    def _schedule(self, command: Command, now_s: float, client: int) -> None:
        for after_s, data in command.unasked:
            self._pushed += 1
            heappush(self._unasked, (now_s + after_s / self._speed, self._pushed, Reply(0.0, data, client)))

    # --- what was never recorded

    def _count_unknown(self, key: str) -> None:
        if key not in self.unknown and len(self.unknown) >= _KEPT:
            self.unknown_beyond += 1
            return
        self.unknown[key] += 1
        if self.unknown[key] == 1 and self.on_unknown is not None:
            self.on_unknown(self.name, key)

    def _unknown(self, key: bytes) -> bytes:
        if self._policy.kind == "stop":
            raise PortLostError(f"{self.name} was told {key!r}, which was never recorded")
        if self._policy.kind == "error" and self._asks(key):
            return self._policy.text + self._end
        return b""

    def _asks(self, key: bytes) -> bool:
        """Whether an answer may be waited for: where queries have question marks, only to those."""
        return b"?" in key or not any(b"?" in known for known in self._answered)

    def _near(self, key: bytes) -> bytes | None:
        """The known command that is most like it: the same one with the nearest number, or one that is written so."""
        subject, argument = split_argument(key)
        same = [known for known in self._keys if split_argument(known)[0] == subject and b"?" not in known + key]
        numbers = {known: float(split_argument(known)[1]) for known in same if _NUMBER.match(split_argument(known)[1])}
        if numbers and _NUMBER.match(argument):
            return min(numbers, key=lambda known: abs(numbers[known] - float(argument)))
        asks = b"?" in key
        texts = {known.decode("latin-1"): known for known in self._keys if (b"?" in known) is asks}
        found = difflib.get_close_matches(key.decode("latin-1"), texts, n=1, cutoff=_LIKE)
        return texts[found[0]] if found else None


def _reply_end(port: str, commands: Sequence[Command]) -> bytes:
    """What ends most replies on this port."""
    ends: Counter[bytes] = Counter()
    for command in commands:
        if command.port == port and command.reply:
            ends[command.answer[len(command.answer.rstrip(b"\r\n")) :]] += 1
    return ends.most_common(1)[0][0] if ends else b"\n"
