from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from duodaq.errors import ConfigError
from duodaq.model import VirtualDefinition
from duodaq.ports._guest import GuestStatus
from duodaq.ports._virtual_pty import PtyListener
from duodaq.ports._virtual_tcp import TcpListener

if TYPE_CHECKING:
    from duodaq.ports._owner import PortOwner


class VirtualPort:
    """Where programs that know nothing of duodaq use a port: a pty, a TCP port, or both. On the broker's loop.

    Raises:
        ConfigError: The port has neither codec nor idle_ms, so nobody could tell where an exchange of theirs ends; or
            it has no codec and a VISA library carries it, where nobody could tell when to fetch an answer.
    """

    def __init__(self, owner: PortOwner, definition: VirtualDefinition) -> None:
        if owner.codec is None and owner.definition.idle_ms is None:
            raise ConfigError(
                "a virtual port needs to know where an exchange ends",
                key=f"ports.{owner.name}.virtual",
                remedy="Name the codec, or set idle_ms",
            )
        if owner.codec is None and owner.definition.visa is not None:
            raise ConfigError(
                "a virtual port on a VISA port needs a codec: only that knows when there is something to fetch",
                key=f"ports.{owner.name}.virtual",
                remedy="Name the codec",
            )
        self._owner = owner
        self._listeners: list[PtyListener | TcpListener] = []
        if definition.pty is not None:
            self._listeners.append(PtyListener(owner, definition.pty, definition.stall_s))
        if definition.tcp is not None:
            self._listeners.append(TcpListener(owner, definition.tcp, definition.clients, definition.stall_s))
        self._is_open = False

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where programs find it: a path, ``"host:port"``."""
        return tuple(listener.address for listener in self._listeners)

    def guests(self) -> tuple[GuestStatus, ...]:
        """The programs that use it now."""
        return tuple(guest.status() for listener in self._listeners for guest in listener.guests)

    def open(self) -> None:
        """Let programs in. An open one stays as it is.

        Raises:
            PortOpenError, PortBusyError: Not possible; nothing is left open.
        """
        if self._is_open:
            return
        opened: list[Callable[[], None]] = []
        try:
            for listener in self._listeners:
                listener.open()
                opened.append(listener.close)
        except BaseException:
            for close in opened:
                close()
            raise
        self._is_open = True

    def sweep(self, epoch: int) -> None:
        """A stop came: what was written until now was written before it, in the epoch that it ended."""
        for listener in self._listeners:
            for guest in listener.guests:
                guest.sweep(epoch)

    def close(self) -> None:
        """Hang up on everybody and let nobody in. Idempotent."""
        if self._is_open:
            self._is_open = False
            for listener in self._listeners:
                listener.close()
