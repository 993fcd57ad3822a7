"""A shadow of a recorded wire log: no instrument, no lab, no waiting."""

from __future__ import annotations

from collections.abc import Iterable

from duodaq.errors import DuodaqError, LifecycleError
from duodaq.migration._beside import Beside
from duodaq.migration._exchanges import Exchanges
from duodaq.migration._report import ShadowReport
from duodaq.migration._shadow import Shadow
from duodaq.model import ReadChannel, WireRecord

_MOST_ROUNDS = 100_000
_READ_S = 10.0


async def shadow_recording(beside: Beside, records: Iterable[WireRecord], source: str = "a recording") -> ShadowReport:
    """Have the V4 driver read all its channels, again and again, until it has used all that V2 was told.

    Its values are compared with the numbers in the replies that they were made of. A recording has no pace, and does
    not say which commands V2 wrote for: neither rates nor orders are compared.

    Args:
        beside: What is compared.
        records: Of the instrument's port, oldest first.
        source: Where they come from, for the report.

    Raises:
        LifecycleError: V2 is not on this recording.
        ConfigError: The port has no codec.
    """
    shadow = Shadow(beside, source=source, in_order=True)
    exchanges = Exchanges(shadow.line.codec, beside.v2.id)
    try:
        seen = [one for record in records if (one := exchanges.take(record)) is not None]
        if not any(deed.asks for one in seen for deed in one.deeds):
            raise LifecycleError("it asked nothing on this recording", instrument=beside.v2.id, port=beside.port.name)
        for one in seen:
            shadow.take_exchange(one)
        await shadow.start()
        await _read_all(shadow)
        await shadow.rest()
        shadow.compare_with_replies(seen)
        return shadow.report()
    finally:
        await shadow.aclose()


async def _read_all(shadow: Shadow) -> None:
    """Read until nothing more of what V2 was told is used."""
    channels = [info.channel for info in shadow.runtime.channels() if info.kind == "scalar"]
    for _ in range(_MOST_ROUNDS):
        before = shadow.unused()
        for channel in channels:
            try:
                await shadow.runtime.command(shadow.beside.v4.id, ReadChannel(channel), _READ_S)
            except DuodaqError as error:
                shadow.note_error(f"reading {channel}", error)
        shadow.collect()
        if shadow.unused() == before:
            return
