"""One VISA session on a shared port: every operation as VISA knows it, carried out by the lab's broker."""

from __future__ import annotations

import contextlib
from typing import Any

from pyvisa import constants
from pyvisa.constants import (
    AccessModes,
    BufferOperation,
    InterfaceType,
    Lock,
    ResourceAttribute,
    SerialTermination,
    StatusCode,
    TriggerProtocol,
)
from pyvisa.highlevel import ResourceInfo

from duodaq.errors import LifecycleError, PortError
from duodaq.ports import BlockingSession, LockAction, LockOutcome, LockVerdict, ReadEnd, status_query_of
from pyvisa_duodaq._attributes import SessionAttributes

LONGEST_S = 86400.0
"""An infinite time-out still lets go of the port after a day without a reply."""

LEASE_WAIT_S = 5.0
"""How long a write waits for its turn at least, however short the session's time-out: that is about the instrument."""

_STATES = {
    "": AccessModes.no_lock,
    "exclusive": AccessModes.exclusive_lock,
    "shared": AccessModes.shared_lock,
}
_VERDICTS = {
    LockVerdict.DONE: StatusCode.success,
    LockVerdict.NESTED_EXCLUSIVE: StatusCode.success_nested_exclusive,
    LockVerdict.NESTED_SHARED: StatusCode.success_nested_shared,
    LockVerdict.NOT_LOCKED: StatusCode.error_session_not_locked,
    LockVerdict.WRONG_KEY: StatusCode.error_invalid_access_key,
    LockVerdict.LOCKED: StatusCode.error_resource_locked,
    LockVerdict.TOO_LATE: StatusCode.error_timeout,
}
_LOCKED = (LockVerdict.DONE, LockVerdict.NESTED_EXCLUSIVE, LockVerdict.NESTED_SHARED)
_LONGEST_KEY = 255
OPENED_SHARED = "opened shared"
"""The key of everybody who opens a resource with the access mode `shared_lock`."""

_READ_BUFFERS = (
    BufferOperation.discard_read_buffer
    | BufferOperation.discard_read_buffer_no_io
    | BufferOperation.discard_receive_buffer
    | BufferOperation.discard_receive_buffer2
)


