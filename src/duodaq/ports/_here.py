"""Which ports a driver in this process has without asking anybody: its own, and those of the labs that live here."""

from __future__ import annotations

import weakref
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from duodaq.model import PortDefinition
from duodaq.ports._session import BlockingSession


class PortsHere(Protocol):
    """The ports of a lab as a blocking program uses them, wherever their broker is."""

    def definitions(self) -> dict[str, PortDefinition]:
        """The definition of every port, by name. From any thread."""
        ...

    def session(self, port: str, holder: str, *, impatient: bool = False) -> BlockingSession:
        """A session of `holder` for blocking code."""
        ...


_SOURCES: weakref.WeakValueDictionary[str, PortsHere] = weakref.WeakValueDictionary()
_LENT: ContextVar[tuple[BlockingSession, ...]] = ContextVar("lent sessions", default=())


def announce_ports(lab: str, source: PortsHere) -> None:
    """From now on the ports of `lab` are found in this process; nothing without a name."""
    if lab:
        _SOURCES[lab] = source


def withdraw_ports(lab: str, source: PortsHere) -> None:
    """They are not any more."""
    if _SOURCES.get(lab) is source:
        del _SOURCES[lab]


def ports_here(lab: str | None = None) -> PortsHere | None:
    """The ports of the lab of that name in this process; without a name, those of the only one."""
    if lab is not None:
        return _SOURCES.get(lab)
    sources = list(_SOURCES.values())
    return sources[0] if len(sources) == 1 else None


@contextmanager
def lend(session: BlockingSession) -> Generator[None]:
    """While inside, a driver that opens the session's port by its name, in this thread, speaks through `session`.

    So its exchanges are those of its instrument: under the lease of the call, and revoked with it.
    """
    token = _LENT.set((*_LENT.get(), session))
    try:
        yield
    finally:
        _LENT.reset(token)


def lent_sessions() -> tuple[BlockingSession, ...]:
    """What is lent here and now, the last first."""
    return _LENT.get()[::-1]
