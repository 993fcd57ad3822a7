from __future__ import annotations

import concurrent.futures
from typing import Any, Protocol


class Measured(Protocol):
    """One measurement: a number or an array, in `unit`, at `t_ns` (UTC)."""

    @property
    def value(self) -> Any: ...

    @property
    def unit(self) -> str: ...

    @property
    def t_ns(self) -> int: ...


class Axis(Protocol):
    """What a scan needs of an axis."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def limits(self) -> tuple[float, float] | None: ...

    def move_soon(self, position: float) -> concurrent.futures.Future[Any]: ...

    def read_position(self) -> Measured: ...

    def stop(self) -> Any: ...


class Reader(Protocol):
    """What a scan needs of an instrument that measures."""

    @property
    def id(self) -> str: ...

    def channels(self) -> list[str]: ...

    def read_soon(self, channel: str) -> concurrent.futures.Future[Any]: ...
