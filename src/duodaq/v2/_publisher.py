from __future__ import annotations

from duodaq.dataplane import Hub
from duodaq.errors import MailboxFullError, StoppedError
from duodaq.model import Measurement
from duodaq.telemetry import get_logger
from duodaq.v2._figures import Figures
from duodaq.v2._reading import Reading

LOSSLESS_WAIT_S = 5.0
_LOG = get_logger("v2.publisher")


class Sequences:
    """The number of the next measurement of every channel: from 0, without a gap, across restarts of its driver."""

    def __init__(self) -> None:
        self._next: dict[tuple[str, str], int] = {}

    def next_of(self, instrument: str, channel: str) -> int:
        """The number that the next measurement of this channel gets."""
        return self._next.get((instrument, channel), 0)

    def used(self, instrument: str, channel: str) -> None:
        """It is being given away, and is nobody else's from now on."""
        self._next[instrument, channel] = self.next_of(instrument, channel) + 1

    def returned(self, instrument: str, channel: str, sequence: int) -> None:
        """Nobody got it: the next measurement does, unless one after it has been given away meanwhile."""
        if self.next_of(instrument, channel) == sequence + 1:
            self._next[instrument, channel] = sequence

    def reach(self, instrument: str, channel: str, number: int) -> None:
        """All numbers before `number` have been used, here or by whoever made these measurements before."""
        if self.next_of(instrument, channel) < number:
            self._next[instrument, channel] = number

    def of(self, instrument: str) -> dict[str, int]:
        """The next number of each channel of an instrument that has one."""
        return {channel: number for (who, channel), number in self._next.items() if who == instrument}


class ReadingPublisher:
    """Gives an instrument's readings their numbers and publishes them; a lossless subscriber slows it, alone."""

    def __init__(self, instrument: str, hub: Hub[Measurement], sequences: Sequences, figures: Figures) -> None:
        self._instrument = instrument
        self._hub = hub
        self._sequences = sequences
        self._figures = figures

    async def publish(self, channel: str, reading: Reading, *, late: bool = False) -> Measurement:
        """Publish `reading`; the measurement. One that cannot be published is counted, and leaves no gap."""
        sequence = self._sequences.next_of(self._instrument, channel)
        measurement = reading.measurement(self._instrument, channel, sequence, {"late": True} if late else None)
        self._sequences.used(self._instrument, channel)  # first: who has it may be killed before this goes on
        offered = False
        try:
            offered = await self._offer(measurement)
        finally:  # also when this is cancelled: nobody was offered it then
            if not offered:
                self._sequences.returned(self._instrument, channel, sequence)
        if offered:
            self._figures.readings += 1
        else:
            self._figures.unpublished += 1
        return measurement

    async def _offer(self, measurement: Measurement) -> bool:
        try:
            self._hub.publish(measurement)
        except MailboxFullError:
            return await self._offer_when_there_is_room(measurement)
        except StoppedError:
            return False
        return True

    async def _offer_when_there_is_room(self, measurement: Measurement) -> bool:
        try:
            await self._hub.publish_wait(measurement, LOSSLESS_WAIT_S)
        except (MailboxFullError, StoppedError) as error:
            _LOG.error("measurement lost", instrument=self._instrument, channel=measurement.channel, error=str(error))
            return False
        return True
