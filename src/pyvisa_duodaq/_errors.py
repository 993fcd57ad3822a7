"""Which VISA status an error of a port is, and an exception that says why besides."""

from __future__ import annotations

from pyvisa.constants import StatusCode
from pyvisa.errors import VisaIOError

from duodaq.errors import (
    ConfigError,
    DeliveryError,
    DuodaqError,
    LifecycleError,
    PortBusyError,
    PortLockedError,
    PortLostError,
    PortOpenError,
    PortTimeoutError,
    UnsafeStateError,
)

_STATUS: tuple[tuple[type[DuodaqError], StatusCode], ...] = (
    (PortLockedError, StatusCode.error_resource_locked),
    (PortBusyError, StatusCode.error_resource_busy),
    (PortTimeoutError, StatusCode.error_timeout),
    (PortLostError, StatusCode.error_connection_lost),
    (PortOpenError, StatusCode.error_resource_not_found),
    (ConfigError, StatusCode.error_resource_not_found),
    (UnsafeStateError, StatusCode.error_abort),
    (LifecycleError, StatusCode.error_invalid_object),
)


class SharedVisaIOError(VisaIOError):
    """A VisaIOError that says why: who holds the port, what was not sent, what to do."""

    def __init__(self, error_code: int, why: str = "") -> None:
        super().__init__(error_code)
        self.why = why

    def __str__(self) -> str:
        return f"{super().__str__()} ({self.why})" if self.why else super().__str__()

    def __reduce__(self) -> tuple[type, tuple[int, str]]:  # type: ignore[override] # PyVISA's own holds one number
        return (SharedVisaIOError, (self.error_code, self.why))


def status_of(error: DuodaqError) -> StatusCode:
    """The VISA status that comes nearest to `error`."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    if isinstance(error, DeliveryError):  # cut by a stop, or nobody is there any more who could take it
        return StatusCode.error_abort if error.fate == "unknown" else StatusCode.error_connection_lost
    return StatusCode.error_io
