"""Proves from a wire log that an instrument never had two writers. Pure: records in, violations out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from duodaq.model import Owner, WireRecord, owner_named
from duodaq.ports import FENCED


class Violation(NamedTuple):
    """A record that should not be there, and the rule that it breaks."""

    sequence: int
    t_ns: int
    holder: str
    what: str


def violations(records: Iterable[WireRecord]) -> list[Violation]:
    """Every place in the log of one port at which more than one writer was on the wire.

    Three rules: what an owner writes bears the epoch of the last change of owners; epochs only rise; and no exchange
    writes, or is answered, once a later one has begun. A stop is nobody's own: it may come at any time.

    Args:
        records: Of one port, oldest first. An owner of which the log holds no beginning is taken as it comes first.
    """
    found: list[Violation] = []
    owners: dict[str, Owner] = {}
    newest = 0
    for record in records:
        named = owner_named(record.holder)
        if named is not None:
            what = _of_owner(record, named, owners)
            if what:
                found.append(Violation(record.sequence, record.t_ns, record.holder, what))
        if not record.exchange or record.direction == "!":
            continue
        if record.exchange < newest:
            does = "writes" if record.direction == ">" else "is answered"
            what = f"exchange {record.exchange} {does} after exchange {newest} has begun"
            found.append(Violation(record.sequence, record.t_ns, record.holder, what))
        newest = max(newest, record.exchange)
    return found


def _of_owner(record: WireRecord, named: Owner, owners: dict[str, Owner]) -> str:
    present = owners.get(named.instrument)
    if record.direction == "!":
        if record.data.decode(errors="replace") != FENCED:
            return ""
        owners[named.instrument] = named
        if present is not None and named.epoch <= present.epoch:
            return f"epoch {named.epoch} came after epoch {present.epoch}"
        return ""
    if record.direction != ">":
        return ""
    if present is None:
        owners[named.instrument] = named
        return ""
    return "" if named == present else f"it belonged to {present.runtime} in epoch {present.epoch}"
