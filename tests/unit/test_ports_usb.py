"""A serial line on USB is found by what is plugged in, not by the name it happens to have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tty
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from rich.console import Console

from duodaq import clock
from duodaq.cli._check import plugged_in
from duodaq.cli._ports import _page
from duodaq.errors import PortLostError, PortOpenError
from duodaq.model import LabDefinition, PortDefinition
from duodaq.ports import Broker, PortState, PortStatus, SerialTransport, UsbIdentity, UsbTty, make_transport, usb_ttys
from duodaq.testing._contract_transport import Listener
from duodaq.testing._scripted_port import ScriptedCodec

FTDI = UsbTty("/dev/ttyUSB0", "0403", "6001", "A50285BI", "1-2.3", 0, "FT232R")
TWIN = UsbTty("/dev/ttyUSB1", "0403", "6001", "A7041QXX", "1-2.4", 0, "FT232R")
DOUBLE = (
    UsbTty("/dev/ttyUSB2", "0403", "6010", "", "2-1", 0),
    UsbTty("/dev/ttyUSB3", "0403", "6010", "", "2-1", 1),
)
ALL = [FTDI, TWIN, *DOUBLE]


@pytest.mark.parametrize(
    ("identity", "found"),
    [
        (UsbIdentity("0403:6001:A50285BI"), FTDI),
        (UsbIdentity("0403:6001:a7041qxx"), TWIN),
        (UsbIdentity("0403:6001", location="1-2.4"), TWIN),
        (UsbIdentity("0403:6010", interface=1), DOUBLE[1]),
        (UsbIdentity("0403:6010", "2-1", 0), DOUBLE[0]),
    ],
)
def test_the_one_that_is_meant_is_found(identity: UsbIdentity, found: UsbTty) -> None:
    assert identity.find(ALL) == found
    assert identity.find(reversed(ALL)) == found


def test_a_serial_number_may_hold_colons() -> None:
    odd = UsbTty("/dev/ttyACM0", "2341", "0043", "12:34:5B")
    assert UsbIdentity("2341:0043:12:34:5b").find([FTDI, odd]) == odd


def test_several_that_fit_are_refused_by_name() -> None:
    with pytest.raises(PortOpenError) as caught:
        UsbIdentity("0403:6001").find(ALL)
    assert str(caught.value) == (
        "2 USB devices are 0403:6001: /dev/ttyUSB0 (0403:6001:A50285BI, FT232R, location 1-2.3, interface 0), "
        "/dev/ttyUSB1 (0403:6001:A7041QXX, FT232R, location 1-2.4, interface 0) — nothing was opened; give its serial "
        "number too, or its location or interface"
    )


def test_none_that_fits_is_told_with_what_is_there_instead() -> None:
    with pytest.raises(PortOpenError, match=r"no such USB device is plugged in; plugged in: /dev/ttyUSB0 \(0403:6001"):
        UsbIdentity("0403:6001:GONE").find([FTDI])
    with pytest.raises(PortOpenError, match="no USB serial device is plugged in at all"):
        UsbIdentity("0403:6001").find([])


def lab_on(*serial: dict[str, Any]) -> LabDefinition:
    return LabDefinition("lab", ports=tuple(PortDefinition(f"p{n}", serial=one) for n, one in enumerate(serial)))


def test_check_says_which_device_each_port_on_usb_is_now() -> None:
    lab = lab_on({"usb": "0403:6001:A50285BI"}, {"usb": "0403:6010"}, {"usb": "1111:2222"}, {"path": "/dev/ttyS0"})
    notes = list(plugged_in(lab, lambda: [FTDI, *DOUBLE]))
    assert notes[0] == f"port p0 is {FTDI} now"
    assert notes[1].startswith("port p1: 2 USB devices are 0403:6010: /dev/ttyUSB2")
    assert notes[2].startswith("port p2: no such USB device is plugged in; plugged in: /dev/ttyUSB0")
    assert len(notes) == 3


def test_check_does_not_look_at_usb_for_a_lab_without_any() -> None:
    def look() -> list[UsbTty]:
        raise AssertionError

    assert list(plugged_in(lab_on({"path": "/dev/ttyS0"}), look)) == []


def test_ports_shows_which_device_a_port_on_usb_is() -> None:
    known = msgspec.to_builtins(PortStatus("stage", PortState.OPEN, "usb 0403:6001:A1 (/dev/ttyUSB3)"))
    console = Console(width=120)
    with console.capture() as shown:
        for part in _page([{**known, "exchanges_per_s": 0.0}]):
            console.print(part)
    assert "stage is usb 0403:6001:A1 (/dev/ttyUSB3)" in shown.get()


# --- the real list_ports, on a tree made up like the kernel's


class Tree:
    """``/dev`` and ``/sys`` of a machine into which adapters are plugged; pyserial is made to look there."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        linux: Any = pytest.importorskip("serial.tools.list_ports_linux")
        (root / "dev").mkdir()
        (root / "sys/class/tty").mkdir(parents=True)
        here = str(root)

        def inside(path: str) -> str:
            return path if path.startswith(here) else here + path

        paths = SimpleNamespace(
            basename=os.path.basename,
            dirname=os.path.dirname,
            join=os.path.join,
            exists=lambda path: os.path.exists(inside(path)),
            realpath=lambda path: os.path.realpath(inside(path)),
            islink=lambda path: False,
        )
        monkeypatch.setattr(linux, "os", SimpleNamespace(path=paths))
        monkeypatch.setattr(linux, "glob", SimpleNamespace(glob=lambda mask: [*map(str, sorted(root.glob(mask[1:])))]))

    def plug_in(self, name: str, socket: str, *, serial: str | None = None, interfaces: int = 1, line: int = 0) -> Path:
        """An adapter as usb-serial drivers show it; the device file is still to be made."""
        adapter = self.root / "sys/devices" / socket
        place = adapter / f"{socket}:1.{line}" / name
        place.mkdir(parents=True)
        facts = {"idVendor": "0403", "idProduct": "6001", "bNumInterfaces": str(interfaces), "product": "FT232R"}
        for fact, value in {**facts, **({"serial": serial} if serial else {})}.items():
            (adapter / fact).write_text(value + "\n")
        driver = self.root / "sys/bus/usb-serial"
        driver.mkdir(parents=True, exist_ok=True)
        (place / "subsystem").symlink_to(driver)
        (self.root / "sys/class/tty" / name).mkdir()
        (self.root / "sys/class/tty" / name / "device").symlink_to(place)
        return self.root / "dev" / name

    def pull_out(self, name: str, socket: str) -> None:
        for path in sorted((self.root / "sys/devices" / socket).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        (self.root / "sys/class/tty" / name / "device").unlink()
        (self.root / "sys/class/tty" / name).rmdir()
        (self.root / "dev" / name).unlink()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    return Tree(tmp_path, monkeypatch)


def test_what_the_kernel_shows_is_read_by_pyserial(tree: Tree) -> None:
    tree.plug_in("ttyUSB0", "1-2.3", serial="A50285BI").touch()
    tree.plug_in("ttyUSB1", "1-4", interfaces=2, line=1).touch()
    (tree.root / "dev/ttyS0").touch()  # built in: no USB
    assert usb_ttys() == [
        UsbTty(str(tree.root / "dev/ttyUSB0"), "0403", "6001", "A50285BI", "1-2.3", 0, "FT232R"),
        UsbTty(str(tree.root / "dev/ttyUSB1"), "0403", "6001", "", "1-4", 1, "FT232R"),
    ]


class Far:
    """``X?`` → ``X=ok`` at the far end of a pty, which the running loop keeps."""

    def __init__(self, device: Path) -> None:
        self.held = b""
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        device.symlink_to(os.ttyname(self.slave))
        asyncio.get_running_loop().add_reader(self.master, self.read)

    def read(self) -> None:
        with contextlib.suppress(OSError):
            self.held += os.read(self.master, 4096)
        *lines, self.held = self.held.split(b"\n")
        for line in lines:
            os.write(self.master, line[:-1] + b"=ok\n")

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)
        os.close(self.slave)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(8):
        while not condition():
            await clock.pause(0.005)


