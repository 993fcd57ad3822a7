"""duodaq: two instrument runtimes side by side over one set of laboratory hardware.

Names are resolved when they are first used, so that a small program on duodaq (a simulator, a watchdog, another
program's backend) does not load what it never asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duodaq._names import names_of

if TYPE_CHECKING:
    from duodaq.app import Lab, connect
    from duodaq.app import open_lab as open
    from duodaq.config import load_lab
    from duodaq.dual import DualRuntimeManager
    from duodaq.errors import ConfigError, DuodaqError, ScanInterruptedError
    from duodaq.schema import open_wirelog
    from duodaq.storage.reading import open_run, runs
    from duodaq.v4 import Actor, ActorSystem, DataPublisher
    from duodaq.v4.instruments import Elliptec, Esp300, MaiTai, Newport1830C, PvcamActor, ScpiActor

__all__ = [
    "Actor",
    "ActorSystem",
    "ConfigError",
    "DataPublisher",
    "DualRuntimeManager",
    "DuodaqError",
    "Elliptec",
    "Esp300",
    "Lab",
    "MaiTai",
    "Newport1830C",
    "PvcamActor",
    "ScanInterruptedError",
    "ScpiActor",
    "connect",
    "load_lab",
    "open",
    "open_run",
    "open_wirelog",
    "runs",
]

_HOMES = {
    "Actor": "duodaq.v4",
    "ActorSystem": "duodaq.v4",
    "ConfigError": "duodaq.errors",
    "DataPublisher": "duodaq.v4",
    "DualRuntimeManager": "duodaq.dual",
    "DuodaqError": "duodaq.errors",
    "Elliptec": "duodaq.v4.instruments",
    "Esp300": "duodaq.v4.instruments",
    "Lab": "duodaq.app",
    "MaiTai": "duodaq.v4.instruments",
    "Newport1830C": "duodaq.v4.instruments",
    "PvcamActor": "duodaq.v4.instruments",
    "ScanInterruptedError": "duodaq.errors",
    "ScpiActor": "duodaq.v4.instruments",
    "connect": "duodaq.app",
    "load_lab": "duodaq.config",
    "open": "duodaq.app:open_lab",
    "open_run": "duodaq.storage.reading",
    "open_wirelog": "duodaq.schema",
    "runs": "duodaq.storage.reading",
}

__getattr__, __dir__ = names_of(globals(), _HOMES)
