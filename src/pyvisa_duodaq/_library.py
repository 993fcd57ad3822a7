"""The VISA library that PyVISA calls: handles to sessions, and every outcome as PyVISA documents it."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pyvisa import constants, rname
from pyvisa.constants import (
    AccessModes,
    BufferOperation,
    EventMechanism,
    EventType,
    Lock,
    StatusCode,
    TriggerProtocol,
)
from pyvisa.highlevel import ResourceInfo, VisaLibraryBase
from pyvisa.typing import VISAEventContext, VISAHandler, VISARMSession, VISASession
from pyvisa.util import DebugInfo, LibraryPath

from duodaq.errors import DuodaqError, PortOpenError
from duodaq.model import PortDefinition
from duodaq.ports import BlockingSession, lent_sessions
from pyvisa_duodaq._errors import SharedVisaIOError, status_of
from pyvisa_duodaq._labs import LabFinder, holder_name
from pyvisa_duodaq._names import find_port, info_of, is_address, is_name, names_of
from pyvisa_duodaq._session import VisaSession

_T = TypeVar("_T")
ANY_LAB = "the lab that is running"


class DuodaqVisaLibrary(VisaLibraryBase):
    """Sessions on the ports of a lab: of this process, of this worker, or of another program of the same user.

    A driver that a lab hosts speaks through its own instrument's session when it opens its own port.
    """

    _labs: LabFinder
    _sessions: dict[int, VisaSession]
    _managers: set[int]

    @staticmethod
    def get_library_paths() -> Iterable[LibraryPath]:
        """The one lab that is running."""
        return (LibraryPath(ANY_LAB),)

    @staticmethod
    def get_debug_info() -> DebugInfo:
        """For ``pyvisa-info``."""
        return {"Ports": "those of a running duodaq lab, shared with its instruments and with other programs"}

    def _init(self) -> None:
        self._labs = LabFinder(None if str(self.library_path) == ANY_LAB else str(self.library_path))
        self._sessions = {}
        self._managers = set()
        self._numbers = itertools.count(1)
        self._turn = threading.Lock()

    # --- resources

    def open_default_resource_manager(self) -> tuple[VISARMSession, StatusCode]:
        """A handle of the resource manager; the lab is looked for when it is first needed."""
        with self._turn:
            manager = VISARMSession(next(self._numbers))
            self._managers.add(manager)
        return manager, self._done(manager, StatusCode.success)

    def list_resources(self, session: VISARMSession, query: str = "?*::INSTR") -> tuple[str, ...]:
        """The names of all ports that match `query`: by address where they have one, and ``duodaq::NAME::INSTR``."""
        known = self._guarded(session, self._ports)
        return rname.filter([name for port in known.values() for name in names_of(port)], query)

    def parse_resource_extended(self, session: VISARMSession, resource_name: str) -> tuple[ResourceInfo, StatusCode]:
        """What a name means; a port's own name too.

        Raises:
            VisaIOError: It can only be the name of a port of a lab, and is none.
        """
        found = None if is_address(resource_name) else self._guarded(session, lambda: self._required(resource_name))
        if found is None:
            with contextlib.suppress(DuodaqError):  # an address means something without any lab
                found = self._find(resource_name)
        if found is not None:
            return info_of(found[0]), StatusCode.success
        return super().parse_resource_extended(session, resource_name)

    def open(
        self,
        session: VISARMSession,
        resource_name: str,
        access_mode: AccessModes = AccessModes.no_lock,
        open_timeout: int | None = constants.VI_TMO_IMMEDIATE,
    ) -> tuple[VISASession, StatusCode]:
        """Open a port; with an access mode that locks, wait for the lock up to `open_timeout` milliseconds."""
        if session not in self._managers:
            return VISASession(0), self._done(session, StatusCode.error_invalid_object)
        timeout_ms = constants.VI_TMO_IMMEDIATE if open_timeout is None else int(open_timeout)
        made = self._guarded(session, lambda: self._made(session, resource_name))
        try:
            status = self._guarded(session, lambda: made.open_with(access_mode, timeout_ms))
            self._done(session, status, made.locked_by)
        except BaseException:
            made.close()
            raise
        with self._turn:
            number = VISASession(next(self._numbers))
            self._sessions[number] = made
        return number, self._done(number, status)

    def _made(self, manager: int, name: str) -> VisaSession:
        port, lent = self._required(name)
        line = lent or self._labs.ports().session(port.name, holder_name(), impatient=True)
        return VisaSession(line, info_of(port), manager, lent=lent is not None)

    def _required(self, name: str) -> tuple[PortDefinition, BlockingSession | None]:
        found = self._find(name)
        if found is None:
            known = ", ".join(self._ports()) or "none"
            status = StatusCode.error_resource_not_found if is_name(name) else StatusCode.error_invalid_resource_name
            raise SharedVisaIOError(status, f"{name!r} is no port of the lab; there are: {known}")
        return found

    def _find(self, name: str) -> tuple[PortDefinition, BlockingSession | None] | None:
        """The port that `name` means, and the session of it that is lent to the driver that asks."""
        lent = {session.name: session for session in reversed(lent_sessions())}
        own = find_port({key: session.definition for key, session in lent.items()}, name)
        if own is not None:
            return own, lent[own.name]
        port = find_port(self._labs.ports().definitions(), name)
        return None if port is None else (port, None)

    def _ports(self) -> dict[str, PortDefinition]:
        lent = {session.name: session.definition for session in lent_sessions()}
        try:
            return {**self._labs.ports().definitions(), **lent}
        except PortOpenError:
            if lent:
                return lent
            raise

    def close(self, session: VISASession | VISAEventContext | VISARMSession) -> StatusCode:
        """Close a session, or the resource manager, and with that the connection to the lab."""
        with self._turn:
            made = self._sessions.pop(session, None)
            is_manager = session in self._managers
            self._managers.discard(session)
            left = list(self._sessions.values()) if is_manager else []
            if is_manager:
                self._sessions.clear()
        if made is not None:
            self._guarded(session, made.close)
        elif not is_manager:
            return self._done(session, StatusCode.error_invalid_object)
        for one in left:
            self._guarded(session, one.close)
        if is_manager:
            self._labs.close()
        return self._done(session, StatusCode.success)

    # --- operations

    def write(self, session: VISASession, data: bytes) -> tuple[int, StatusCode]:
        """Write all of `data`; how many bytes."""
        count, status = self._do(session, lambda made: made.write(data))
        return count, self._done(session, status)

    def read(self, session: VISASession, count: int) -> tuple[bytes, StatusCode]:
        """Read a message, `count` bytes of it at most."""
        data, status = self._do(session, lambda made: made.read(count))
        return data, self._done(session, status)

    def buffer_write(self, session: VISASession, data: bytes) -> tuple[int, StatusCode]:
        """As `write`."""
        return self.write(session, data)

    def buffer_read(self, session: VISASession, count: int) -> tuple[bytes, StatusCode]:
        """As `read`."""
        return self.read(session, count)

    def clear(self, session: VISASession) -> StatusCode:
        """Throw away what was not sent or not read."""
        return self._done(session, self._do(session, lambda made: made.clear()))

    def flush(self, session: VISASession, mask: BufferOperation) -> StatusCode:
        """Throw away what was not read, if `mask` says so."""
        return self._done(session, self._do(session, lambda made: made.flush(mask)))

    def read_stb(self, session: VISASession) -> tuple[int, StatusCode]:
        """The status byte."""
        value, status = self._do(session, lambda made: made.read_stb())
        return value, self._done(session, status, "nothing is known that asks this device for its status byte")

    def assert_trigger(self, session: VISASession, protocol: TriggerProtocol) -> StatusCode:
        """Trigger the device."""
        status = self._do(session, lambda made: made.assert_trigger(protocol))
        return self._done(session, status, "nothing is known that triggers this device")

    def lock(
        self, session: VISASession, lock_type: Lock, timeout: int, requested_key: str | None = None
    ) -> tuple[str, StatusCode]:
        """Lock the port against everybody else, or everybody without the same key."""
        made = self._session(session)
        key, status = self._do(session, lambda one: one.lock(lock_type, timeout, requested_key))
        return key, self._done(session, status, f"locked by {made.locked_by}" if made.locked_by else "")

    def unlock(self, session: VISASession) -> StatusCode:
        """Take back the last lock."""
        return self._done(session, self._do(session, lambda made: made.unlock()))

    def get_attribute(self, session: Any, attribute: Any) -> tuple[Any, StatusCode]:
        """The state of an attribute."""
        value, status = self._do(session, lambda made: made.get_attribute(attribute))
        return value, self._done(session, status)

    def set_attribute(self, session: VISASession, attribute: Any, attribute_state: Any) -> StatusCode:
        """Set the state of an attribute."""
        status = self._do(session, lambda made: made.set_attribute(attribute, attribute_state))
        return self._done(session, status, "the line's settings belong to the lab file")

    # --- what there is not

    def enable_event(
        self, session: VISASession, event_type: EventType, mechanism: EventMechanism, context: None = None
    ) -> StatusCode:
        """Refused: a shared port has no events."""
        return self._unsupported(session)

    def disable_event(self, session: VISASession, event_type: EventType, mechanism: EventMechanism) -> StatusCode:
        """Nothing to do: none is ever enabled."""
        self._session(session)
        return self._done(session, StatusCode.success_event_already_disabled)

    def discard_events(self, session: VISASession, event_type: EventType, mechanism: EventMechanism) -> StatusCode:
        """Nothing to do: none ever comes."""
        self._session(session)
        return self._done(session, StatusCode.success_queue_already_empty)

    def wait_on_event(self, session: VISASession, in_event_type: EventType, timeout: int) -> Any:
        """Refused: none would ever come."""
        return self._unsupported(session)

    def install_handler(
        self, session: VISASession, event_type: EventType, handler: VISAHandler, user_handle: Any
    ) -> Any:
        """Refused: a shared port has no events."""
        return self._unsupported(session)

    def gpib_command(self, session: VISASession, data: bytes) -> Any:
        """Refused: a command on a bus would reach everybody else's devices."""
        return self._unsupported(session)

    def gpib_send_ifc(self, session: VISASession) -> StatusCode:
        """Refused, as `gpib_command`."""
        return self._unsupported(session)

    def gpib_control_ren(self, session: VISASession, mode: constants.RENLineOperation) -> StatusCode:
        """Refused, as `gpib_command`."""
        return self._unsupported(session)

    def gpib_control_atn(self, session: VISASession, mode: constants.ATNLineOperation) -> StatusCode:
        """Refused, as `gpib_command`."""
        return self._unsupported(session)

    def gpib_pass_control(self, session: VISASession, primary_address: int, secondary_address: int) -> StatusCode:
        """Refused, as `gpib_command`."""
        return self._unsupported(session)

    # --- outcomes

    def _unsupported(self, session: VISASession) -> StatusCode:
        self._session(session)
        return self._done(session, StatusCode.error_nonsupported_operation)

    def _session(self, session: int) -> VisaSession:
        made = self._sessions.get(session)
        if made is None:
            self._done(session, StatusCode.error_invalid_object)
            raise SharedVisaIOError(StatusCode.error_invalid_object)
        return made

    def _do(self, session: int, work: Callable[[VisaSession], _T]) -> _T:
        made = self._session(session)
        try:
            return work(made)
        except DuodaqError as error:
            raise self._refusal(session, error) from error

    def _guarded(self, session: int, work: Callable[[], _T]) -> _T:
        """The result of `work`; what a port or its lab refuses as the VISA error that it is."""
        try:
            return work()
        except DuodaqError as error:
            raise self._refusal(session, error) from error

    def _refusal(self, session: int, error: DuodaqError) -> SharedVisaIOError:
        status = status_of(error)
        self._note(session, status)
        return SharedVisaIOError(status, str(error))

    def _done(self, session: int, status: StatusCode, why: str = "") -> StatusCode:
        if status < 0:
            self._note(session, status)
            raise SharedVisaIOError(status, why)
        return self.handle_return_value(VISASession(session), status)

    def _note(self, session: int, status: StatusCode) -> None:
        self._last_status = status
        self._last_status_in_session[VISASession(session)] = status


WRAPPER_CLASS = DuodaqVisaLibrary
"""The name by which PyVISA asks a backend for its class."""
