"""What a healthy device says to questions that the other driver never asked. Every such answer is reported."""

from __future__ import annotations

from duodaq.model import InstrumentDefinition

_ESP300 = {
    "position": b"0",
    "error": b"0, 0, NO ERROR DETECTED",
    "error number": b"0",
    "firmware": b"ESP300 (assumed)",
    "unit": b"2",
    "motor on": b"1",
    "motion done": b"1",
    "velocity": b"0",
    "speed": b"4",
    "acceleration": b"10",
    "deceleration": b"10",
}
_ESP_UNITS = {"mm": b"2", "µm": b"3", "um": b"3", "in": b"4", "deg": b"7", "grad": b"8", "rad": b"9"}
_1830C = {
    "reading": b"0",
    "status": b"128",
    "zero": b"0",
    "unit": b"1",
    "wavelength": b"0633",
    "range": b"0",
    "filter": b"3",
}
_SCPI = {"*IDN": b"assumed,assumed,0,0", "SYST:ERR": b'+0,"No error"', "*ESR": b"0", "*STB": b"0", "*OPC": b"1"}


_MEASURED = frozenset({"position", "reading"})


def is_measured(subject: str) -> bool:
    """Whether an answer says something of the world, not of the device: V2's own is worth waiting for."""
    return subject.rpartition(": ")[2] in _MEASURED


def assumed_answer(codec: str, subject: str, definition: InstrumentDefinition) -> bytes | None:
    """What a device in order answers to a question, with its end of line; None if nobody can say."""
    if codec == "esp300":
        name = subject.rpartition(": ")[2]
        if name == "unit" and definition.axes:
            axis = subject.removeprefix("axis ").partition(":")[0]
            unit = next((a.unit for a in definition.axes if str(a.number) == axis), "mm")
            return _ESP_UNITS.get(unit, b"2") + b"\r\n"
        return _ended(_ESP300.get(name), b"\r\n")
    return _ended({"newport1830c": _1830C, "scpi": _SCPI}.get(codec, {}).get(subject), b"\n")


def _ended(answer: bytes | None, end: bytes) -> bytes | None:
    return None if answer is None else answer + end
