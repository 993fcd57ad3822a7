"""What the simulated oscilloscope is."""

from __future__ import annotations

from dataclasses import dataclass

from duodaq.sim._simulator import Line

__all__ = ["ScopeProfile", "scope_profile"]


@dataclass(frozen=True, slots=True)
class ScopeProfile:
    """One model: how many channels, and the most points that it keeps."""

    model: str
    identity: str
    line: Line
    channels: int
    memory: int


_PROFILES = {
    "DSOX1204G": ScopeProfile(
        "DSOX1204G",
        "KEYSIGHT TECHNOLOGIES,DSOX1204G,CN60000001,02.11.2020111042",
        Line(baud=10_000_000, processing_s=0.001, max_clients=4),
        4,
        62_500,
    )
}


def scope_profile(model: str | None) -> ScopeProfile:
    """The profile of a model; ``DSOX1204G`` if none is named.

    Raises:
        ValueError: No such model; the message lists those there are.
    """
    found = _PROFILES.get((model or "DSOX1204G").upper())
    if found is None:
        raise ValueError(f"scpi-scope has no model {model!r}; there are: {', '.join(_PROFILES)}")
    return found
