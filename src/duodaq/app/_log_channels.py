"""Which streams a log can have: a name that fits none is a slip of the pen, and would record nothing for weeks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import translate
from typing import Any, Protocol

from duodaq.config import nearest
from duodaq.errors import ConfigError
from duodaq.model import ChannelInfo, InstrumentDefinition, InstrumentStatus
from duodaq.storage._series import fits

_BESIDE = ("events", "frame", "frames", "snap")
"""Streams that an instrument may have without naming them as channels."""
_MOST_NAMED = 20


class ChannelSource(Protocol):
    """What is asked of a manager."""

    @property
    def v4_data(self) -> Any: ...

    def channels(self) -> tuple[ChannelInfo, ...]: ...

    def instruments(self) -> tuple[InstrumentStatus, ...]: ...

    def definition(self, instrument: str) -> InstrumentDefinition: ...


def expect_channels(patterns: Sequence[str], manager: ChannelSource) -> None:
    """See that at least one stream fits at least one of `patterns`; of none, all are meant.

    Channels count that an instrument has told, that the lab file polls, and that were published before. An instrument
    that names none, since it has not started or reads what it is asked for, may have any.

    Raises:
        ConfigError: None does: says what there is, and what was probably meant.
    """
    if not patterns:
        return
    wanted = [re.compile(translate(pattern)) for pattern in patterns]
    known, ids = _known(manager), [status.id for status in manager.instruments()]
    told = {stream.partition(".")[0] for stream in known}
    if any(fits(stream, wanted) for stream in known):
        return
    if any(fits(f"{id}.{name}", wanted) for id in ids for name in _BESIDE):
        return
    if any(_is_of(pattern, id) for pattern in patterns for id in ids if id not in told):
        return
    raise ConfigError(f"no channel fits {', '.join(patterns)}", key="channels", remedy=_remedy(patterns, known, ids))


def _known(manager: ChannelSource) -> list[str]:
    told = {f"{one.instrument}.{one.channel}" for one in manager.channels()}
    polled = set(_polled(manager))
    return sorted(
        told | polled | {stream for streams in manager.v4_data.ledger().produced.values() for stream in streams}
    )


def _polled(manager: ChannelSource) -> Iterator[str]:
    for status in manager.instruments():
        for poll in manager.definition(status.id).polls:
            yield f"{status.id}.{poll.channel}"


def _is_of(pattern: str, instrument: str) -> bool:
    """Whether `pattern` may be meant for a channel of `instrument` that nobody knows yet."""
    first, dot, _ = pattern.partition(".")
    return bool(dot) and fits(instrument, [re.compile(translate(first))])


def _remedy(patterns: Sequence[str], known: Sequence[str], instruments: Sequence[str]) -> str:
    if not known:
        return "This lab has no channel yet; without a name all are recorded, whenever they come"
    spelled = {stream: stream for stream in known} | {f"{id}.*": f"{id}.*" for id in instruments}
    spelled |= {stream.partition(".")[2]: stream for stream in known}
    meant = next((spelled[near] for one in patterns if (near := nearest(one, spelled)) is not None), None)
    more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
    question = f'Did you mean "{meant}"? ' if meant else ""
    return f"{question}There are: {', '.join(known[:_MOST_NAMED])}{more}"
