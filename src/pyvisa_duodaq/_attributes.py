"""The attributes of a session: which there are, what they are at first, and which belong to the lab file."""

from __future__ import annotations

from typing import Any, cast

from pyvisa import attributes, constants, rname
from pyvisa.constants import (
    ControlFlow,
    IOProtocol,
    Parity,
    ResourceAttribute,
    SerialTermination,
    StatusCode,
    StopBits,
)
from pyvisa.highlevel import ResourceInfo

from duodaq.model import PortDefinition
from duodaq.telemetry import get_logger
from pyvisa_duodaq._names import parts_of

A = ResourceAttribute
VALUES = (
    A.termchar,
    A.termchar_enabled,
    A.send_end_enabled,
    A.suppress_end_enabled,
    A.user_data,
    A.max_queue_length,
    A.read_buffer_operation_mode,
    A.write_buffer_operation_mode,
    A.file_append_enabled,
    A.asrl_end_in,
    A.asrl_end_out,
)
"""What belongs to the session alone: whatever is set is kept."""

_KNOWN: dict[int, Any] = cast("Any", attributes).AttributesByID
_PARITY = {"N": Parity.none, "E": Parity.even, "O": Parity.odd, "M": Parity.mark, "S": Parity.space}
_STOP_BITS = {1.0: StopBits.one, 1.5: StopBits.one_and_a_half, 2.0: StopBits.two}
_SPEC_VERSION = 0x00500800
_log = get_logger("visa")


class SessionAttributes:
    """The attributes of a session but for its time-out and its locks, which live elsewhere."""

    def __init__(self, definition: PortDefinition, info: ResourceInfo, manager: int) -> None:
        self._port = definition.name
        self._kind = (info.interface_type, info.resource_class or "")
        self._values: dict[int, Any] = {a: _default(a) for a in VALUES if self._has(a)}
        self._line = _line_settings(definition, info)
        self._facts: dict[int, Any] = {
            A.resource_manager_session: manager,
            A.resource_name: info.resource_name,
            A.resource_class: info.resource_class,
            A.interface_type: info.interface_type,
            A.interface_number: info.interface_board_number or 0,
            A.interface_instrument_name: f"port {definition.name} of a duodaq lab",
            A.resource_manufacturer_name: "duodaq",
            A.resource_manufacturer_id: 0,
            A.resource_impl_version: 0x00100000,
            A.resource_spec_version: _SPEC_VERSION,
            A.io_prot: IOProtocol.normal,
            A.dma_allow_enabled: constants.VI_FALSE,
            **_address_facts(definition),
        }

    def value(self, attribute: ResourceAttribute) -> Any:
        """The present value of one that the session keeps itself."""
        return self._values.get(attribute)

    def get(self, attribute: int) -> tuple[Any, StatusCode]:
        """The value of an attribute, and the status."""
        if not self._has(attribute):
            return None, StatusCode.error_nonsupported_attribute
        for known in (self._values, self._line, self._facts):
            if attribute in known:
                return known[attribute], StatusCode.success
        return None, StatusCode.error_nonsupported_attribute

    def set(self, attribute: int, state: Any) -> StatusCode:
        """Set an attribute. The line's own settings belong to the lab file: only what they are already is accepted."""
        if not self._has(attribute):
            return StatusCode.error_nonsupported_attribute
        if not _KNOWN[attribute].write:
            return StatusCode.error_attribute_read_only
        if attribute in (A.asrl_end_in, A.asrl_end_out):
            return self._set_end(attribute, state)
        if attribute in self._values:
            self._values[attribute] = state
            return StatusCode.success
        fixed = {**self._line, A.io_prot: IOProtocol.normal}
        if attribute not in fixed:
            return StatusCode.error_nonsupported_attribute
        if fixed[attribute] == state:
            return StatusCode.success
        _log.warning(
            "a program wants to change a line that others use too: refused; change it in the lab file if it is right",
            port=self._port,
            attribute=_KNOWN[attribute].visa_name,
            is_=str(fixed[attribute]),
            wanted=str(state),
        )
        return StatusCode.error_nonsupported_attribute_state

    def _set_end(self, attribute: int, state: Any) -> StatusCode:
        """Of the ways in which a serial message may end, those that need neither a break nor a ninth bit."""
        if state not in (SerialTermination.none, SerialTermination.termination_char):
            return StatusCode.error_nonsupported_attribute_state
        self._values[attribute] = SerialTermination(state)
        return StatusCode.success

    def _has(self, attribute: int) -> bool:
        known = _KNOWN.get(attribute)
        return known is not None and known.in_resource(self._kind)


def _default(attribute: int) -> Any:
    return _KNOWN[attribute].default


def _line_settings(definition: PortDefinition, info: ResourceInfo) -> dict[int, Any]:
    """What the lab file says of the line, in VISA's terms."""
    if info.interface_type is not constants.InterfaceType.asrl:
        return {A.tcpip_nodelay: constants.VI_TRUE, A.tcpip_keepalive: constants.VI_TRUE}
    serial = definition.serial or {}
    flow = ControlFlow.rts_cts if serial.get("rtscts") else ControlFlow.none
    if serial.get("xonxoff"):
        flow |= ControlFlow.xon_xoff
    return {
        A.asrl_baud_rate: int(serial.get("baud", 9600)),
        A.asrl_data_bits: int(serial.get("bytesize", 8)),
        A.asrl_parity: _PARITY.get(str(serial.get("parity", "N")).upper()[:1], Parity.none),
        A.asrl_stop_bits: _STOP_BITS.get(float(serial.get("stopbits", 1)), StopBits.one),
        A.asrl_flow_control: flow,
    }


def _address_facts(definition: PortDefinition) -> dict[int, Any]:
    if definition.visa is not None:
        return _resource_facts(parts_of(definition))
    if definition.tcp is None:
        return {}
    host, _, port = definition.tcp.rpartition(":")
    return {A.tcpip_address: host.strip("[]"), A.tcpip_hostname: host.strip("[]"), A.tcpip_port: int(port)}


def _resource_facts(parts: rname.ResourceName | None) -> dict[int, Any]:
    if isinstance(parts, rname.TCPIPInstr):
        host = parts.host_address.partition(",")[0]
        hislip = parts.lan_device_name.lower().startswith("hislip")
        return {
            A.tcpip_address: host,
            A.tcpip_hostname: host,
            A.tcpip_device_name: parts.lan_device_name,
            A.tcpip_is_hislip: constants.VI_TRUE if hislip else constants.VI_FALSE,
        }
    if isinstance(parts, rname.GPIBInstr):
        given = parts.secondary_address or ""
        secondary = int(given) if given.isdigit() else constants.VI_NO_SEC_ADDR
        return {A.gpib_primary_address: int(parts.primary_address), A.gpib_secondary_address: secondary}
    if isinstance(parts, rname.USBInstr):
        return {
            A.manufacturer_id: int(parts.manufacturer_id, 0),
            A.model_code: int(parts.model_code, 0),
            A.usb_serial_number: parts.serial_number,
        }
    return {}
