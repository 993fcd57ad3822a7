from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator, Mapping
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

    def read_position_soon(self) -> concurrent.futures.Future[Any]: ...

    def stop(self) -> Any: ...


class Reader(Protocol):
    """What a scan needs of an instrument that measures."""

    @property
    def id(self) -> str: ...

    def channels(self) -> list[str]: ...

    def read_soon(self, channel: str) -> concurrent.futures.Future[Any]: ...


class Flown(Protocol):
    """A stream that is being collected."""

    @property
    def rows(self) -> concurrent.futures.Future[dict[str, Any]]: ...

    @property
    def started(self) -> concurrent.futures.Future[bool]: ...

    def land(self, enough: int | None = None) -> None: ...


class Instrument(Reader, Protocol):
    """What a Bluesky device needs of an instrument."""

    @property
    def axes(self) -> Mapping[str, Axis]: ...

    def parameters(self) -> list[dict[str, Any]]: ...

    def set(self, name: str, value: Any) -> Any: ...

    def set_soon(self, name: str, value: Any) -> concurrent.futures.Future[Any]: ...

    def get(self, name: str) -> Any: ...

    def call_soon(self, name: str, *args: Any) -> concurrent.futures.Future[Any]: ...

    def fly(self, channel: str, options: dict[str, Any] | None = None) -> Flown: ...

    def stop(self, axis: str | None = None) -> Any: ...


class Laboratory(Protocol):
    """A lab, as far as its instruments are made devices of."""

    def __iter__(self) -> Iterator[Any]: ...
