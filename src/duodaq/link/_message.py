from __future__ import annotations

import msgspec


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One sentence between two processes of a lab, as a small array on the wire. Subclasses carry their tag first."""
