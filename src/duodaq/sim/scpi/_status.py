"""The IEEE 488.2 and SCPI status model: which bit says what, and when the instrument asks for service."""

from __future__ import annotations

from enum import IntFlag

from duodaq.sim.scpi._fault import ErrorQueue, ScpiFault, event_bit

__all__ = ["Event", "Operation", "RegisterGroup", "Status", "StatusByte"]

_REGISTER_MASK = 0x7FFF


class StatusByte(IntFlag):
    """Bits of ``*STB?``."""

    ERROR_QUEUE = 1 << 2
    QUESTIONABLE = 1 << 3
    MESSAGE_AVAILABLE = 1 << 4
    EVENT = 1 << 5
    MASTER = 1 << 6
    OPERATION = 1 << 7


class Event(IntFlag):
    """Bits of ``*ESR?``."""

    OPERATION_COMPLETE = 1 << 0
    REQUEST_CONTROL = 1 << 1
    QUERY_ERROR = 1 << 2
    DEVICE_ERROR = 1 << 3
    EXECUTION_ERROR = 1 << 4
    COMMAND_ERROR = 1 << 5
    USER_REQUEST = 1 << 6
    POWER_ON = 1 << 7


class Operation(IntFlag):
    """Bits of the OPERation condition that this project's instruments use."""

    CALIBRATING = 1 << 0
    SWEEPING = 1 << 3
    MEASURING = 1 << 4
    WAITING_FOR_TRIGGER = 1 << 5


class RegisterGroup:
    """Condition, transition filters, latched event and enable of one 15-bit status group."""

    def __init__(self) -> None:
        self.condition = 0
        self._event = 0
        self.enable = 0
        self.positive = _REGISTER_MASK
        self.negative = 0

    @property
    def event(self) -> int:
        """The latched events, without clearing them."""
        return self._event

    @property
    def summary(self) -> bool:
        """Whether an enabled event is latched."""
        return bool(self._event & self.enable)

    def set_condition(self, bits: int) -> None:
        """The live condition is now `bits`; what the filters let through is latched."""
        rose, fell = bits & ~self.condition, self.condition & ~bits
        self._event |= (rose & self.positive) | (fell & self.negative)
        self.condition = bits

    def take_event(self) -> int:
        """Read the latched events and clear them."""
        event, self._event = self._event, 0
        return event

    def preset(self) -> None:
        """``STATus:PRESet``: nothing enabled, rising edges pass. Events stay."""
        self.enable, self.positive, self.negative = 0, _REGISTER_MASK, 0


class Status:
    """All registers of one instrument, its error queue, and the service request they make."""

    def __init__(self, queue_size: int = 20) -> None:
        self.errors = ErrorQueue(queue_size)
        self.operation = RegisterGroup()
        self.questionable = RegisterGroup()
        self.event = int(Event.POWER_ON)
        self.event_enable = 0
        self.service_enable = 0
        self.power_on_clear = True
        self.message_available = False
        self.service_requests = 0
        self._requesting = False
        self._reasons = 0

    @property
    def requesting(self) -> bool:
        """RQS: a service request that no serial poll has answered yet."""
        return self._requesting

    def byte(self) -> int:
        """``*STB?``: the status byte with the master summary in bit 6. Nothing is cleared."""
        summary = self._summary()
        return summary | (StatusByte.MASTER if summary & self.service_enable else 0)

    def serial_poll(self) -> int:
        """The status byte with RQS in bit 6, which this clears."""
        byte = self._summary() | (StatusByte.MASTER if self._requesting else 0)
        self._requesting = False
        return byte

    def fault(self, fault: ScpiFault) -> None:
        """An error happened: queue it and set its event."""
        self.errors.push(fault.code, fault.info)
        self.event |= 1 << event_bit(fault.code)
        self.update()

    def post(self, event: Event) -> None:
        """Latch a standard event."""
        self.event |= event
        self.update()

    def take_event(self) -> int:
        """``*ESR?``: read and clear."""
        event, self.event = self.event, 0
        self.update()
        return event

    def clear(self) -> None:
        """``*CLS``: event registers and error queue. Enables, filters and conditions stay."""
        self.errors.clear()
        self.event = 0
        self.operation.take_event()
        self.questionable.take_event()
        self.update()

    def preset(self) -> None:
        """``STATus:PRESet`` on both groups."""
        self.operation.preset()
        self.questionable.preset()
        self.update()

    def set_service_enable(self, mask: int) -> None:
        """``*SRE``; bit 6 cannot be enabled."""
        self.service_enable = mask & ~StatusByte.MASTER
        self.update()

    def update(self) -> None:
        """Look at the registers again: a new reason raises a request, no reason left withdraws it."""
        reasons = self._summary() & self.service_enable
        if reasons & ~self._reasons:
            self._requesting = True
            self.service_requests += 1
        if not reasons:
            self._requesting = False
        self._reasons = reasons

    def _summary(self) -> int:
        return (
            (StatusByte.ERROR_QUEUE if len(self.errors) else 0)
            | (StatusByte.QUESTIONABLE if self.questionable.summary else 0)
            | (StatusByte.MESSAGE_AVAILABLE if self.message_available else 0)
            | (StatusByte.EVENT if self.event & self.event_enable else 0)
            | (StatusByte.OPERATION if self.operation.summary else 0)
        )
