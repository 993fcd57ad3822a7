"""Which codecs there are, by the name that a lab file uses."""

from __future__ import annotations

from collections.abc import Callable

from duodaq.drivers.ell14 import EllCodec
from duodaq.drivers.esp300 import EspCodec
from duodaq.drivers.maitai import MaiTaiCodec
from duodaq.drivers.newport1830c import Newport1830cCodec
from duodaq.drivers.scpi import ScpiCodec
from duodaq.errors import ConfigError
from duodaq.ports import PortCodec

CODECS: dict[str, Callable[[], PortCodec]] = {
    "ell14": EllCodec,
    "esp300": EspCodec,
    "maitai": MaiTaiCodec,
    "newport1830c": Newport1830cCodec,
    "scpi": ScpiCodec,
}


def codec(name: str) -> PortCodec:
    """The codec that a lab file calls `name`.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in CODECS:
        raise ConfigError(f"no codec {name!r}", key="codec", remedy=f"Use one of {', '.join(sorted(CODECS))}")
    return CODECS[name]()
