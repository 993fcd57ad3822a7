"""What the shell completes besides commands and options: names of running labs, of what is in them, and of runs.

A key was pressed, and a person waits: nothing is asked that takes long, and what goes wrong completes nothing. Each is
given the context (of which the options that stand before are read) and what has been typed of the word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

ANSWER_S = 1.0
_MOST_RUNS = 50


def labs(incomplete: str) -> list[str]:
    """Running labs."""
    return _beginning(incomplete, _quietly(_running))


def instruments(context: typer.Context, incomplete: str) -> list[str]:
    """Instruments of the running lab."""
    return _beginning(incomplete, [one["id"] for one in _described(context)])


def axes(context: typer.Context, incomplete: str) -> list[str]:
    """Axes of the running lab, as ``stage.x``."""
    found = [f"{one['id']}.{axis['name']}" for one in _described(context) for axis in one["axes"]]
    return _beginning(incomplete, found)


def channels(context: typer.Context, incomplete: str) -> list[str]:
    """Channels of the running lab, as ``dmm.voltage``."""
    found = _quietly(lambda: _ask(context, "channels"))
    return _beginning(incomplete, sorted({f"{one['instrument']}.{one['channel']}" for one in found}))


def ports(context: typer.Context, incomplete: str) -> list[str]:
    """Ports of the running lab."""
    return _beginning(incomplete, [one["name"] for one in _quietly(lambda: _ask(context, "ports"))])


def alarms(context: typer.Context, incomplete: str) -> list[str]:
    """Alarms of the running lab."""
    return _beginning(incomplete, [one["name"] for one in _quietly(lambda: _ask(context, "alarms"))])


def runs(context: typer.Context, incomplete: str) -> list[str]:
    """The latest runs of ``--dir``, and ``last``."""
    directory = context.params.get("directory")
    if directory in (None, Path("runs")) and context.obj:
        directory = context.obj[0]
    folder = Path(directory or "runs")
    found = _quietly(lambda: sorted((one.name for one in folder.iterdir() if one.is_dir()), reverse=True))
    return _beginning(incomplete, ["last", *found[:_MOST_RUNS]])


def lab_files(incomplete: str) -> list[str]:
    """Lab files, and folders on the way to one."""
    place = Path(incomplete).parent if not incomplete.endswith("/") else Path(incomplete)
    head = incomplete[: incomplete.rfind("/") + 1]
    entries = _quietly(lambda: sorted(place.iterdir()))
    found = [f"{head}{one.name}{'/' if one.is_dir() else ''}" for one in entries if not one.name.startswith(".")]
    return _beginning(incomplete, [one for one in found if one.endswith((".toml", "/"))])


def kinds(incomplete: str) -> list[str]:
    """Kinds of instrument, as ``--add`` wants them."""
    from duodaq.cli._catalogue import KINDS

    return _beginning(incomplete, [f"{kind}=" for kind in KINDS])


def simulators(incomplete: str) -> list[str]:
    """Simulated instruments."""
    return _beginning(incomplete, SIMULATORS)


SIMULATORS = ("ell14", "esp300", "maitai", "newport1830c", "scpi-dmm", "scpi-psu", "scpi-scope", "shutter")
FORMATS = ("parquet", "hdf5", "zarr", "csv")


def formats(incomplete: str) -> list[str]:
    """Forms in which a run can be written."""
    return _beginning(incomplete, FORMATS)


# ---- how it is found out ---------------------------------------------------------------------------------------------


def _beginning(incomplete: str, found: Iterable[str]) -> list[str]:
    return [one for one in found if one.startswith(incomplete)]


def _quietly(find: Callable[[], list[Any]]) -> list[Any]:
    try:
        return find()
    except Exception:  # noqa: BLE001 - a traceback in the middle of what somebody types helps nobody
        return []


def _running() -> list[str]:
    from duodaq.link import running_labs

    return running_labs()


def _described(context: typer.Context) -> list[dict[str, Any]]:
    return _quietly(lambda: _ask(context, "describe")["instruments"])


def _ask(context: typer.Context, op: str) -> Any:
    """Put one question to the lab that ``--lab`` names, or that runs."""
    from duodaq.link import LAB_PROTOCOL, LinkClient, find_lab

    path = find_lab(context.params.get("lab"))

    async def asked() -> Any:
        async with asyncio.timeout(ANSWER_S):
            client = await LinkClient.open(path, version=LAB_PROTOCOL)
            try:
                return await client.request(op, {}, timeout_s=ANSWER_S)
            finally:
                await client.aclose()

    return asyncio.run(asked())
