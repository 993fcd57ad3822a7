"""The simulators by HiSLIP and VXI-11: against pyvisa-py, and against clients of the bare protocols."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from duodaq import sim
from duodaq.cli._sim import serve_simulator
from duodaq.clock import Deadline, block, monotonic_s
from duodaq.errors import ConfigError

pyvisa = pytest.importorskip("pyvisa")
pytest.importorskip("pyvisa_py")
KINDS = ("hislip", "vxi11")
IDN = "Keysight Technologies,34465A,MY54500001"


@pytest.fixture(scope="module", params=KINDS)
def meter(request: pytest.FixtureRequest) -> Iterator[sim.SimProcess]:
    with sim.launch("scpi-dmm", model="34465A", seed=3, **{request.param: True}) as process:
        yield process


@pytest.fixture(autouse=True)
def behave(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "meter" in request.fixturenames:
        request.getfixturevalue("meter").fault()


class Manager:
    def __init__(self) -> None:
        self.manager = pyvisa.ResourceManager("@py")
        self.opened: list[Any] = []

    def open(self, name: str, timeout: int = 5000) -> Any:
        resource = self.manager.open_resource(name, timeout=timeout, read_termination="\n", write_termination="\n")
        self.opened.append(resource)
        return resource

    def close(self) -> None:
        while self.opened:
            self.opened.pop().close()

    @contextmanager
    def launched(self, name: str, **options: Any) -> Iterator[sim.SimProcess]:
        """A simulator that outlives what is open here: pyvisa-py looks 5 s for a goodbye, at full speed."""
        with sim.launch(name, **options) as process:
            try:
                yield process
            finally:
                self.close()


@pytest.fixture
def manager() -> Iterator[Manager]:
    made = Manager()
    yield made
    made.close()
    made.manager.close()


def await_boot(name: str) -> None:
    """Wait until its port listens; pyvisa-py, which tries in vain, leaves a socket behind."""
    place, limit = ("127.0.0.1", int(name.partition(",")[2].partition(":")[0])), Deadline(5)
    while not limit.passed:
        try:
            socket.create_connection(place, 1.0).close()
        except ConnectionRefusedError:
            block(0.02)
        else:
            return


def errors(resource: Any) -> list[str]:
    found: list[str] = []
    while not (error := resource.query("SYST:ERR?")).startswith("+0"):
        found.append(error)
    return found


def test_questions_of_two_clients_get_their_own_answers(meter: sim.SimProcess, manager: Manager) -> None:
    one, two = manager.open(meter.address), manager.open(meter.address)
    assert one.query("*IDN?").startswith(IDN)
    before = meter.report()["interleavings"]

    def ask(resource: Any, text: str, wrong: list[str]) -> None:
        for number in range(40):
            resource.write(f"SAMP:COUN {number + 1}" if text == "SAMP:COUN?" else "*OPC")
            answer = resource.query("*OPC?" if text == "*OPC?" else "*IDN?")
            if not answer.startswith("1" if text == "*OPC?" else IDN):
                wrong.append(answer)

    wrong: list[str] = []
    threads = [threading.Thread(target=ask, args=args) for args in ((one, "*OPC?", wrong), (two, "SAMP:COUN?", wrong))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.write("SAMP:COUN 1")
    assert wrong == []
    assert meter.report()["interleavings"] == before


def test_a_message_needs_no_newline(meter: sim.SimProcess, manager: Manager) -> None:
    resource = manager.open(meter.address)
    resource.write_raw(b"*IDN?")
    assert resource.read().startswith(IDN)


def test_the_status_byte_tells_of_an_answer_that_was_not_read(meter: sim.SimProcess, manager: Manager) -> None:
    resource = manager.open(meter.address)
    resource.write("*IDN?")
    deadline = Deadline(5.0)  # by HiSLIP the question and the poll come by two connections
    while not resource.read_stb() & 16:
        assert not deadline.passed
    resource.read()
    assert not resource.read_stb() & 16


@pytest.mark.parametrize("kind", KINDS)
def test_the_status_byte_is_read_while_the_instrument_is_busy(kind: str, manager: Manager) -> None:
    with manager.launched("scpi-dmm", model="34465A", paced=True, **{kind: True}) as meter:
        resource = manager.open(meter.address)
        resource.write("VOLT:NPLC 20")
        resource.write("READ?")
        begun_s = monotonic_s()
        assert not resource.read_stb() & 16
        assert monotonic_s() - begun_s < 0.3  # a reading takes 0.4 s
        resource.read()
        assert monotonic_s() - begun_s > 0.3


def test_a_query_before_the_answer_was_read_interrupts(meter: sim.SimProcess, manager: Manager) -> None:
    resource = manager.open(meter.address)
    resource.write("*CLS")
    before = meter.report()["interleavings"]
    resource.write("*IDN?")
    resource.write("*OPC?")
    assert resource.read() == "1"
    assert meter.report()["interleavings"] == before + 1
    if "hislip" in meter.address:
        resource = manager.open(meter.address)  # pyvisa-py knows no AsyncInterrupted; a new session does not have one
    assert errors(resource) == ['-410,"Query INTERRUPTED"']


def test_a_device_clear_takes_back_what_was_asked(meter: sim.SimProcess, manager: Manager) -> None:
    resource = manager.open(meter.address)
    meter.fault("stall")
    resource.write("*IDN?")
    resource.clear()
    meter.fault()
    assert resource.query("*OPC?") == "1"


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_clear_in_the_middle_of_a_reply(kind: str, manager: Manager) -> None:
    with manager.launched("scpi-dmm", model="34465A", faults=["jitter_ms=200-300"], **{kind: True}) as meter:
        resource = manager.open(meter.address)
        resource.write("*IDN?")
        block(0.02)
        resource.clear()
        meter.fault()
        assert resource.query("*OPC?") == "1"
        block(0.6)  # what was cleared away does not come later either
        assert resource.query("*OPC?") == "1"
        assert meter.report()["interleavings"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_of_a_megabyte_comes_whole(kind: str, manager: Manager) -> None:
    with manager.launched("scpi-scope", **{kind: True}) as scope:
        resource = manager.open(scope.address, 20000)
        resource.chunk_size = 1 << 20
        resource.write(":WAV:FORM WORD;:WAV:POIN MAX;:DIG CHAN1")
        points = int(float(resource.query(":WAV:POIN?")))
        one = resource.query_binary_values(":WAV:DATA?", datatype="h", is_big_endian=True)
        assert len(one) == points
        again = -(-500_000 // points)
        data = b"".join(resource.query_binary_values(":WAV:DATA?", datatype="B", container=bytes) for _ in range(again))
        assert len(data) == 2 * points * again >= 1_000_000
        assert errors(resource) == []


def test_an_exclusive_lock_keeps_the_other_out(manager: Manager) -> None:
    with manager.launched("scpi-dmm", model="34465A", vxi11=True) as meter:
        one, two = manager.open(meter.address), manager.open(meter.address, 500)
        one.lock_excl()
        with pytest.raises(pyvisa.VisaIOError):
            two.query("*OPC?")
        assert one.query("*OPC?") == "1"
        one.unlock()
        assert two.query("*OPC?") == "1"
        one.lock_excl()
        one.close()  # its lock goes with it
        manager.opened.remove(one)
        assert two.query("*OPC?") == "1"


def test_a_trigger_is_one(manager: Manager) -> None:
    with manager.launched("scpi-dmm", model="34465A", vxi11=True) as meter:
        resource = manager.open(meter.address)
        resource.write("TRIG:SOUR BUS;:INIT")
        resource.assert_trigger()
        assert abs(float(resource.query("FETC?"))) < 100
        assert errors(resource) == []


def test_a_lost_reply_times_out_and_a_garbled_one_comes_garbled(meter: sim.SimProcess, manager: Manager) -> None:
    resource = manager.open(meter.address, 300)
    meter.fault("drop_next=1")
    with pytest.raises(pyvisa.VisaIOError, match="VI_ERROR_TMO"):
        resource.query("*IDN?")
    resource.clear()
    meter.fault("garble_next=1")
    resource.write("*IDN?")
    assert not resource.read_raw().startswith(IDN.encode() + b",")
    assert resource.query("*OPC?") == "1"


def test_it_can_be_unplugged(meter: sim.SimProcess, manager: Manager) -> None:
    resource = manager.open(meter.address, 500)
    meter.unplug()
    with pytest.raises(Exception, match=r".*"):
        resource.query("*OPC?")
    meter.replug()
    assert manager.open(meter.address).query("*OPC?") == "1"


def test_an_instrument_that_is_none_of_ieee_488_is_not_served() -> None:
    with pytest.raises(ValueError, match="no instrument of IEEE 488"):
        sim.run_simulator("newport1830c", endpoint="hislip")


def test_one_simulator_is_served_in_one_way() -> None:
    ports = {"tcp": None, "hislip": 0, "vxi11": 0}
    with pytest.raises(ConfigError, match="--hislip excludes --vxi11"):
        serve_simulator("scpi-dmm", pty=False, ports=ports, link=None, model=None, seed=0, table=None)


# ---- HiSLIP, bare ----------------------------------------------------------------------------------------------------


class Hislip:
    """A client of the bare protocol: what pyvisa-py leaves out."""

    def __init__(self, address: str) -> None:
        port = int(address.rpartition("hislip0,")[2].split("::")[0])
        self.sync = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.beside = socket.create_connection(("127.0.0.1", port), timeout=5)
        session = self.ask(self.sync, 0, 0, 0x01007878, b"hislip0")[2] & 0xFFFF
        assert self.ask(self.beside, 17, 0, session)[0] == 18
        self.id = 0xFFFFFF00

    def say(self, where: socket.socket, kind: int, control: int = 0, parameter: int = 0, payload: bytes = b"") -> None:
        where.sendall(struct.pack("!2sBBIQ", b"HS", kind, control, parameter, len(payload)) + payload)

    def hear(self, where: socket.socket) -> tuple[int, int, int, bytes]:
        header = self.exactly(where, 16)
        prologue, kind, control, parameter, length = struct.unpack("!2sBBIQ", header)
        assert prologue == b"HS"
        return kind, control, parameter, self.exactly(where, length)

    def exactly(self, where: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = where.recv(count - len(data))
            if not piece:
                raise ConnectionError("hung up")
            data += piece
        return data

    def ask(self, where: socket.socket, *message: Any) -> tuple[int, int, int, bytes]:
        self.say(where, *message)
        return self.hear(where)

    def write(self, data: bytes, *, delivered: bool) -> int:
        self.say(self.sync, 7, int(delivered), self.id, data)
        self.id += 2
        return self.id - 2

    def close(self) -> None:
        self.sync.close()
        self.beside.close()


@pytest.fixture(scope="module")
def hislip_meter() -> Iterator[sim.SimProcess]:
    with sim.launch("scpi-dmm", model="34465A", hislip=True) as process:
        yield process


@pytest.fixture
def client(hislip_meter: sim.SimProcess) -> Iterator[Hislip]:
    made = Hislip(hislip_meter.address)
    yield made
    made.close()


def test_hislip_answers_carry_the_id_of_the_question(client: Hislip) -> None:
    number = client.write(b"*OPC?", delivered=False)
    assert client.hear(client.sync) == (7, 0, number, b"1\n")
    number = client.write(b"*OPC?\n", delivered=True)
    assert client.hear(client.sync) == (7, 0, number, b"1\n")


def test_hislip_long_messages_come_in_pieces_no_longer_than_agreed(client: Hislip) -> None:
    assert client.ask(client.beside, 15, 0, 0, (26).to_bytes(8, "big"))[0] == 16
    client.write(b"*IDN?", delivered=False)
    pieces = [client.hear(client.sync)]
    while pieces[-1][0] == 6:
        pieces.append(client.hear(client.sync))
    assert pieces[-1][0] == 7
    assert max(len(piece[3]) for piece in pieces) == 10
    assert b"".join(piece[3] for piece in pieces).startswith(IDN.encode())


def test_hislip_clears_a_device_whose_answer_is_in_the_client_already(client: Hislip) -> None:
    client.write(b"*IDN?", delivered=False)
    client.hear(client.sync)
    assert client.ask(client.beside, 19)[0] == 23
    client.write(b"*ESE 4", delivered=False)  # between the two it is thrown away
    assert client.ask(client.sync, 8)[0] == 9
    client.write(b"SYST:ERR?;*ESE?", delivered=False)
    assert client.hear(client.sync)[3] == b'+0,"No error";0\n'


def test_hislip_tells_of_an_interruption_on_both_channels(client: Hislip) -> None:
    client.write(b"*CLS", delivered=True)
    client.write(b"*IDN?", delivered=False)
    number = client.write(b"*OPC?", delivered=False)
    assert client.hear(client.beside)[:3] == (14, 0, number)
    kinds = [client.hear(client.sync) for _ in range(3)]
    assert [kind[0] for kind in kinds] == [7, 13, 7]
    assert kinds[2][3] == b"1\n"
    client.write(b"SYST:ERR?", delivered=True)
    assert client.hear(client.sync)[3].startswith(b"-410")


def test_hislip_locks(hislip_meter: sim.SimProcess, client: Hislip) -> None:
    other = Hislip(hislip_meter.address)
    try:
        assert client.ask(client.beside, 4, 1, 0)[:2] == (5, 1)
        assert client.ask(client.beside, 4, 1, 0)[:2] == (5, 3)  # it has it already
        assert other.ask(other.beside, 24)[:3] == (25, 1, 1)
        assert other.ask(other.beside, 4, 1, 50)[:2] == (5, 0)  # not within 50 ms
        other.write(b"*OPC?", delivered=True)  # waits for the lock
        assert other.ask(other.beside, 21)[0] == 22  # the status does not
        other.sync.settimeout(0.1)
        with pytest.raises(TimeoutError):
            other.hear(other.sync)
        other.sync.settimeout(5)
        assert client.ask(client.beside, 4, 0, 0)[:2] == (5, 1)
        assert other.hear(other.sync)[3] == b"1\n"
        assert client.ask(client.beside, 4, 1, 0, b"key")[:2] == (5, 1)
        assert other.ask(other.beside, 4, 1, 0, b"other")[:2] == (5, 0)
        assert other.ask(other.beside, 4, 1, 0, b"key")[:2] == (5, 1)
        assert other.ask(other.beside, 24)[:3] == (25, 0, 2)
        assert client.ask(client.beside, 4, 0, 0)[:2] == (5, 2)
        assert client.ask(client.beside, 4, 0, 0)[:2] == (5, 3)
    finally:
        other.close()


def test_hislip_asks_for_service(client: Hislip) -> None:
    client.write(b"*CLS;*ESE 32;*SRE 32;FOO", delivered=True)
    kind, status, _, _ = client.hear(client.beside)
    assert kind == 20
    assert status & 0x60 == 0x60
    client.write(b"*SRE 0;*CLS", delivered=True)


def test_hislip_refuses_what_is_none(hislip_meter: sim.SimProcess, client: Hislip) -> None:
    assert client.ask(client.sync, 99)[:2] == (3, 1)
    assert client.ask(client.beside, 99)[:2] == (3, 1)
    client.sync.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert client.hear(client.sync)[:2] == (2, 1)
    port = client.beside.getpeername()[1]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
        assert client.ask(stranger, 17, 0, 0x7FFF)[:2] == (2, 3)


# ---- VXI-11, bare ----------------------------------------------------------------------------------------------------


class Rpc:
    """A client of bare RPC."""

    def __init__(self, port: int, program: int) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.program = program
        self.number = 0

    def send(self, procedure: int, arguments: bytes = b"", version: int = 1, fragments: int = 1) -> None:
        self.number += 1
        call = struct.pack(">10I", self.number, 0, 2, self.program, version, procedure, 0, 0, 0, 0) + arguments
        cut = len(call) // fragments & ~3
        pieces = [call[:cut], call[cut:]] if fragments == 2 else [call]
        for index, piece in enumerate(pieces):
            last = 0x80000000 if index == len(pieces) - 1 else 0
            self.connection.sendall(struct.pack(">I", last | len(piece)) + piece)

    def hear(self) -> tuple[int, ...]:
        length = struct.unpack(">I", self.connection.recv(4, socket.MSG_WAITALL))[0] & 0x7FFFFFFF
        record = self.connection.recv(length, socket.MSG_WAITALL)
        number, kind, accepted, _, _, status = struct.unpack(">6I", record[:24])
        assert (number, kind, accepted) == (self.number, 1, 0)
        rest = record[24:]
        return (status, *struct.unpack(f">{len(rest) // 4}I", rest))

    def call(self, procedure: int, *words: int, data: bytes | None = None, **more: Any) -> tuple[int, ...]:
        tail = b"" if data is None else struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)
        self.send(procedure, struct.pack(f">{len(words)}I", *words) + tail, **more)
        return self.hear()


@pytest.fixture
def rpc() -> Iterator[Rpc]:
    with sim.launch("scpi-dmm", model="34465A", vxi11=True) as meter:
        made = Rpc(int(meter.address.split(",")[1].split("::")[0]), 0x0607AF)
        yield made
        made.connection.close()


def test_vxi11_by_hand(rpc: Rpc) -> None:
    assert rpc.call(0) == (0,)
    assert rpc.call(99) == (3,)
    assert rpc.call(10, 1, 0, version=2)[0] == 2
    assert rpc.call(11, 1) == (4,)  # too few arguments
    assert rpc.call(10, 1, 0, 0, data=b"gpib0,9")[:2] == (0, 3)
    status, error, link, abort_port, most = rpc.call(10, 1, 0, 0, data=b"inst0", fragments=2)
    assert (status, error) == (0, 0)
    assert most >= 1024
    assert rpc.call(11, link + 1, 0, 0, 8, data=b"*OPC?")[:2] == (0, 4)
    assert rpc.call(11, link, 0, 0, 0, data=b"*OP") == (0, 0, 3)
    assert rpc.call(11, link, 0, 0, 8, data=b"C?") == (0, 0, 2)
    assert rpc.call(12, link, 1, 1000, 0, 0, 0)[:4] == (0, 0, 1, 1)  # as many as asked for
    assert rpc.call(12, link, 9, 1000, 0, 0, 0)[:4] == (0, 0, 4, 1)  # END
    rpc.call(11, link, 0, 0, 8, data=b"*IDN?")
    assert rpc.call(12, link, 99, 1000, 0, 128, ord(","))[:3] == (0, 0, 2)  # the character
    assert rpc.call(12, link, 999, 1000, 0, 0, 0)[2] == 4
    assert rpc.call(12, link, 9, 50, 0, 0, 0)[:2] == (0, 15)  # nothing to say
    assert rpc.call(19, link) == (0, 12)
    assert rpc.call(25, 0, 0, 0, 0, 0) == (0, 8)
    rpc.send(12, struct.pack(">6I", link, 9, 60000, 0, 0, 0))
    abort = Rpc(abort_port, 0x0607B0)
    assert abort.call(1, link) == (0, 0)
    assert rpc.hear()[:2] == (0, 23)
    assert abort.call(1, 99) == (0, 4)
    abort.connection.close()
    assert rpc.call(23, link) == (0, 0)
    assert rpc.call(23, link) == (0, 4)


def test_vxi11_a_lock_is_waited_for_if_wished(rpc: Rpc) -> None:
    port = rpc.connection.getpeername()[1]
    other = Rpc(port, 0x0607AF)
    mine = rpc.call(10, 1, 0, 0, data=b"inst0")[2]
    theirs = other.call(10, 2, 0, 0, data=b"inst0")[2]
    assert rpc.call(18, mine, 0, 0) == (0, 0)
    assert other.call(18, theirs, 0, 0) == (0, 11)
    assert other.call(13, theirs, 0, 0, 0)[:2] == (0, 11)
    assert other.call(10, 3, 1, 20, data=b"inst0")[:2] == (0, 11)
    assert other.call(15, theirs, 1, 20, 0) == (0, 11)  # waits 20 ms
    other.send(18, struct.pack(">3I", theirs, 1, 5000))
    assert rpc.call(19, mine) == (0, 0)
    assert other.hear() == (0, 0)
    assert rpc.call(13, mine, 0, 0, 0)[:2] == (0, 11)
    other.connection.close()
    assert rpc.call(13, mine, 1, 5000, 0)[:2] == (0, 0)


def test_after_a_loss_of_power_it_knows_of_nobody_and_takes_new_clients(manager: Manager) -> None:
    for kind in KINDS:
        with manager.launched("scpi-dmm", model="34465A", seed=3, **{kind: True}) as process:
            before = manager.open(process.address, timeout=800)
            assert before.query("*IDN?").startswith(IDN)
            process.fault(cycle_in=3, boot_s=0.2)
            with pytest.raises((pyvisa.VisaIOError, OSError, RuntimeError)):
                before.query("*IDN?")
            await_boot(process.address)
            assert int(manager.open(process.address).query("*ESR?")) & 128, "its power went on"
