"""Binary blocks as IEEE 488.2 has them."""

from __future__ import annotations

__all__ = ["definite_block"]


def definite_block(payload: bytes, *, digits: int | None = None) -> bytes:
    """``#``, the number of digits of the length, the length, the payload; `digits` pads the length with zeros."""
    size = f"{len(payload):0{digits or 1}d}".encode()
    return b"#" + str(len(size)).encode() + size + payload
