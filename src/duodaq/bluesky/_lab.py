from __future__ import annotations

from collections.abc import Iterator

from duodaq.bluesky._instrument import InstrumentDevice
from duodaq.bluesky._promise import Laboratory


class Devices:
    """The instruments of a lab as Bluesky devices, by name: ``d.meter``, ``d.stage.x``, ``d["my stage"]``."""

    def __init__(self, lab: Laboratory) -> None:
        self._devices = {instrument.id: InstrumentDevice(instrument) for instrument in lab}

    def __getattr__(self, name: str) -> InstrumentDevice:
        known = self.__dict__.get("_devices", {})
        if name in known:
            return known[name]
        raise AttributeError(f"no instrument {name!r}; there are: {', '.join(known) or 'none'}")

    def __getitem__(self, name: str) -> InstrumentDevice:
        try:
            return self._devices[name]
        except KeyError:
            raise KeyError(f"no instrument {name!r}; there are: {', '.join(self._devices)}") from None

    def __iter__(self) -> Iterator[InstrumentDevice]:
        return iter(self._devices.values())

    def __len__(self) -> int:
        return len(self._devices)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._devices]

    def __repr__(self) -> str:
        return f"<devices {', '.join(self._devices)}>"


def devices(lab: Laboratory) -> Devices:
    """The instruments of both runtimes as Bluesky devices, for plans on a RunEngine of your own.

    ::

        d = duodaq.bluesky.devices(lab)
        RE = RunEngine()
        RE.subscribe(lab.journal())                 # recorded by the lab
        RE(bp.scan([d.meter], d.stage.x, 0, 10, 101))

    Args:
        lab: What `duodaq.connect` or `duodaq.open` returned.
    """
    return Devices(lab)
