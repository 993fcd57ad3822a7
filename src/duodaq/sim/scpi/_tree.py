"""The command tree: patterns as manuals print them (``[SENSe:]VOLTage[:DC]:RANGe``), found by what a client wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product

from duodaq.sim.scpi._argument import Args, keyword_forms
from duodaq.sim.scpi._fault import ScpiFault
from duodaq.sim.scpi._grammar import Unit

__all__ = ["Command", "CommandTree", "Reply", "Wait"]

_NODE = re.compile(r"(\[)?:?([A-Za-z*][A-Za-z0-9_]*)(#)?:?(\])?")


@dataclass(frozen=True, slots=True)
class Wait:
    """A handler's word that its reply (or, for a setter, its end) comes later: `poll` gives None until then."""

    poll: Callable[[], bytes | None]


Reply = str | bytes | Wait | None
Handler = Callable[[Args], Reply]


@dataclass(frozen=True, slots=True)
class Command:
    """One header: what its setting form does and what its query form answers; None where the form does not exist."""

    pattern: str
    set: Handler | None = None
    query: Handler | None = None
    most: int = 1  # parameters, of either form
    arbitrary: bool = False  # replies with arbitrary ASCII, so no further query may follow in the message


@dataclass(slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict[str, "_Node"])
    command: Command | None = None
    numbered: bool = False


class CommandTree:
    """All headers of one instrument."""

    def __init__(self, commands: Iterable[Command]) -> None:
        self._root = _Node()
        self.commands = tuple(commands)
        for command in self.commands:
            self._add(command)

    def find(self, unit: Unit) -> tuple[Command, Handler, tuple[int, ...]]:
        """The command a unit names, its handler for the form used, and the numeric suffixes of its numbered nodes.

        Raises:
            ScpiFault: -113 for a header or form that does not exist, -114 for a suffix where none but 1 is known.
        """
        node, suffixes = self._root, list[int]()
        for mnemonic in unit.path:
            node = self._step(node, mnemonic, suffixes)
        command = node.command
        handler = (command.query if unit.query else command.set) if command else None
        if command is None or handler is None:
            raise ScpiFault(-113)
        return command, handler, tuple(suffixes)

    def _step(self, node: _Node, mnemonic: str, suffixes: list[int]) -> _Node:
        if child := node.children.get(mnemonic):
            if child.numbered:
                suffixes.append(1)
            return child
        word = mnemonic.rstrip("0123456789")
        child = node.children.get(word)
        if child is None:
            raise ScpiFault(-113)
        number = int(mnemonic[len(word) :])
        if child.numbered:
            suffixes.append(number)
        elif number != 1:
            raise ScpiFault(-114)
        return child

    def _add(self, command: Command) -> None:
        nodes = [(match[2], bool(match[1]), bool(match[3])) for match in _NODE.finditer(command.pattern)]
        optional = [index for index, node in enumerate(nodes) if node[1]]
        for choice in product((True, False), repeat=len(optional)):
            left_out = {index for index, kept in zip(optional, choice, strict=True) if not kept}
            self._insert([node for index, node in enumerate(nodes) if index not in left_out], command)

    def _insert(self, nodes: list[tuple[str, bool, bool]], command: Command) -> None:
        here = self._root
        for name, _, numbered in nodes:
            short, long = keyword_forms(name)
            child = here.children.get(short) or here.children.get(long) or _Node(numbered=numbered)
            here.children[short] = here.children[long] = child
            here = child
        if here.command is not None:
            raise ValueError(f"{command.pattern} and {here.command.pattern} are the same header")
        here.command = command
