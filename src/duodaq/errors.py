"""Every error duodaq raises, split by who can act on it.

::

    DuodaqError
    ├── ConfigError          a person: file, line, key, remedy
    ├── PortError            the cable
    │   ├── PortBusyError    (TimeoutError)      somebody else holds it: holder, held_s
    │   │   └── PortLockedError                  for as long as he likes
    │   ├── PortOpenError    (OSError)
    │   ├── PortTimeoutError (TimeoutError)      no whole reply in time; the line has been resynchronised
    │   └── PortLostError    (ConnectionError)
    ├── InstrumentError      the device
    │   ├── RefusedError     (ValueError)        it said no: code, text
    │   ├── ReplyFormatError (ValueError)
    │   ├── OutOfRangeError  (ValueError)
    │   └── UnsafeStateError (RuntimeError)      latched by a stop, or an interlock: a person must reset it
    ├── DeliveryError        the message: `fate` says not done or unknown
    │   ├── MailboxFullError (BlockingIOError)
    │   ├── RestartingError
    │   ├── StoppedError
    │   │   └── FencedError                      another owns its instrument now
    │   └── ReplyTimeoutError (TimeoutError)
    ├── LifecycleError       (RuntimeError)      asked in the wrong state
    │   ├── NotInControlError (PermissionError)  somebody else holds control of the instrument: holder
    │   └── CutoverError                         an instrument was not moved: owner, step
    ├── ScanInterruptedError                     run: its points; the axis is stopped
    ├── PartlySetError                           done, failed, not_done: which of several settings were set
    ├── DataError
    │   ├── SchemaMismatchError (TypeError)
    │   └── OverrunError                         missed: how many
    └── StorageError
        ├── StorageFullError (OSError)
        └── TornFileError

Facts are fields; the sentence is made from them. `retryable` is read by restart policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar


class DuodaqError(Exception):
    """Root of all errors here: what happened, to which instrument and command, on which port, what is left behind."""

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        what: str,
        *,
        instrument: str | None = None,
        command: str | None = None,
        port: str | None = None,
        left: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.instrument = instrument
        self.command = command
        self.port = port
        self.left = left

    def __str__(self) -> str:
        subject = ".".join(part for part in (self.instrument, self.command) if part)
        sentence = f"{subject}: {self.what}" if subject else self.what
        if self.port:
            sentence += f" [port {self.port}]"
        return f"{sentence} — {self.left}" if self.left else sentence

    def facts(self) -> dict[str, Any]:
        """The fields of this error that are set, by name: for logs, the control socket and reports."""
        return {key: value for key, value in vars(self).items() if value is not None and not key.startswith("_")}

    def about(
        self, *, instrument: str | None = None, command: str | None = None, port: str | None = None
    ) -> DuodaqError:
        """This same error, with the facts named here filled in where they are still missing."""
        self.instrument = self.instrument or instrument
        self.command = self.command or command
        self.port = self.port or port
        return self


class ConfigError(DuodaqError):
    """A person can mend this: it names file, line and key, and says what would be right."""

    def __init__(
        self,
        what: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        key: str | None = None,
        remedy: str | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(what, **facts)
        self.file = str(file) if file is not None else None
        self.line = line
        self.key = key
        self.remedy = remedy

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        parts = [part for part in (place, self.key, super().__str__()) if part]
        sentence = ": ".join(parts)
        return f"{sentence}. {self.remedy}" if self.remedy else sentence


class PortError(DuodaqError):
    """The cable or what is plugged into it."""

    retryable = True


class PortBusyError(PortError, TimeoutError):
    """The lease did not come in time. `holder` has held the port for `held_s` seconds. Nothing was written."""

    def __init__(self, what: str, *, holder: str | None = None, held_s: float | None = None, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.holder = holder
        self.held_s = held_s


class PortLockedError(PortBusyError):
    """Somebody has locked the port, and this user does not wait for him to unlock it. Nothing was written."""


class PortOpenError(PortError, OSError):
    """The port could not be opened. Nothing is held."""


class PortTimeoutError(PortError, TimeoutError):
    """No whole reply within the time-out. The line is drained before the next lease."""


class PortLostError(PortError, ConnectionError):
    """The port went away. The exchange in hand is unknown; the broker reconnects by itself."""


class InstrumentError(DuodaqError):
    """The device answered, and the answer was not what was asked for."""


class RefusedError(InstrumentError, ValueError):
    """The device said no. `code` and `text` are its own words."""

    def __init__(self, what: str, *, code: int | None = None, text: str | None = None, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.code = code
        self.text = text


class ReplyFormatError(InstrumentError, ValueError):
    """The reply could not be understood. `reply` is what came."""

    retryable = True

    def __init__(self, what: str, *, reply: bytes | None = None, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.reply = reply


class OutOfRangeError(InstrumentError, ValueError):
    """A value outside its limits. Unless it says otherwise, nothing was sent."""


class UnsafeStateError(InstrumentError, RuntimeError):
    """Refused for safety: a stop is latched, or an interlock is open. Nothing was sent; a person must reset it."""


class DeliveryError(DuodaqError):
    """What became of a message that was not answered: `fate` is ``"not done"`` or ``"unknown"``."""

    default_fate: ClassVar[str] = "unknown"

    def __init__(self, what: str, *, fate: str | None = None, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.fate = str(fate) if fate is not None else self.default_fate


class MailboxFullError(DeliveryError, BlockingIOError):
    """The mailbox or queue is full. The message was not taken."""

    default_fate = "not done"


class RestartingError(DeliveryError):
    """The receiver was restarted before it came to this message."""

    default_fate = "not done"
    retryable = True


class StoppedError(DeliveryError):
    """The receiver is stopped, or a stop ended this command before it began."""

    default_fate = "not done"


class FencedError(StoppedError):
    """Its sender was the instrument's owner once; another has taken over. Nothing was written."""


