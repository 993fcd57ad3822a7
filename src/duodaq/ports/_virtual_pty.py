"""A virtual port as a pty: a device file that one program at a time opens as if the instrument's cable led there.

The rules that whoever edits this file must keep:

1.  Each program gets a pty of its own. One lies ready under the link; as soon as it is opened (inotify says so), the
    link leads to the next. So what two programs write never meets in one buffer, whoever dies when, and however soon
    the next one comes.
2.  Until a pty is opened, we hold its far side open too, or reading would fail; from then on the program alone does,
    and the end of it, also by SIGKILL, is the failure of our read (EIO), behind all that it had written.
3.  There is one user. Who opens the link while another is there is hung up on, which is what the log says. Who opens
    the device behind the link for a second time is kept out (TIOCEXCL), or, being root or quick, makes both lose it:
    nobody could tell their bytes apart.
4.  The line is raw, and stays so: an echo would send the device's answers back to it as commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duodaq.errors import PortError, PortOpenError
from duodaq.ports._guest import Guest
from duodaq.ports._guest_line import GuestLine
from duodaq.ports._open_watch import OpenWatch
from duodaq.ports._programs import programs_holding, strangers
from duodaq.ports._virtual_link import VirtualLink
from duodaq.telemetry import get_logger

if TYPE_CHECKING:
    from duodaq.ports._owner import PortOwner

_log = get_logger("ports.virtual")
_NAMING_LIMIT = 4
_TWICE = "another program opened the same device at the same time; both have lost it"
_IFLAG, _OFLAG, _LFLAG, _ISPEED, _OSPEED = 0, 1, 3, 4, 5


class PtyListener:
    """The pty of a virtual port; see the rules above.

    Args:
        owner: The port.
        link: Where programs find it.
        stall_s: After which time a program in the middle of something is cut off.
    """

    def __init__(self, owner: PortOwner, link: str, stall_s: float) -> None:
        self.address = link
        self._owner = owner
        self._link = VirtualLink(Path(link))
        self._stall_s = stall_s
        self._ready: _Pty | None = None
        self._used: _Pty | None = None
        self._guests: list[Guest] = []
        self._naming: list[threading.Thread] = []

    @property
    def guests(self) -> tuple[Guest, ...]:
        return tuple(self._guests)

    def open(self) -> None:
        """Make the link and what it leads to.

        Raises:
            PortOpenError: It cannot be made, or something else is there. Nothing is left.
            PortBusyError: Another lab has it.
        """
        try:
            self._link.take()
            self._lay_ready()
        except PortError as error:
            raise error.about(port=self._owner.name) from None
        except OSError as error:
            self._link.release(None)
            raise PortOpenError(f"its virtual port {self.address}: {error}", port=self._owner.name) from error

    def _lay_ready(self) -> None:
        pty = _Pty(self._opened, self._baud())
        try:
            self._link.point_to(pty.device)
        except OSError:
            pty.close()
            raise
        self._ready = pty

    def _baud(self) -> int | None:
        serial = self._owner.definition.serial
        return None if serial is None else int(serial.get("baud", 9600))

    def _opened(self, pty: _Pty) -> None:
        if pty is self._ready:
            self._ready = None
            try:
                self._lay_ready()
            except OSError as error:
                _log.error("a virtual port lets nobody in any more", port=self._owner.name, why=str(error))
            self._welcome(pty)
        elif pty.guest is not None and pty.guest.is_here:
            pty.guest.cut_off(_TWICE)

    def _welcome(self, pty: _Pty) -> None:
        before = self._used
        if before is not None and before.line is not None:
            before.line.sweep()  # it may have gone already
        if before is not None and before.guest is not None and before.guest.is_here:
            _log.warning(
                "a second program opened a virtual port that has one user; it was hung up on",
                port=self._owner.name,
                device=self.address,
                user=before.guest.holder,
            )
            pty.close()
            return
        self._used = pty
        guest = Guest(self._owner, f"virtual:{self._owner.name} pty", self._stall_s, self._guests.remove)
        self._guests.append(guest)
        pty.serve(guest)
        self._find_name(pty, guest)

    def _find_name(self, pty: _Pty, guest: Guest) -> None:
        """Look in a thread, for /proc is large, who it is; and whether it is alone."""
        self._naming = [thread for thread in self._naming if thread.is_alive()]
        if len(self._naming) < _NAMING_LIMIT:
            thread = threading.Thread(target=self._look, args=(pty.device, guest), name="who is there", daemon=True)
            self._naming.append(thread)
            thread.start()

    def _look(self, device: str, guest: Guest) -> None:
        found = list(programs_holding(device))
        if found:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
                self._owner.hand_over(self._found, guest, found)

    def _found(self, guest: Guest, programs: list[tuple[int, str]]) -> None:
        if not guest.is_here:
            return
        guest.rename(f"{guest.holder} {programs[0][0]}/{programs[0][1]}")
        if strangers(pid for pid, _ in programs):
            guest.cut_off(_TWICE)

    def close(self) -> None:
        """Hang up, and take the link away."""
        for guest in self.guests:
            guest.close()
        ready, self._ready = self._ready, None
        self._link.release(ready.device if ready is not None else None)
        if ready is not None:
            ready.close()
        for thread in self._naming:
            thread.join(0.5)


class _Pty:
    """One pseudo terminal: the master, our own slave until somebody opens it, and the watch that says so."""

    def __init__(self, on_open: Callable[[_Pty], None], baud: int | None) -> None:
        self._termios: Any = importlib.import_module("termios")
        self._tty: Any = importlib.import_module("tty")
        self._loop = asyncio.get_running_loop()
        self._on_open = on_open
        self._baud = baud
        self.guest: Guest | None = None
        self.line: GuestLine | None = None
        self._told = ""
        self._is_open = True
        self._master, self._slave = os.openpty()
        self.device = os.ttyname(self._slave)
        try:
            os.fchmod(self._slave, 0o600)
            os.set_blocking(self._master, False)
            self._make_raw()
            self._watch = OpenWatch(self.device)
        except BaseException:
            os.close(self._master)
            os.close(self._slave)
            raise
        self._loop.add_reader(self._watch.descriptor, self._opened)

    def _make_raw(self) -> None:
        termios = self._termios
        self._tty.setraw(self._master, termios.TCSANOW)
        speed = getattr(termios, f"B{self._baud}", None)
        if speed is not None:
            mode = termios.tcgetattr(self._master)
            mode[_ISPEED] = mode[_OSPEED] = speed
            termios.tcsetattr(self._master, termios.TCSANOW, mode)

    def _opened(self) -> None:
        if self._watch.opened():
            self._on_open(self)

    def serve(self, guest: Guest) -> None:
        """Give the line to `guest`; from now on the program alone keeps it open."""
        fcntl: Any = importlib.import_module("fcntl")
        fcntl.ioctl(self._slave, self._termios.TIOCEXCL)
        self._release_slave()
        self.guest = guest
        self.line = GuestLine(self._master, self, self.close, hangs_up=True)
        guest.attend(self.line)

    # --- what the line says, on its way to the guest

    def heard(self, data: bytes) -> None:
        self._look_at_settings()
        if self.guest is not None:
            self.guest.heard(data)

    def finished(self) -> None:
        self.gone()

    def gone(self) -> None:
        if self.guest is not None:
            self.guest.gone()

    def delivered(self) -> None:
        if self.guest is not None:
            self.guest.delivered()

    def _look_at_settings(self) -> None:
        """Keep the line raw, and say once that another speed changes nothing."""
        termios = self._termios
        mode = termios.tcgetattr(self._master)
        cooked = mode[_LFLAG] & (termios.ECHO | termios.ICANON | termios.ISIG) or mode[_OFLAG] & termios.OPOST
        if cooked or mode[_IFLAG] & (termios.ICRNL | termios.INLCR | termios.IGNCR | termios.ISTRIP):
            self._tty.setraw(self._master, termios.TCSANOW)
            self._tell("a program set a virtual port to echo or to translate; it is raw again")
        if self._baud is not None and mode[_OSPEED] != getattr(termios, f"B{self._baud}", mode[_OSPEED]):
            self._tell(f"a program set another speed on a virtual port; the line keeps its {self._baud} baud")

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told += what
            _log.info(what, client=self.guest.holder if self.guest is not None else "")

    # --- the end

    def _release_slave(self) -> None:
        slave, self._slave = self._slave, -1
        if slave >= 0:
            os.close(slave)

    def close(self) -> None:
        """Hang up. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._watch.descriptor)
        self._watch.close()
        self._release_slave()
        os.close(self._master)
