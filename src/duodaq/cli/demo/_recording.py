from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.table import Table

from duodaq.cli._report import plain_table
from duodaq.cli.demo._ledger import Ledgers, recorded


def recording_table(directory: Path, ledgers: Ledgers) -> tuple[Table, list[str]]:
    """Every file of the recording, read back with plain tools, and which of them lack rows that were delivered."""
    table = plain_table("The recording, read back with plain pyarrow and numpy", ("file",), ("rows", "MB"))
    problems: list[str] = []
    for file in sorted(directory.glob("*.arrows")):
        rows = _count_rows(file)
        table.add_row(file.name, str(rows), f"{file.stat().st_size / 1e6:.2f}")
        taken = recorded(ledgers, file.stem)
        if rows != taken:
            problems.append(f"{file.name} holds {rows} rows; {taken} were delivered to the recorder.")
    for file in sorted(directory.glob("*.npy")):
        frames = len(np.load(file, mmap_mode="r"))
        table.add_row(file.name, str(frames), f"{file.stat().st_size / 1e6:.2f}")
        taken = recorded(ledgers, file.stem)
        if frames != taken:
            problems.append(f"{file.name} holds {frames} frames; {taken} were delivered to the recorder.")
    return table, problems


def _count_rows(file: Path) -> int:
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
        return sum(batch.num_rows for batch in reader)
