"""Which port a VISA resource name means."""

from __future__ import annotations

from pathlib import Path

import pytest

from duodaq.model import PortDefinition, VisaDefinition
from duodaq.ports import visa_alias, visa_name

pytest.importorskip("pyvisa")
from pyvisa.constants import InterfaceType, ResourceAttribute

from pyvisa_duodaq._attributes import SessionAttributes
from pyvisa_duodaq._names import find_port, info_of, is_address, is_name, names_of

PORTS = {
    port.name: port
    for port in (
        PortDefinition("dmm", tcp="192.168.1.20:5025"),
        PortDefinition("Six", tcp="[fe80::1]:5025"),
        PortDefinition("stage", serial={"path": "/dev/ttyUSB0"}),
        PortDefinition("laser", serial={"usb": "0403:6001:A1"}),
        PortDefinition("asrl_old", serial={"path": "COM3"}),
        PortDefinition("scope", visa=VisaDefinition("TCPIP0::192.168.1.40::hislip0::INSTR", "@py")),
        PortDefinition("bus", visa=VisaDefinition("GPIB0::12::INSTR")),
        PortDefinition("usb", visa=VisaDefinition("USB0::0x0957::0x1F01::MY1::INSTR")),
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
        ("tcpip::192.168.1.40::hislip0", "scope"),
        ("TCPIP0::192.168.1.40::hislip1::INSTR", None),
        ("GPIB::12", "bus"),
        ("duodaq::bus::INSTR", "bus"),
        ("USB0::0x0957::0x1F01::MY1::0::INSTR", "usb"),
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


@pytest.mark.parametrize(
    ("port", "interface", "board"),
    [("scope", InterfaceType.tcpip, 0), ("bus", InterfaceType.gpib, 0), ("usb", InterfaceType.usb, 0)],
)
def test_a_resource_behind_a_library_is_of_its_own_class(port: str, interface: InterfaceType, board: int) -> None:
    info = info_of(PORTS[port])
    assert (info.interface_type, info.interface_board_number, info.resource_class) == (interface, board, "INSTR")
    assert info.resource_name == PORTS[port].visa.resource


def test_a_session_knows_the_parts_of_its_address() -> None:
    def value(port: str, attribute: ResourceAttribute) -> object:
        return SessionAttributes(PORTS[port], info_of(PORTS[port]), 1).get(attribute)[0]

    assert value("scope", ResourceAttribute.tcpip_address) == "192.168.1.40"
    assert value("scope", ResourceAttribute.tcpip_device_name) == "hislip0"
    assert value("scope", ResourceAttribute.tcpip_is_hislip)
    assert value("bus", ResourceAttribute.gpib_primary_address) == 12
    assert value("usb", ResourceAttribute.manufacturer_id) == 0x0957
    assert value("usb", ResourceAttribute.usb_serial_number) == "MY1"
