"""Which actor a lab file means by its ``driver``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from duodaq.errors import ConfigError, DuodaqError
from duodaq.model import Command, Execute, InstrumentDefinition, SetParameter
from duodaq.v4.instruments import Elliptec, Esp300, InstrumentActor, MaiTai, Newport1830C, PvcamActor, ScpiActor

ActorKind = type[InstrumentActor]

BUILT_IN: dict[str, ActorKind] = {
    "duodaq:Elliptec": Elliptec,
    "duodaq:Esp300": Esp300,
    "duodaq:MaiTai": MaiTai,
    "duodaq:Newport1830C": Newport1830C,
    "duodaq:PvcamActor": PvcamActor,
    "duodaq:ScpiActor": ScpiActor,
}


def actor_kind(definition: InstrumentDefinition, built_in: Mapping[str, ActorKind] = BUILT_IN) -> ActorKind:
    """The actor class of an instrument: built in, ``"pkg.mod:Class"``, ``"./file.py:Class"``, or the class itself.

    Raises:
        ConfigError: It cannot be found or imported, or is no InstrumentActor.
    """
    driver = definition.driver
    if isinstance(driver, str):
        driver = built_in.get(driver) or _imported(definition, driver)
    if not (isinstance(driver, type) and issubclass(driver, InstrumentActor)):
        raise _wrong(definition, f"{definition.driver} is no InstrumentActor", "Only such classes live in v4")
    return driver


def may_move(kind: ActorKind, definition: InstrumentDefinition, command: Command) -> bool:
    """Whether a command may move or emit; of one that cannot be understood: yes; of its own safe action: no."""
    if is_safe_action(definition, command):
        return False
    try:
        return kind.may_move(kind.message_for(command))
    except DuodaqError:
        return isinstance(command, SetParameter | Execute)


def is_safe_action(definition: InstrumentDefinition, command: Command) -> bool:
    """Whether a command is what the lab file calls to make the instrument safe."""
    return isinstance(command, Execute) and any(
        action.kind == "call" and command == Execute(action.call or "", action.args)
        for action in definition.safe.values()
    )


def _imported(definition: InstrumentDefinition, driver: str) -> Any:
    place, _, name = driver.rpartition(":")
    if not place or not name:
        raise _wrong(definition, f"{driver!r} names no class", 'Write "package.module:Class" or "./file.py:Class"')
    try:
        module = _from_file(definition, place) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:
        raise _wrong(definition, f"{place} cannot be imported: {error!r}", "Mend or install it") from error
    if not hasattr(module, name):
        raise _wrong(definition, f"{place} has no {name}", "Check the spelling of the class")
    return getattr(module, name)


def _from_file(definition: InstrumentDefinition, place: str) -> ModuleType:
    path = (definition.base_dir or Path()) / place
    unique = f"duodaq_lab_{path.resolve().as_posix().replace('/', '_').replace('.', '_')}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return module


def _wrong(definition: InstrumentDefinition, what: str, remedy: str) -> ConfigError:
    return ConfigError(what, key=f"instruments.{definition.id}.driver", remedy=remedy)
