"""How an instrument of a lab lives in either runtime, and the lab file that says where it does."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from duodaq.errors import ConfigError, LifecycleError
from duodaq.model import InstrumentDefinition, RuntimeName
from duodaq.storage.export import aside

if TYPE_CHECKING:
    from duodaq.app._lab import Lab
    from duodaq.migration import Equivalents

T = TypeVar("T")


class Route(NamedTuple):
    """The two definitions of an instrument; `v4` None if there is none, and `left` says why."""

    v2: InstrumentDefinition | None
    v4: InstrumentDefinition | None
    same: Equivalents | None
    unsaid: list[str]
    left: str = ""


class Routes:
    """Knows both definitions of each instrument, as the lab was loaded: its file may be written meanwhile.

    Args:
        lab: Whose; on its loop.

    Attributes:
        given: What is not looked for in a file, V2's definition first.
    """

    def __init__(self, lab: Lab) -> None:
        self.given: dict[str, tuple[InstrumentDefinition, InstrumentDefinition]] = {}
        self._lab = lab
        self._known: dict[str, Route] = {}
        self._file_free = asyncio.Lock()

    async def know(self, id: str) -> None:
        """Find both definitions beside the loop: looking for drivers may take longer than a loop may stand.

        Raises:
            ConfigError: The lab file cannot be read.
            LifecycleError: There is no file, and nothing is given.
        """
        known = self._known.get(id)
        if known is None or known.same is None:  # of what had none the file may name a V4 driver by now
            self._known[id] = await _beside(lambda: self._found(id))

    def of(self, id: str) -> Route:
        """Both definitions; see `know`."""
        if id not in self._known:
            self._known[id] = self._found(id)
        return self._known[id]

    def forget(self, id: str) -> None:
        """It has become another, or is gone."""
        self._known.pop(id, None)

    async def write(self, id: str) -> tuple[RuntimeName, str]:
        """Write where an instrument lives now into the lab file, and have the lab described so; where, and the diff.

        Raises:
            ConfigError: The file has become wrong meanwhile. It is unchanged.
            LifecycleError: There is no file, or its stanza cannot be turned. It is unchanged.
            StorageError: It cannot be written. It is unchanged.
        """
        file, runtime = self._file(), self._lab.manager.definition(id).runtime
        async with self._file_free:  # of two that write at once one would take back what the other wrote
            written, diff = await _beside(lambda: _turn(file, id, runtime))
        known = self._lab.definition
        others = tuple(written if d.id == id else d for d in known.instruments)
        self._lab.adopt(replace(known, instruments=others))  # else `apply` would take the move for a change to come
        return runtime, diff

    async def said_in_file(self, id: str) -> str:
        """The runtime that the lab file says at this moment; empty where it says none."""
        file = self._lab.definition.file
        if file is None:
            return ""
        try:
            text = await _beside(lambda: _text_of(file))
        except ConfigError:
            return ""
        return str(tomllib.loads(text).get("instruments", {}).get(id, {}).get("runtime", ""))

    def _found(self, id: str) -> Route:
        from duodaq.migration import convert_back, convert_lab, equivalents_between, left_unsaid

        codec = self._codec(id)
        if id in self.given:
            v2, v4 = self.given[id]
            return Route(v2, v4, equivalents_between(v2, codec, v4), [])
        as_loaded = next(d for d in self._lab.definition.instruments if d.id == id)
        text = _text_of(self._file())
        in_file = tomllib.loads(text).get("instruments", {}).get(id, {}).get("runtime", as_loaded.runtime)
        done = (convert_lab if in_file == "v2" else convert_back)(text, {id})
        if id not in done.converted:
            present = self._lab.manager.definition(id).runtime
            return Route(
                as_loaded if as_loaded.runtime == "v2" else None,
                as_loaded if as_loaded.runtime == "v4" else None,
                None,
                [],
                done.left.get(id, f"it is in {present}"),
            )
        other = self._loaded(done.text, id)
        own = as_loaded if as_loaded.runtime == in_file else self._loaded(text, id)
        v2, v4 = (own, other) if in_file == "v2" else (other, own)
        same = equivalents_between(v2, codec, v4)
        if in_file == "v2":
            return Route(v2, v4, same, done.unsaid.get(id, []))
        before, now = (tomllib.loads(one)["instruments"][id] for one in (done.text, text))
        return Route(v2, v4, same, left_unsaid(before, now, same))

    def _loaded(self, text: str, id: str) -> InstrumentDefinition:
        from duodaq.config import load_text

        found = next(d for d in load_text(text, self._file()).instruments if d.id == id)
        return replace(found, base_dir=self._lab.definition.directory)

    def _file(self) -> Path:
        file = self._lab.definition.file
        if file is None:
            raise LifecycleError("this lab has no file; say in `routes` how its instruments live in V4")
        return file

    def _codec(self, id: str) -> str | None:
        manager = self._lab.manager
        port = manager.broker.definitions().get(manager.definition(id).port or "")
        return None if port is None else port.codec


def _text_of(file: Path) -> str:
    try:
        text = file.read_bytes().decode("utf-8-sig")
        tomllib.loads(text)
    except (OSError, ValueError) as error:  # there is none, or it is no text, or no TOML
        raise ConfigError(f"the lab file cannot be read: {error}", file=str(file)) from error
    return text


def _turn(file: Path, id: str, runtime: RuntimeName) -> tuple[InstrumentDefinition, str]:
    """Write into a lab file that an instrument lives in `runtime`; how it is described there now, and the diff."""
    from duodaq.config import load_text
    from duodaq.migration import convert_back, convert_lab

    before = _text_of(file)
    done = (convert_lab if runtime == "v4" else convert_back)(before, {id})
    lab = load_text(done.text, file)  # before it is written: what is wrong stays out
    written = next(d for d in lab.instruments if d.id == id)
    if written.runtime != runtime:
        raise LifecycleError(done.left.get(id, f"its stanza still says {written.runtime}"), instrument=id)
    if done.text != before:
        with aside(file.resolve()) as place:  # the file itself, where its name is a link to it
            place.write_bytes(done.text.encode())
            place.chmod(file.stat().st_mode & 0o777)
    return written, done.diff(file.name)


async def _beside(work: Callable[[], T]) -> T:
    """Do it in a thread, for a loop stands for nothing; nor does it for one that nobody waits for any more."""
    pool, waits = ThreadPoolExecutor(1, "lab file"), True
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, work)
    except asyncio.CancelledError:
        waits = False
        raise
    finally:
        pool.shutdown(wait=waits)