class VisaSession:
    """A session of `line`. Operations return VISA's status; what the port's owner refuses is raised as it is.

    Args:
        line: The session at the broker.
        info: What PyVISA knows of the resource.
        manager: The handle of the resource manager.
        lent: Whether the line belongs to a hosted driver's instrument, which closes it.
    """

    def __init__(self, line: BlockingSession, info: ResourceInfo, manager: int, *, lent: bool) -> None:
        self.line = line
        self.locked_by = ""
        self._lent = lent
        self._serial = info.interface_type is InterfaceType.asrl
        self._message_ends = info.resource_class == "INSTR" and not self._serial
        self._attributes = SessionAttributes(line.definition, info, manager)
        self._timeout_ms = 0
        self._locks = 0
        self._set_timeout(2000)

    def close(self) -> StatusCode:
        """Give everything back; of a lent line what this session has locked. One that has ended has nothing left."""
        if not self._lent:
            self.line.close()
            return StatusCode.success
        with contextlib.suppress(LifecycleError, PortError):
            self.line.clear()
            while self._locks:
                self.unlock()
        return StatusCode.success

    # --- messages

    def write(self, data: bytes) -> tuple[int, StatusCode]:
        """Write all of `data`; a terminating character of the line's own is added where the session says so."""
        if not data:
            return 0, StatusCode.success
        end = b""
        if (
            self._serial
            and self._attributes.value(ResourceAttribute.asrl_end_out) == SerialTermination.termination_char
        ):
            end = self._terminator()
        ends = self._message_ends and bool(self._attributes.value(ResourceAttribute.send_end_enabled))
        self.line.write(bytes(data) + end, whole=ends)
        return len(data), StatusCode.success

    def read(self, count: int) -> tuple[bytes, StatusCode]:
        """The next message, `count` bytes of it at most."""
        by_end_in = (
            self._serial and self._attributes.value(ResourceAttribute.asrl_end_in) == SerialTermination.termination_char
        )
        by_termchar = bool(self._attributes.value(ResourceAttribute.termchar_enabled))
        no_end = self._serial and not by_end_in
        suppressed = bool(self._attributes.value(ResourceAttribute.suppress_end_enabled))
        data, why = self.line.read_message(
            count,
            self._terminator() if by_end_in or by_termchar else b"",
            self._read_s,
            ends=not (suppressed or no_end),
        )
        if why is ReadEnd.COUNT:
            return data, StatusCode.success_max_count_read
        if why is ReadEnd.TERMINATOR and not by_end_in:
            return data, StatusCode.success_termination_character_read
        return data, StatusCode.success

    def clear(self) -> StatusCode:
        """Throw away what was not sent or not read; the broker makes questions and answers match again."""
        self.line.clear()
        return StatusCode.success

    def flush(self, mask: BufferOperation) -> StatusCode:
        """Throw away what was not read, if that is asked for; what was written is with the port already."""
        if mask & _READ_BUFFERS:
            self.line.reset_input_buffer()
        return StatusCode.success

    def read_stb(self) -> tuple[int, StatusCode]:
        """The status byte, by the query that the port's codec knows for it."""
        query = status_query_of(self.line.codec)
        if query is None:
            return 0, StatusCode.error_nonsupported_operation
        reply = self.line.ask(query)
        try:
            return int(reply.strip()) & 0xFF, StatusCode.success
        except ValueError:
            return 0, StatusCode.error_io

    def assert_trigger(self, protocol: TriggerProtocol) -> StatusCode:
        """``*TRG``, where the port's codec is one of IEEE 488.2."""
        codec = self.line.codec
        if status_query_of(codec) is None or codec is None or protocol != TriggerProtocol.default:
            return StatusCode.error_nonsupported_operation
        self.line.write(b"*TRG" + codec.write_terminator)
        return StatusCode.success

    # --- locks

    def lock(self, kind: Lock, timeout_ms: int, key: str | None) -> tuple[str, StatusCode]:
        """Lock the port for this session, or for all that give the same key."""
        if kind not in (Lock.exclusive, Lock.shared):
            return "", StatusCode.error_invalid_lock_type
        if key is not None and (kind is Lock.exclusive or len(key) > _LONGEST_KEY):
            return "", StatusCode.error_invalid_access_key
        action = LockAction.EXCLUSIVE if kind == Lock.exclusive else LockAction.SHARED
        outcome = self.line.lock.request(action, key or None, _seconds(timeout_ms))
        self.locked_by = outcome.holder
        self._locks += outcome.verdict in _LOCKED
        return outcome.key if action is LockAction.SHARED else "", _VERDICTS[outcome.verdict]

    def unlock(self) -> StatusCode:
        """Take back the last lock of this session."""
        if self._lent and not self._locks:  # those of another session of the same driver are not this one's
            return StatusCode.error_session_not_locked
        verdict = self.line.lock.request(LockAction.UNLOCK).verdict
        self._locks = self._locks - 1 if verdict in _LOCKED else 0
        return _VERDICTS[verdict]

    def open_with(self, mode: AccessModes, timeout_ms: int) -> StatusCode:
        """Lock as the access mode says with which the session is opened."""
        if mode == AccessModes.exclusive_lock:
            return self.lock(Lock.exclusive, timeout_ms, None)[1]
        if mode == AccessModes.shared_lock:
            return self.lock(Lock.shared, timeout_ms, OPENED_SHARED)[1]
        return StatusCode.success if mode == AccessModes.no_lock else StatusCode.error_invalid_access_mode

    # --- attributes

    def get_attribute(self, attribute: int) -> tuple[Any, StatusCode]:
        """The state of an attribute."""
        if attribute == ResourceAttribute.timeout_value:
            return self._timeout_ms, StatusCode.success
        if attribute == ResourceAttribute.resource_lock_state:
            return self._lock_state(), StatusCode.success
        if attribute == ResourceAttribute.asrl_avalaible_number and self._serial:
            return self.line.in_waiting, StatusCode.success
        return self._attributes.get(attribute)

    def set_attribute(self, attribute: int, state: Any) -> StatusCode:
        """Set the state of an attribute."""
        if attribute == ResourceAttribute.timeout_value:
            return self._set_timeout(int(state))
        return self._attributes.set(attribute, state)

    def _lock_state(self) -> AccessModes:
        try:
            outcome: LockOutcome = self.line.lock.request(LockAction.LOOK)
        except PortError:
            return AccessModes.no_lock
        return _STATES.get(outcome.state, AccessModes.no_lock)

    def _set_timeout(self, milliseconds: int) -> StatusCode:
        self._timeout_ms = milliseconds
        self._read_s = _seconds(milliseconds, LONGEST_S)
        self.line.timeout_s = self._read_s
        self.line.wait_s = max(self._read_s, LEASE_WAIT_S)
        return StatusCode.success

    def _terminator(self) -> bytes:
        return bytes([int(self._attributes.value(ResourceAttribute.termchar)) & 0xFF])


def _seconds(milliseconds: int, infinite: Any = None) -> Any:
    return infinite if milliseconds == constants.VI_TMO_INFINITE else milliseconds / 1000
