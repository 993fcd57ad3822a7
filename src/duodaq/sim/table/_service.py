"""The table's process: one asyncio server on a local socket around one `LocalTable`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from duodaq.sim.table._motion import Piece, Profile
from duodaq.sim.table._table import LocalTable
from duodaq.sim.table._wire import Answer, Request, pack, unpack_length


class TableService:
    """Serves one table to any number of clients on the socket at `path` (mode 0600)."""

    def __init__(self, table: LocalTable, path: str) -> None:
        self.table = table
        self.path = path
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._decoder = msgspec.msgpack.Decoder(Request)
        self._operations: dict[str, Callable[..., Any]] = {
            "state": table.state,
            "truth": table.truth,
            "set_laser": table.set_laser,
            "set_wavelength": table.set_wavelength,
            "wavelength_nm": table.wavelength_nm,
            "set_shutter": table.set_shutter,
            "set_motion": self._set_motion,
            "motion": self._motion,
            "power_w": table.power_w,
            "photodiode_v": table.photodiode_v,
            "scene": table.scene,
            "picture": self._picture,
            "tally": table.tally,
            "counts": table.counts,
        }

    async def start(self) -> None:
        """Begin to listen; a stale socket file of an earlier table is replaced."""
        self._remove_socket()
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        os.chmod(self.path, 0o600)

    async def aclose(self) -> None:
        """Hang up on everybody and remove the socket."""
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._clients):
            writer.close()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=1.0)
        self._remove_socket()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._clients.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    body = await reader.readexactly(unpack_length(await reader.readexactly(4)))
                    writer.write(pack(self._answer(body)))
                    await writer.drain()
        finally:
            self._clients.discard(writer)
            writer.close()

    def _answer(self, body: bytes) -> Answer:
        try:
            request = self._decoder.decode(body)
            operation = self._operations.get(request.op)
            if operation is None:
                return Answer(error=f"no operation {request.op!r}")
            return Answer(value=operation(*request.params))
        except (TypeError, ValueError, KeyError, IndexError) as exc:
            return Answer(error=f"{type(exc).__name__}: {exc}")

    def _set_motion(self, axis: int, pieces: list[list[float]]) -> None:
        self.table.set_motion(axis, Profile(tuple(Piece(*piece) for piece in pieces)))

    def _motion(self, axis: int) -> list[list[float]]:
        return [list(piece) for piece in self.table.motion(axis).pieces]

    def _picture(self, shape: list[int], roi: list[int], binning: list[int]) -> bytes:
        (height, width), (x, y, across, down), (bin_x, bin_y) = shape, roi, binning
        return self.table.picture((height, width), (x, y, across, down), (bin_x, bin_y)).tobytes()

    def _remove_socket(self) -> None:
        Path(self.path).unlink(missing_ok=True)