class ReplyTimeoutError(DeliveryError, TimeoutError):
    """The deadline passed. If the message was already in hand its outcome is unknown."""


class LifecycleError(DuodaqError, RuntimeError):
    """Asked for something that the present state does not allow. The state is unchanged."""


class CutoverError(LifecycleError):
    """An instrument was not moved. `owner` is the runtime that has it, exactly one; `step` is where it was refused."""

    def __init__(self, what: str, *, owner: str = "", step: str = "", **facts: Any) -> None:
        super().__init__(what, **facts)
        self.owner = owner
        self.step = step


class NotInControlError(LifecycleError, PermissionError):
    """`holder` has held control of the instrument since `since_ns` (UTC). Nothing was sent."""

    def __init__(self, what: str, *, holder: str | None = None, since_ns: int | None = None, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.holder = holder
        self.since_ns = since_ns


class ScanInterruptedError(DuodaqError):
    """A scan ended before its last point: Ctrl-C, somebody aborted it, or something failed. The axis is stopped.

    `run` has the points that were taken; its `directory` is the recording that has them, None if it is not recorded.
    """

    def __init__(self, what: str, *, run: Any, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.run = run

    def __str__(self) -> str:
        directory = getattr(self.run, "directory", None)
        recorded = "" if directory is None else f"the recording is {directory}; "
        return f"{super().__str__()} — {recorded}the points are in `run` of this error"


class PartlySetError(DuodaqError):
    """Of several settings those in `done` were set, `failed` was refused, and those in `not_done` were not tried."""

    def __init__(
        self,
        what: str,
        *,
        done: Sequence[str] = (),
        failed: str | None = None,
        not_done: Sequence[str] = (),
        **facts: Any,
    ) -> None:
        super().__init__(what, **facts)
        self.done = [*done]
        self.failed = failed
        self.not_done = [*not_done]

    def __str__(self) -> str:
        done = f"set before: {'; '.join(self.done)}" if self.done else "nothing was set before"
        rest = f"; not tried: {', '.join(self.not_done)}" if self.not_done else ""
        return f"{super().__str__()} — {done}{rest}"


class DataError(DuodaqError):
    """Data that cannot be taken as it is."""


class SchemaMismatchError(DataError, TypeError):
    """A batch does not have the schema of its stream. It was not published."""


class OverrunError(DataError):
    """A reader was too slow: `missed` items are gone, and counted."""

    def __init__(self, what: str, *, missed: int, **facts: Any) -> None:
        super().__init__(what, **facts)
        self.missed = missed


class StorageError(DuodaqError):
    """The disk or a file on it."""


class StorageFullError(StorageError, OSError):
    """No space, no directory, or read-only. What was written before stays whole."""


class TornFileError(StorageError):
    """A file that ends in the middle of something."""
