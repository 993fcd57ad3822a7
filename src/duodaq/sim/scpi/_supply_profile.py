"""What the simulated power supplies are: their outputs, their limits, and how their channels are addressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from duodaq.sim._simulator import Line

__all__ = ["OutputProfile", "SupplyProfile", "supply_profile"]


@dataclass(frozen=True, slots=True)
class OutputProfile:
    """One output: its name for INST:SEL, the highest voltage (negative for a negative output) and current, its load."""

    name: str
    volts: float
    amperes: float
    load_ohm: float


@dataclass(frozen=True, slots=True)
class SupplyProfile:
    """One model. `lists`: channels are named by ``(@1)``, each switched alone, and protected against overvoltage."""

    model: str
    identity: str
    line: Line
    outputs: tuple[OutputProfile, ...]
    lists: bool
    options: str = "0"


PROFILES: Mapping[str, SupplyProfile] = MappingProxyType(
    {
        "E36312A": SupplyProfile(
            "E36312A",
            "Keysight Technologies,E36312A,MY59000001,2.1.0-1.0.4-1.12",
            Line(baud=10_000_000, processing_s=0.0005, max_clients=4),
            (
                OutputProfile("CH1", 6.18, 5.15, 10.0),
                OutputProfile("CH2", 25.75, 1.03, 50.0),
                OutputProfile("CH3", 25.75, 1.03, 1000.0),
            ),
            lists=True,
        ),
        "E3631A": SupplyProfile(
            "E3631A",
            "HEWLETT-PACKARD,E3631A,0,2.1-5.0-1.0",
            Line(baud=9600, processing_s=0.002, max_clients=1),
            (
                OutputProfile("P6V", 6.18, 5.15, 10.0),
                OutputProfile("P25V", 25.75, 1.03, 50.0),
                OutputProfile("N25V", -25.75, 1.03, 1000.0),
            ),
            lists=False,
        ),
    }
)


def supply_profile(model: str | None) -> SupplyProfile:
    """The profile of a model; ``E36312A`` if none is named.

    Raises:
        ValueError: No such model; the message lists those there are.
    """
    found = PROFILES.get((model or "E36312A").upper())
    if found is None:
        raise ValueError(f"scpi-psu has no model {model!r}; there are: {', '.join(PROFILES)}")
    return found
