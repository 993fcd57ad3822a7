from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from duodaq import sim


@dataclass(frozen=True, slots=True)
class Bench:
    """The simulated table with its instruments, each in a process of its own, and the lab file that describes them."""

    table: sim.TableProcess
    stage: sim.SimProcess
    meter: sim.SimProcess
    dmm: sim.SimProcess
    shutter: sim.SimProcess
    lab_file: Path


@contextlib.contextmanager
def set_up(directory: Path, name: str, seed: int) -> Generator[Bench]:
    """Start everything that stands in for hardware; it ends with this context, after the lab.

    Recordings of that lab go beside `directory`, which is one of them.
    """
    with contextlib.ExitStack() as stack:
        table = stack.enter_context(sim.launch_table(seed))

        def launch(kind: str, *, tcp: bool = False, model: str | None = None) -> sim.SimProcess:
            return stack.enter_context(sim.launch(kind, table=table, tcp=tcp, model=model, seed=seed, paced=True))

        instruments = {
            "stage": launch("esp300"),
            "meter": launch("newport1830c"),
            "dmm": launch("scpi-dmm", tcp=True, model="34401A"),
            "shutter": launch("shutter"),
        }
        addresses = {key: instrument.address for key, instrument in instruments.items()}
        lab_file = directory / "lab.toml"
        runs = json.dumps(str(directory.parent), ensure_ascii=False)  # TOML quotes a text likewise
        template = Template((files("duodaq.cli.demo") / "lab.toml").read_text())
        lab_file.write_text(template.substitute(addresses, name=name, table=table.address, seed=seed, runs=runs))
        yield Bench(table, lab_file=lab_file, **instruments)
