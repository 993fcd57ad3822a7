"""SCPI program messages, taken apart as far as a broker must: messages, units, headers; blocks and strings whole."""

from __future__ import annotations

from collections.abc import Iterator

_QUOTES = b"\"'"


def messages(written: bytes) -> list[list[bytes]]:
    """The program messages in `written`, each as its units; LF and ``;`` inside strings and blocks do not count."""
    found: list[list[bytes]] = []
    units: list[bytes] = []
    for unit, ends_message in _units(written):
        if unit.strip():
            units.append(unit.strip())
        if ends_message and units:
            found.append(units)
            units = []
    return found


def header(unit: bytes) -> bytes:
    """The header of a unit in upper case, without a leading colon: ``SYST:ERR?``."""
    return unit.split(None, 1)[0].upper().lstrip(b":") if unit.strip() else b""


def is_query(unit: bytes) -> bool:
    """Whether a unit asks for a reply."""
    return header(unit).endswith(b"?")


def _units(data: bytes) -> Iterator[tuple[bytes, bool]]:
    start = at = 0
    while at < len(data):
        byte = data[at]
        if byte in _QUOTES:
            at = _after_string(data, at)
        elif byte == 0x23:  # "#" opens a block
            at = _after_block(data, at)
        elif byte in b";\n":
            yield data[start:at], byte == 0x0A
            at += 1
            start = at
        else:
            at += 1
    yield data[start:], True


def message_end(held: bytes) -> int:
    """How many bytes at the beginning of `held` are one message with its end (LF, CR LF, or CR before more); 0: none.

    An end inside a block is none, and a ``#`` inside a string begins no block. A lone CR as the last byte may be half
    of CR LF.
    """
    at = 0
    while at < len(held):
        byte = held[at]
        if byte == 0x0A:
            return at + 1
        if byte == 0x0D:
            rest = held[at + 1 : at + 2]
            return at + 1 + (rest == b"\n") if rest else 0
        if byte in _QUOTES:
            at = min(_after_string(held, at), held.find(b"\n", at) % (len(held) + 1))
        elif byte == 0x23:
            if (end := _block_end(held, at)) is None:
                return 0
            at = end
        else:
            at += 1
    return 0


def _block_end(held: bytes, at: int) -> int | None:
    """Behind the definite block at `at`, or its ``#`` if it is none; None if it is not whole, or not known yet."""
    digit = held[at + 1 : at + 2]
    if not digit:
        return None
    if not digit.isdigit() or digit == b"0":
        return at + 1
    length = held[at + 2 : at + 2 + int(digit)]
    if len(length) < int(digit):
        return None
    if not length.isdigit():
        return at + 1
    end = at + 2 + int(digit) + int(length)
    return end if end <= len(held) else None


def _after_string(data: bytes, at: int) -> int:
    end = data.find(data[at : at + 1], at + 1)
    return len(data) if end < 0 else end + 1


def _after_block(data: bytes, at: int) -> int:
    digit = data[at + 1 : at + 2]
    if not digit.isdigit():
        return at + 1
    if digit == b"0":
        return len(data)
    width = int(digit)
    length = data[at + 2 : at + 2 + width]
    return min(len(data), at + 2 + width + int(length)) if len(length) == width and length.isdigit() else at + 1
