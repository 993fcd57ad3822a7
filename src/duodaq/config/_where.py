from __future__ import annotations

from duodaq.model import InstrumentDefinition, RuntimeDefinition

VENDOR_LIBRARIES = frozenset({"duodaq:PvcamActor"})
"""Drivers that call a vendor's C library, which may crash or hang."""


def worker_of(instrument: InstrumentDefinition, runtime: RuntimeDefinition) -> str:
    """The kind of worker that an instrument lives in: its stanza's, by nature one of its own, else its runtime's."""
    return instrument.worker or ("own" if instrument.driver in VENDOR_LIBRARIES else runtime.worker)
