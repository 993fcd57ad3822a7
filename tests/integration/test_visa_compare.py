"""What PyVISA documents, case by case, through ``@duodaq`` and through ``@py`` on the same simulated multimeter.

Every case gives a plain value: a result, or the code or class of the error. Where the two differ, both outcomes are
written down here and the reference page has a row for the case.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duodaq import drivers, sim
from duodaq.clock import Deadline, block, monotonic_s
from duodaq.model import PortDefinition, VisaDefinition
from duodaq.testing._visa_lab import VisaLab

pyvisa = pytest.importorskip("pyvisa")
pytest.importorskip("pyvisa_py")
from pyvisa import constants  # noqa: E402 - it is an extra
from pyvisa.constants import BufferOperation, EventMechanism, EventType, ResourceAttribute, StatusCode  # noqa: E402 - it is an extra

pytestmark = pytest.mark.serial
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "visa.md"
IDN = "who it is"
"""Stands in what is compared for the meter's own answer."""
IDENTITY = b"Keysight Technologies,34465A,MY54500001,A.02.14-02.40-02.14-00.49-01-01"


LAN = {"HISLIP": "hislip", "VXI11": "vxi11"}
"""Kinds of line that belong to the VISA library itself, and what the simulator calls them."""


class Bench:
    """The same multimeter behind both backends, on one kind of line."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.tcp = kind == "SOCKET"
        ways: dict[str, Any] = {LAN[kind]: True} if kind in LAN else {"tcp": self.tcp}
        model = "34401A" if kind == "ASRL" else "34465A"
        # a serial line has one client, and a link's status byte is its own: the same simulator once more
        self.meters = [sim.launch("scpi-dmm", model=model, seed=5, **ways) for _ in range(1 if self.tcp else 2)]
        here, there = self.meters[0].address, self.meters[-1].address
        self.lab = VisaLab("outside")
        self.lab.add(
            PortDefinition("dmm", codec="scpi", options={"quiet_s": 0.02}, **self._line(here)), drivers.codec("scpi")
        )
        self.lab.serve()
        self.managers = {"duodaq": pyvisa.ResourceManager(self.lab.address), "py": pyvisa.ResourceManager("@py")}
        self.names = {"duodaq": self._resource(here), "py": self._resource(there)}
        self.managers["duodaq"].list_resources()
        self.identity = self.lab.exchange(b"*IDN?\n", port="dmm").decode().strip()

    def _line(self, address: str) -> dict[str, Any]:
        if self.kind in LAN:
            return {"visa": VisaDefinition(address, "@py")}
        return {"tcp": address} if self.tcp else {"serial": {"path": address, "baud": 9600}}

    def _resource(self, address: str) -> str:
        if self.kind in LAN:
            return address
        return "TCPIP0::{}::{}::SOCKET".format(*address.split(":")) if self.tcp else f"ASRL{address}::INSTR"

    def fault(self, **fields: Any) -> None:
        for meter in self.meters:
            meter.fault(**fields)

    def outcome(self, backend: str, case: Callable[[Any, Bench], Any]) -> Any:
        resource = self.managers[backend].open_resource(self.names[backend])
        resource.read_termination = resource.write_termination = "\n"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _plain(outcome_of(lambda: case(resource, self)), self.identity)
        finally:
            self.fault()
            resource.close()

    def close(self) -> None:
        for manager in self.managers.values():
            manager.close()
        self.lab.close()
        for meter in self.meters:
            meter.__exit__(None, None, None)


def outcome_of(work: Callable[[], Any]) -> Any:
    """What `work` returns, or what it raises, as a word."""
    try:
        return work()
    except pyvisa.VisaIOError as error:
        return StatusCode(error.error_code).name
    except Exception as error:  # noqa: BLE001 - which class it is belongs to the case
        return type(error).__name__


def _plain(value: Any, identity: str) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one, identity) for one in value]
    if isinstance(value, str):
        return value.replace(identity, IDN)
    if isinstance(value, bytearray):
        return bytes(value)
    return value.name if isinstance(value, StatusCode) else value


CASES: dict[str, Callable[[Any, Bench], Any]] = {}


def case(name: str) -> Callable[[Callable[[Any, Bench], Any]], Callable[[Any, Bench], Any]]:
    def keep(work: Callable[[Any, Bench], Any]) -> Callable[[Any, Bench], Any]:
        CASES[name] = work
        return work

    return keep


def attribute(name: str) -> Callable[[Any, Bench], Any]:
    return lambda r, _: r.get_visa_attribute(getattr(ResourceAttribute, name))


for _name in ("termchar", "termchar_enabled", "suppress_end_enabled", "send_end_enabled", "timeout_value"):
    CASES[f"attribute {_name} at first"] = attribute(_name)
for _name in ("interface_type", "resource_class", "interface_number", "resource_manufacturer_name",
              "resource_lock_state", "io_prot", "user_data", "max_queue_length"):  # fmt: skip
    CASES[f"attribute {_name}"] = attribute(_name)
CASES["attribute resource_name"] = lambda r, b: r.resource_name in b.names.values()
CASES["attribute tcpip_port"] = lambda r, _: type(r.get_visa_attribute(ResourceAttribute.tcpip_port)).__name__
CASES["attribute asrl_baud_rate"] = attribute("asrl_baud_rate")
CASES["attribute gpib_primary_address"] = attribute("gpib_primary_address")
CASES["settings at first"] = lambda r, _: [r.chunk_size, r.query_delay, r.encoding, r.timeout]


@case("query")
def _(r: Any, _b: Bench) -> Any:
    return r.query("*IDN?")


@case("query in small chunks")
def _(r: Any, _b: Bench) -> Any:
    r.chunk_size = 4
    return r.query("*IDN?")


@case("query with a delay")
def _(r: Any, _b: Bench) -> Any:
    return r.query("*IDN?", delay=0.02)


@case("write counts its bytes")
def _(r: Any, _b: Bench) -> Any:
    return [r.write("*CLS"), r.write_raw(b"*CLS\n"), r.query("*OPC?")]


@case("write twice and read twice")
def _(r: Any, _b: Bench) -> Any:
    r.write("*IDN?")
    first = r.read()
    r.write("SAMP:COUN?")
    return [first, r.read()]


@case("read in pieces, with statuses")
def _(r: Any, _b: Bench) -> Any:
    r.write("*IDN?")
    with r.ignore_warning(StatusCode.success_max_count_read):
        return [r.visalib.read(r.session, size) for size in (7, 100)]


@case("read_bytes")
def _(r: Any, _b: Bench) -> Any:
    r.write("*IDN?")
    return [r.read_bytes(3), r.read_bytes(100, break_on_termchar=True)]


@case("read_raw")
def _(r: Any, _b: Bench) -> Any:
    r.write("*IDN?")
    return r.read_raw()


@case("query_ascii_values")
def _(r: Any, _b: Bench) -> Any:
    return [r.query_ascii_values("*OPC?"), r.query_ascii_values("*OPC?", converter="d", container=tuple)]


@case("another termination for one read")
def _(r: Any, _b: Bench) -> Any:
    r.write("*IDN?")
    return [r.read(termination=","), r.read_termination, r.read()]


@case("a termination that is ambiguous")
def _(r: Any, _b: Bench) -> Any:
    r.read_termination = "aa"


@case("no termination at all")
def _(r: Any, _b: Bench) -> Any:
    r.read_termination, r.timeout = None, 200
    return r.query("*IDN?")


@case("time-outs that can be set")
def _(r: Any, _b: Bench) -> Any:
    found = []
    for given in (1, 1.7, 0, 0.2, None, float("inf"), 12345):
        r.timeout = given
        found.append([r.timeout, r.get_visa_attribute(ResourceAttribute.timeout_value)])
    del r.timeout
    return [*found, r.timeout]


@case("a time-out below zero")
def _(r: Any, _b: Bench) -> Any:
    r.timeout = -5
    return r.timeout


@case("read where nothing was asked")
def _(r: Any, _b: Bench) -> Any:
    r.timeout = 60
    return [outcome_of(r.read), outcome_of(lambda: r.read_bytes(1)), r.last_status]


@case("a query without an answer, then another")
def _(r: Any, _b: Bench) -> Any:
    r.timeout = 150
    missing = outcome_of(lambda: r.query("NO:SUCH:THING?"))
    r.timeout = 8000
    return [missing, r.query("*OPC?")]


@case("a reply that comes too late, then another query")
def _(r: Any, b: Bench) -> Any:
    b.fault(delay_s=0.4)
    r.timeout = 100
    late = outcome_of(lambda: r.query("*IDN?"))
    b.fault()
    r.timeout = 8000
    return [late, r.query("*OPC?")]


@case("a reply that comes too late, then another read")
def _(r: Any, b: Bench) -> Any:
    b.fault(delay_s=0.4)
    r.timeout = 100
    late = outcome_of(lambda: r.query("*IDN?"))
    r.timeout = 8000
    return [late, r.read()]


@case("flush of what was not read")
def _(r: Any, _b: Bench) -> Any:
    r.write("*IDN?")
    r.read_bytes(3)
    block(0.1)
    r.flush(BufferOperation.discard_read_buffer)
    r.timeout = 60
    return outcome_of(r.read)


@case("clear")
def _(r: Any, _b: Bench) -> Any:
    cleared = outcome_of(r.clear)
    return [cleared, r.query("*OPC?")]


@case("read_stb")
def _(r: Any, _b: Bench) -> Any:
    r.write("*CLS")
    r.write("NO:SUCH:THING")
    return r.read_stb()


@case("read_stb with a reply that was not read")
def _(r: Any, _b: Bench) -> Any:
    r.write("*CLS")
    r.write("*IDN?")
    block(0.1)
    return [outcome_of(r.read_stb), r.read(), outcome_of(r.read_stb)]


@case("read_stb while a query is in hand")
def _(r: Any, b: Bench) -> Any:
    r.write("*CLS")
    b.fault(delay_s=0.5)
    r.write("*OPC?")
    begun_s = monotonic_s()
    polled = outcome_of(r.read_stb)
    return [polled, "waited" if monotonic_s() - begun_s > 0.25 else "at once", r.read()]


@case("two queries before a read")
def _(r: Any, _b: Bench) -> Any:
    r.write("*IDN?")
    block(0.1)
    r.write("SYST:VERS?")
    first, r.timeout = r.read(), 150
    return [first, outcome_of(r.read)]


@case("clear while a query is in hand")
def _(r: Any, b: Bench) -> Any:
    b.fault(delay_s=0.5)
    r.write("*IDN?")
    begun_s = monotonic_s()
    cleared = outcome_of(r.clear)
    waited = monotonic_s() - begun_s > 0.25
    b.fault()
    return [cleared, "waited" if waited else "at once", r.query("*OPC?")]


@case("assert_trigger")
def _(r: Any, _b: Bench) -> Any:
    triggered = outcome_of(r.assert_trigger)
    r.write("*CLS")
    return [triggered, r.query("*OPC?")]


@case("lock and unlock")
def _(r: Any, _b: Bench) -> Any:
    return [outcome_of(r.lock_excl), outcome_of(r.unlock), outcome_of(r.unlock)]


@case("a shared lock by its key")
def _(r: Any, _b: Bench) -> Any:
    return [outcome_of(lambda: r.lock(requested_key="ours")), outcome_of(r.unlock)]


@case("open with an exclusive lock")
def _(r: Any, b: Bench) -> Any:
    r.close()
    backend = next(name for name, manager in b.managers.items() if manager.visalib is r.visalib)
    again = b.managers[backend].open_resource(b.names[backend], constants.AccessModes.exclusive_lock)
    try:
        return again.lock_state
    finally:
        again.close()


@case("enable an event")
def _(r: Any, _b: Bench) -> Any:
    return r.enable_event(EventType.service_request, EventMechanism.queue)


@case("wait for an event")
def _(r: Any, _b: Bench) -> Any:
    return r.wait_on_event(EventType.service_request, 10).timed_out


@case("set an attribute that is only read")
def _(r: Any, _b: Bench) -> Any:
    return r.set_visa_attribute(ResourceAttribute.resource_name, "other")


@case("set an attribute of another kind of resource")
def _(r: Any, _b: Bench) -> Any:
    return r.set_visa_attribute(ResourceAttribute.gpib_readdress_enabled, True)


@case("set the termination character")
def _(r: Any, _b: Bench) -> Any:
    r.read_termination = "\r"
    return [r.get_visa_attribute(name) for name in (ResourceAttribute.termchar, ResourceAttribute.termchar_enabled)]


@case("send_end switched off")
def _(r: Any, _b: Bench) -> Any:
    r.send_end = False
    return [r.send_end, r.query("*OPC?")]


@case("the line as it is")
def _(r: Any, b: Bench) -> Any:
    if b.kind != "ASRL":
        return None
    r.baud_rate, r.data_bits, r.parity = 9600, 8, constants.Parity.none
    r.stop_bits, r.flow_control = constants.StopBits.one, constants.ControlFlow.none
    return [r.baud_rate, r.data_bits, r.parity, r.stop_bits, r.flow_control, r.end_input, r.query("*OPC?")]


@case("the line otherwise")
def _(r: Any, b: Bench) -> Any:
    if b.kind != "ASRL":
        return None
    return [outcome_of(lambda: setattr(r, "baud_rate", 19200)), r.baud_rate]


@case("bytes that have come")
def _(r: Any, b: Bench) -> Any:
    if b.kind != "ASRL":
        return None
    before = r.bytes_in_buffer
    r.write("*OPC?")
    ends = Deadline(5.0)
    while r.bytes_in_buffer < 2 and not ends.passed:
        block(0.005)
    return [before, r.bytes_in_buffer, r.read(), r.bytes_in_buffer]


@case("serial without an end")
def _(r: Any, b: Bench) -> Any:
    if b.kind != "ASRL":
        return None
    r.end_input, r.timeout = constants.SerialTermination.none, 150
    r.write("*OPC?")
    return [r.read_bytes(2), outcome_of(r.read)]


@case("the information of a resource")
def _(r: Any, _b: Bench) -> Any:
    info = r.resource_info
    return [info.interface_type, info.resource_class, info.interface_board_number]


@case("a closed resource")
def _(r: Any, _b: Bench) -> Any:
    r.close()
    return [outcome_of(lambda: r.query("*IDN?")), outcome_of(lambda: r.timeout), outcome_of(r.close)]


@case("the handle of a closed resource")
def _(r: Any, _b: Bench) -> Any:
    number, library = r.session, r.visalib
    r.close()
    return [outcome_of(lambda: library.read(number, 1)), outcome_of(lambda: library.write(number, b"x"))]


@case("a name that is none")
def _(r: Any, _b: Bench) -> Any:
    return outcome_of(lambda: r._resource_manager.open_bare_resource("nonsense"))


@case("a serial device that is not there")
def _(r: Any, _b: Bench) -> Any:
    return outcome_of(lambda: r._resource_manager.open_resource("ASRL/dev/no-such-device::INSTR"))


@case("a socket where nobody listens")
def _(r: Any, _b: Bench) -> Any:
    def use() -> Any:
        with r._resource_manager.open_resource("TCPIP0::127.0.0.1::9::SOCKET", open_timeout=200) as other:
            other.timeout = 100
            return other.query("*IDN?")

    return outcome_of(use)


NO_ATTRIBUTE, NO_OPERATION = "error_nonsupported_attribute", "error_nonsupported_operation"
EVERYWHERE: dict[str, tuple[Any, Any]] = {
    "attribute resource_manufacturer_name": (NO_ATTRIBUTE, "duodaq"),
    "attribute user_data": (NO_ATTRIBUTE, 0),
    "attribute max_queue_length": (NO_ATTRIBUTE, 50),
    "open with an exclusive lock": (NO_ATTRIBUTE, constants.AccessModes.exclusive_lock),
    "enable an event": ("NotImplementedError", NO_OPERATION),
    "wait for an event": ("NotImplementedError", NO_OPERATION),
    "a serial device that is not there": ("SerialException", "error_resource_not_found"),
    "a socket where nobody listens": ("ConnectionRefusedError", "error_resource_not_found"),
}
"""Case → what pyvisa-py does, and what the lab does instead."""

BYTES: dict[str, tuple[Any, Any]] = {
    **EVERYWHERE,
    "attribute resource_lock_state": (NO_ATTRIBUTE, constants.AccessModes.no_lock),
    "attribute io_prot": (NO_ATTRIBUTE, constants.IOProtocol.normal),
    "a reply that comes too late, then another query": (["error_timeout", IDN], ["error_timeout", "1"]),
    "read_stb": (NO_OPERATION, 4),
    "read_stb with a reply that was not read": ([NO_OPERATION, IDN, NO_OPERATION], [0, IDN, 0]),
    "read_stb while a query is in hand": ([NO_OPERATION, "at once", "1"], [0, "waited", "1"]),
    "assert_trigger": (["NotImplementedError", "1"], [None, "1"]),
    "lock and unlock": ([NO_OPERATION] * 3, [None, None, "error_session_not_locked"]),
    "a shared lock by its key": ([NO_OPERATION] * 2, ["ours", None]),
}
"""On a line that carries nothing but bytes."""

MESSAGES: dict[str, tuple[Any, Any]] = {
    **EVERYWHERE,
    "flush of what was not read": ("NotImplementedError", "error_timeout"),
    "read_stb with a reply that was not read": ([16, IDN, 0], [0, IDN, 0]),
    "read_stb while a query is in hand": ([16, "at once", "1"], [0, "waited", "1"]),
    "the handle of a closed resource": (["AttributeError"] * 2, ["error_invalid_object"] * 2),
}
"""On one whose protocol knows messages, a status byte and a device clear."""

PIECES = [b"Keysigh", "success_max_count_read"], IDENTITY[7:] + b"\n"
DIFFERENT: dict[str, dict[str, tuple[Any, Any]]] = {
    "SOCKET": {
        **BYTES,
        "attribute suppress_end_enabled at first": (True, False),
        "attribute send_end_enabled at first": (NO_ATTRIBUTE, True),
        "attribute interface_number": ("0", 0),
        "attribute tcpip_port": ("str", "int"),
        "no termination at all": ("error_timeout", IDN + "\n"),
        "send_end switched off": (NO_ATTRIBUTE, [False, "1"]),
        "clear while a query is in hand": ([None, "at once", IDN], [None, "at once", "1"]),
        "the handle of a closed resource": (["AttributeError", "TypeError"], ["error_invalid_object"] * 2),
    },
    "ASRL": {
        **BYTES,
        "attribute interface_number": (NO_ATTRIBUTE, 0),
        "clear": ([NO_OPERATION, "1"], [None, "1"]),
        "clear while a query is in hand": ([NO_OPERATION, "at once", IDN], [None, "at once", "1"]),
        "the line otherwise": ([None, 19200], ["error_nonsupported_attribute_state", 9600]),
        "the handle of a closed resource": (["PortNotOpenError"] * 2, ["error_invalid_object"] * 2),
    },
    "HISLIP": {
        **MESSAGES,
        "another termination for one read": (
            [IDN + "\n", "\n", ""],
            [IDENTITY.split(b",")[0].decode(), "\n", IDENTITY.split(b",", 1)[1].decode()],
        ),
        "two queries before a read": (["1994.0", ""], [IDN, "1994.0"]),
        "assert_trigger": (["NotImplementedError", "1"], [None, "1"]),
        "lock and unlock": ([NO_OPERATION] * 3, [None, None, "error_session_not_locked"]),
        "a shared lock by its key": ([NO_OPERATION] * 2, ["ours", None]),
        "open with an exclusive lock": (constants.AccessModes.no_lock, constants.AccessModes.exclusive_lock),
    },
    "VXI11": {
        **MESSAGES,
        "attribute suppress_end_enabled at first": ("NotImplementedError", False),
        "attribute interface_number": (NO_ATTRIBUTE, 0),
        "attribute resource_lock_state": (NO_ATTRIBUTE, constants.AccessModes.no_lock),
        "attribute io_prot": (NO_ATTRIBUTE, constants.IOProtocol.normal),
        "query in small chunks": ("error_timeout", IDN),
        "read in pieces, with statuses": (
            [PIECES[0], [PIECES[1], "success"]],
            [PIECES[0], [PIECES[1], "success_termination_character_read"]],
        ),
        "two queries before a read": (["1994.0", "error_timeout"], [IDN, "1994.0"]),
        "a shared lock by its key": (["", None], ["ours", None]),
    },
}


@pytest.fixture(scope="module", params=["SOCKET", "ASRL", *LAN])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(request.param)
    yield made
    made.close()


@pytest.mark.parametrize("name", CASES)
def test_both_backends_do_the_same_or_the_page_says_why_not(bench: Bench, name: str) -> None:
    there, here = (bench.outcome(backend, CASES[name]) for backend in ("py", "duodaq"))
    wanted = DIFFERENT[bench.kind].get(name)
    if wanted is None:
        assert here == there
    else:
        assert (there, here) == wanted
        assert f"| {name} |" in PAGE.read_text(encoding="utf-8")


def test_the_page_has_no_row_for_what_is_the_same() -> None:
    rows = [row.split("|")[1].strip() for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| ")]
    differing = {name for kind in DIFFERENT.values() for name in kind}
    assert {row for row in rows if row in CASES} == differing
    assert differing <= set(CASES)
