"""What an exception of a foreign driver means: which typed error the caller gets, and whether the device is gone."""

from __future__ import annotations

import errno

from duodaq.errors import (
    ConfigError,
    DuodaqError,
    InstrumentError,
    PortLostError,
    PortOpenError,
    PortTimeoutError,
    RefusedError,
)
from duodaq.telemetry import broke_off, named, told, words

_GONE = frozenset(
    {
        errno.EIO,
        errno.ENODEV,
        errno.ENXIO,
        errno.EBADF,
        errno.EPIPE,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ENOTCONN,
    }
)
_MISTAKES = (AttributeError, TypeError, NameError)
"""What a mistake in a program is in Python, unless somebody raises it to say no."""
_REFUSALS = (ValueError, TypeError, LookupError, AttributeError, NotImplementedError)


def typed_error(error: BaseException, instrument: str, command: str, text: str = "") -> DuodaqError:
    """`error` as the caller gets it: typed, naming instrument and command, with the original as its cause.

    A value, type or name that the driver's own checks refuse becomes a RefusedError (a ValueError); everything else an
    InstrumentError that carries the driver's own class and words, or `text` instead of those. What no ``raise`` of the
    driver's said, but broke off in it, says in which line that was; a mistake in its program is none of its checks.
    """
    if isinstance(error, DuodaqError):
        return error.about(instrument=instrument, command=command)
    text = text or (told(error) if broke_off(error) else named(error))
    typed: DuodaqError
    if isinstance(error, _MISTAKES) and broke_off(error):
        typed = InstrumentError(f"the driver's own code failed: {told(error)}", instrument=instrument, command=command)
    elif isinstance(error, _REFUSALS):
        typed = RefusedError(f"the driver said no: {text}", text=words(error), instrument=instrument, command=command)
    elif isinstance(error, TimeoutError):
        typed = PortTimeoutError(f"the driver timed out: {text}", instrument=instrument, command=command)
    else:
        typed = InstrumentError(f"the driver raised {text}", instrument=instrument, command=command)
    typed.__cause__ = error
    return typed


def is_lost(error: BaseException) -> bool:
    """Whether the device is gone, so that only a new connection helps; its original cause is looked at too."""
    for seen in (error, error.__cause__):
        if isinstance(seen, PortLostError | PortOpenError | ConnectionError):
            return True
        if isinstance(seen, OSError) and not isinstance(seen, TimeoutError | DuodaqError):
            return seen.errno in _GONE or any(kind.__name__ == "SerialException" for kind in type(seen).__mro__)
    return False


def is_recoverable(error: BaseException) -> bool:
    """Whether trying again may help without a person: a mistake in the lab file does not mend itself."""
    return not isinstance(error, ConfigError)
