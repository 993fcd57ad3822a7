"""Which port a VISA resource name means."""

from __future__ import annotations

from pathlib import Path

import pytest

from duodaq.model import PortDefinition
from duodaq.ports import visa_alias, visa_name

pytest.importorskip("pyvisa")
from pyvisa.constants import InterfaceType

from pyvisa_duodaq._names import find_port, info_of, is_address, is_name, names_of

PORTS = {
    port.name: port
    for port in (
        PortDefinition("dmm", tcp="192.168.1.20:5025"),
        PortDefinition("Six", tcp="[fe80::1]:5025"),
        PortDefinition("stage", serial={"path": "/dev/ttyUSB0"}),
        PortDefinition("laser", serial={"usb": "0403:6001:A1"}),
        PortDefinition("asrl_old", serial={"path": "COM3"}),
    )
}


def found(name: str) -> str | None:
    port = find_port(PORTS, name)
    return None if port is None else port.name


@pytest.mark.parametrize(
    ("name", "port"),
    [
        ("dmm", "dmm"),
        (" DMM ", "dmm"),
        ("six", "Six"),
        ("duodaq::dmm", "dmm"),
        ("Duodaq3::dmm::INSTR", "dmm"),
        ("duodaq::dmm::SOCKET", "dmm"),
        ("TCPIP0::192.168.1.20::5025::SOCKET", "dmm"),
        ("tcpip::192.168.1.20::5025::SOCKET", "dmm"),
        ("ASRL/dev/ttyUSB0::INSTR", "stage"),
        ("ASRL/dev/ttyUSB0", "stage"),
        ("duodaq::laser::INSTR", "laser"),
        ("asrl_old", "asrl_old"),
        ("ASRL_old::INSTR", "asrl_old"),  # what PyVISA makes of that port's name
        ("ASRL3::INSTR", "asrl_old"),
        ("TCPIP1::192.168.1.20::5025::SOCKET", None),
        ("TCPIP0::192.168.1.20::5026::SOCKET", None),
        ("duodaq::nothing::INSTR", None),
        ("", None),
        ("GPIB0::9::INSTR", None),
        ("TCPIP", None),
    ],
)
def test_a_name_means_at_most_one_port(name: str, port: str | None) -> None:
    assert found(name) == port


def test_a_device_is_the_same_under_any_of_its_links(tmp_path: Path) -> None:
    device, link = tmp_path / "device", tmp_path / "by-id"
    device.touch()
    link.symlink_to(device)
    ports = {"p": PortDefinition("p", serial={"path": str(link)})}
    assert find_port(ports, f"ASRL{device}::INSTR") is ports["p"]


def test_a_port_is_listed_by_address_and_name_and_found_by_both() -> None:
    for name, port in PORTS.items():
        assert {found(listed) for listed in names_of(port)} == {name}
    assert list(names_of(PORTS["laser"])) == ["duodaq::laser::INSTR"]
    assert visa_name(PORTS["Six"]) is None
    assert info_of(PORTS["Six"])[:4] == (InterfaceType.tcpip, 0, "SOCKET", "duodaq::Six::INSTR")
    assert visa_alias("dmm") == "duodaq::dmm::INSTR"


def test_pyvisa_is_told_what_kind_of_line_it_is() -> None:
    assert info_of(PORTS["dmm"])[:3] == (InterfaceType.tcpip, 0, "SOCKET")
    assert info_of(PORTS["laser"]) == (InterfaceType.asrl, None, "INSTR", "duodaq::laser::INSTR", "laser")
    assert info_of(PORTS["asrl_old"])[1] == 3


def test_words_are_no_names_of_resources() -> None:
    assert is_name("duodaq::x::INSTR")
    assert is_name("GPIB0::9::INSTR")
    assert not is_address("duodaq::x::INSTR")
    assert not any(map(is_name, ("nonsense", "", "::", "duodaq::")))
