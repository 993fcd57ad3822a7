"""What sets one multimeter model apart from another: identity, ranges, integration times, memory, speed, noise.

Ranges, integration times, memory and error numbers are the instruments' own; noise and overhead are of the right size,
not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from duodaq.sim._simulator import Line

__all__ = ["FUNCTIONS", "PROFILES", "DmmProfile", "Function", "profile"]


@dataclass(frozen=True, slots=True)
class Function:
    """One measurement function of one model."""

    name: str  # as FUNC? answers it
    header: str  # its node in the command tree, and the spelling FUNC accepts
    ranges: tuple[float, ...] = ()
    unit: str = ""
    integrates: bool = False  # has NPLC
    aperture: bool = False  # has a gate time
    range_header: str = ""  # where its range is set, if not under its own header
    overload_bit: int = 0

    @property
    def usual_range(self) -> float:
        """Where it stands after ``*RST``, and what DEF means."""
        return self.ranges[min(2, len(self.ranges) - 1)]


_AC = (0.1, 1.0, 10.0, 100.0, 750.0)
_OHM = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)


def _functions(
    current: tuple[float, ...], current_ac: tuple[float, ...], ohms: tuple[float, ...]
) -> tuple[Function, ...]:
    volts = (0.1, 1.0, 10.0, 100.0, 1000.0)
    return (
        Function("VOLT", "VOLTage[:DC]", volts, "V", integrates=True, overload_bit=0),
        Function("VOLT:RAT", "VOLTage[:DC]:RATio", volts, "V", range_header="VOLTage[:DC]", overload_bit=0),
        Function("VOLT:AC", "VOLTage:AC", _AC, "V", overload_bit=0),
        Function("CURR", "CURRent[:DC]", current, "A", integrates=True, overload_bit=1),
        Function("CURR:AC", "CURRent:AC", current_ac, "A", overload_bit=1),
        Function("RES", "RESistance", ohms, "OHM", integrates=True, overload_bit=9),
        Function("FRES", "FRESistance", ohms, "OHM", integrates=True, overload_bit=9),
        Function("FREQ", "FREQuency", _AC, "V", aperture=True, range_header="FREQuency:VOLTage"),
        Function("PER", "PERiod", _AC, "V", aperture=True, range_header="PERiod:VOLTage"),
        Function("CONT", "CONTinuity", (1e3,), "OHM", overload_bit=9),
        Function("DIOD", "DIODe", (1.0,), "V", overload_bit=0),
    )


FUNCTIONS = _functions((0.01, 0.1, 1.0, 3.0), (1.0, 3.0), _OHM)
_AMPERES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 3.0, 10.0)
_FUNCTIONS_TRUEVOLT = (
    *_functions(_AMPERES, _AMPERES, (*_OHM, 1e9)),
    Function("CAP", "CAPacitance", (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4), "F"),
    Function("TEMP", "TEMPerature", (1e3,), "", integrates=True),
)


@dataclass(frozen=True, slots=True)
class DmmProfile:
    """One model."""

    model: str
    identity: str
    line: Line
    functions: tuple[Function, ...]
    nplc: Mapping[float, float]  # NPLC: smallest resolution as a fraction of range
    noise: Mapping[float, float]  # NPLC: rms noise as a fraction of range
    memory: int
    maximum_count: int
    overhead_s: float
    options: str = "0"
    scpi_version: str = "1991.0"
    display_characters: int = 12
    line_hz: int = 50
    input_limit: int = 1 << 16
    truevolt: bool = False  # R?, DATA:REMove?, FORMat, SAMPle:TIMer, CAP, TEMP, a deep memory that overwrites
    indefinite_idn: bool = False
    needs_remote: bool = False  # READ? and MEAS? answer with +550 until SYST:REM
    settling_s: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({3: 7.0, 20: 1.0, 200: 0.6}))


_NPLC_34401A = {0.02: 1e-4, 0.2: 1e-5, 1.0: 3e-6, 10.0: 1e-6, 100.0: 3e-7}
_NOISE_34401A = {0.02: 2.5e-5, 0.2: 3e-6, 1.0: 1e-6, 10.0: 3e-7, 100.0: 2e-7}
_NPLC_34465A = {
    0.001: 7e-5,
    0.002: 4e-5,
    0.006: 1.6e-5,
    0.02: 3e-6,
    0.06: 1.5e-6,
    0.2: 7e-7,
    1.0: 3e-7,
    10.0: 1e-7,
    100.0: 3e-8,
}
_NOISE_34465A = {
    0.001: 3e-5,
    0.002: 1.6e-5,
    0.006: 6e-6,
    0.02: 1.5e-6,
    0.06: 8e-7,
    0.2: 3e-7,
    1.0: 1e-7,
    10.0: 5e-8,
    100.0: 3e-8,
}

_PROFILE_34401A = DmmProfile(
    model="34401A",
    identity="HEWLETT-PACKARD,34401A,0,11-5-2",
    line=Line(baud=9600, processing_s=0.002, max_clients=1),
    functions=FUNCTIONS,
    nplc=MappingProxyType(_NPLC_34401A),
    noise=MappingProxyType(_NOISE_34401A),
    memory=512,
    maximum_count=50_000,
    overhead_s=0.0006,
    indefinite_idn=True,
)

_PROFILE_34465A = DmmProfile(
    model="34465A",
    identity="Keysight Technologies,34465A,MY54500001,A.02.14-02.40-02.14-00.49-01-01",
    line=Line(baud=10_000_000, processing_s=0.0005, max_clients=4),
    functions=_FUNCTIONS_TRUEVOLT,
    nplc=MappingProxyType(_NPLC_34465A),
    noise=MappingProxyType(_NOISE_34465A),
    memory=2_000_000,
    maximum_count=1_000_000,
    overhead_s=0.00005,
    options="DIG,MEM",
    scpi_version="1994.0",
    display_characters=40,
    truevolt=True,
)

PROFILES: Mapping[str, DmmProfile] = MappingProxyType({"34401A": _PROFILE_34401A, "34465A": _PROFILE_34465A})


def profile(model: str | None) -> DmmProfile:
    """The profile of a model; ``34401A`` if none is named.

    Raises:
        ValueError: No such model; the message lists those there are.
    """
    found = PROFILES.get((model or "34401A").upper())
    if found is None:
        raise ValueError(f"scpi-dmm has no model {model!r}; there are: {', '.join(PROFILES)}")
    return found
