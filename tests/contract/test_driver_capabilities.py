"""Which driver keeps which hardware-agnostic promise."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest

from duodaq.drivers.ell14 import ElliptecDriver
from duodaq.drivers.esp300 import Esp300Driver
from duodaq.drivers.maitai import MaiTaiDriver
from duodaq.drivers.newport1830c import Newport1830CDriver
from duodaq.drivers.scpi import ScpiDriver
from duodaq.model import MotionController, PowerMeter, ScpiEndpoint, TunableLaser

KEEPERS: list[tuple[type, Any]] = [
    (ElliptecDriver, MotionController),
    (Esp300Driver, MotionController),
    (MaiTaiDriver, TunableLaser),
    (Newport1830CDriver, PowerMeter),
    (ScpiDriver, ScpiEndpoint),
]


@pytest.mark.parametrize(("driver", "promise"), KEEPERS)
def test_a_driver_takes_and_gives_what_its_capability_says(driver: type, promise: Any) -> None:
    for name, promised in vars(promise).items():
        if name.startswith("_") or not inspect.isfunction(promised):
            continue
        kept = getattr(driver, name)
        assert inspect.iscoroutinefunction(kept), name
        wanted, offered = inspect.signature(promised).parameters, inspect.signature(kept).parameters
        assert list(wanted) == list(offered)[: len(wanted)], name
        assert all(extra.default is not extra.empty for extra in list(offered.values())[len(wanted) :]), name
        assert get_type_hints(kept)["return"] == get_type_hints(promised)["return"], name