@pytest.mark.serial
async def test_an_adapter_that_comes_back_under_another_name_is_the_same_port(tree: Tree) -> None:
    far, broker = Far(tree.plug_in("ttyUSB0", "1-2.3", serial="A50285BI")), Broker()
    definition = PortDefinition("stage", serial={"usb": "0403:6001:A50285BI"})
    port = await broker.add(definition, ScriptedCodec())
    await broker.open("stage")
    assert broker.status()[0].address == f"usb 0403:6001:A50285BI ({tree.root}/dev/ttyUSB0)"
    tree.pull_out("ttyUSB0", "1-2.3")
    far.close()
    await until(lambda: broker.status()[0].state is PortState.LOST)
    with pytest.raises(PortLostError):
        await port.exchange(b"A?\n", holder="a")
    other = Far(tree.plug_in("ttyUSB0", "1-1", serial="SOMEBODY"))  # the name goes to somebody else
    await until(lambda: "SOMEBODY" in broker.status()[0].last_error)
    far = Far(tree.plug_in("ttyUSB1", "1-3", serial="A50285BI"))
    await until(lambda: broker.status()[0].state is PortState.OPEN)
    assert broker.status()[0].address == f"usb 0403:6001:A50285BI ({tree.root}/dev/ttyUSB1)"
    assert await port.exchange(b"A?\n", holder="a") == b"A=ok\n"
    assert other.held == b""
    await broker.aclose()
    far.close()
    other.close()


@pytest.mark.serial
async def test_two_adapters_that_fit_open_nothing(tree: Tree) -> None:
    first, second = Far(tree.plug_in("ttyUSB0", "1-1")), Far(tree.plug_in("ttyUSB1", "1-2"))
    line = make_transport(PortDefinition("stage", serial={"usb": "0403:6001"}))
    with pytest.raises(PortOpenError, match=r"2 USB devices are 0403:6001: .*location 1-1.*location 1-2"):
        await line.open(Listener(), 5)
    told = SerialTransport(usb="0403:6001", location="1-2")
    await told.open(Listener(), 5)
    assert told.address == f"usb 0403:6001 at 1-2 ({tree.root}/dev/ttyUSB1)"
    await told.aclose()
    first.close()
    second.close()


@pytest.mark.serial
async def test_a_link_is_looked_at_anew_each_time(tmp_path: Path) -> None:
    """As udev's in /dev/serial/by-id, it leads to wherever the adapter is now."""
    far, broker = Far(tmp_path / "usb-FTDI_FT232R_A50285BI-if00-port0"), Broker()
    link = tmp_path / "usb-FTDI_FT232R_A50285BI-if00-port0"
    port = await broker.add(PortDefinition("stage", serial={"path": str(link)}), ScriptedCodec())
    await broker.open("stage")
    before = os.readlink(link)
    link.unlink()
    other = Far(tmp_path / "somebody else, who may get the number")
    far.close()
    await until(lambda: broker.status()[0].state is PortState.LOST)
    far = Far(link)
    assert os.readlink(link) != before or os.readlink(tmp_path / "somebody else, who may get the number") != before
    await until(lambda: broker.status()[0].state is PortState.OPEN)
    assert await port.exchange(b"A?\n", holder="a") == b"A=ok\n"
    await broker.aclose()
    far.close()
    other.close()
