"""A detached scan: the program that carries it out, for the lab that says on its stdin which. Nobody else calls it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from duodaq.app._channel import RemoteChannel
from duodaq.app._client import LabClient
from duodaq.app._scan_facts import ScanWish
from duodaq.errors import DuodaqError


class Told(msgspec.Struct):
    """Where the lab is, who this is, and what is wanted."""

    socket: str
    ticket: str
    wish: ScanWish


def main() -> int:
    """Scan; 1 if it ended before its last point, and why on stderr."""
    told = msgspec.json.decode(sys.stdin.buffer.read(), type=Told)
    try:
        with LabClient(RemoteChannel(Path(told.socket)), ticket=told.ticket) as lab:
            scan(lab, told.wish)
    except DuodaqError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def scan(lab: LabClient, wish: ScanWish) -> None:
    """Carry it out, as a notebook would."""
    axes = [(lab[name.partition(".")[0]].axes[name.partition(".")[2]], positions) for name, positions in wish.axes]
    options: dict[str, Any] = {"settle_s": wish.settle_s, "progress": False, **wish.metadata}
    read = [lab[name] for name in wish.read]
    if len(axes) == 1:
        lab.scan(*axes[0], read, **options)
    else:
        lab.grid(*axes, read=read, snake=wish.snake, **options)


if __name__ == "__main__":
    sys.exit(main())
