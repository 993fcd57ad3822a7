"""PyVISA drivers that a lab hosts, and PyMeasure in a plain script beside both runtimes: the documents' programs."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import duodaq
from duodaq import sim
from duodaq.app import Lab
from duodaq.clock import block
from duodaq.errors import DuodaqError
from duodaq.model import Execute

pytest.importorskip("pyvisa")
from pyvisa.constants import StatusCode

pytestmark = pytest.mark.serial
PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "use-pyvisa.md").read_text(encoding="utf-8")

ASKS = """
    def ask(self, question):
        return self.resource.query(question)

    def hold(self, question):
        with self.resource.lock_context():
            return [self.resource.query(question), self.resource.query("*OPC?")]

    def wait(self):
        self.resource.timeout = None
        return self.resource.read()

    def reopen(self, name):
        import pyvisa
        self.resource.close()
        self.resource = pyvisa.ResourceManager("@duodaq").open_resource(
            name, read_termination="\\n", write_termination="\\n"
        )
"""


def in_the_page(file: str) -> str:
    """The block of the page that begins with the name of `file`."""
    found = re.search(rf"^```\w+\n# {re.escape(file)}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def meter() -> Iterator[sim.SimProcess]:
    with sim.launch("scpi-dmm", tcp=True, model="34401A", seed=5) as process:
        yield process


@pytest.fixture
def folder(meter: sim.SimProcess, tmp_path: Path) -> Path:
    (tmp_path / "meter.py").write_text(in_the_page("meter.py") + ASKS)
    (tmp_path / "hosted.toml").write_text(in_the_page("hosted.toml").replace("192.168.1.20:5025", meter.address))
    return tmp_path


@pytest.mark.parametrize("worker", ["inline", "thread", "process"])
async def test_a_hosted_visa_driver_speaks_as_its_instrument(folder: Path, worker: str) -> None:
    file = folder / "hosted.toml"
    file.write_text(f'[runtimes.v2]\nworker = "{worker}"\n' + file.read_text())
    async with Lab.from_file(file) as lab:
        assert abs((await lab.read("meter", "voltage")).value) < 10
        assert (await lab.command("meter", Execute("ask", ("*IDN?",)))).startswith("HEWLETT-PACKARD")
        assert await lab.command("meter", Execute("hold", ("SAMP:COUN?",))) == ["+1", "1"]
        for name in ("dmm", "duodaq::dmm::INSTR", "TCPIP0::{}::{}::SOCKET".format(*_host_port(file))):
            await lab.command("meter", Execute("reopen", (name,)))
            assert await lab.command("meter", Execute("ask", ("*OPC?",))) == "1"
        with pytest.raises(DuodaqError, match=r"VI_ERROR_RSRC_NFOUND.*there are: dmm"):
            await lab.command("meter", Execute("reopen", ("duodaq::other::INSTR",)))
        holders = {record.holder for record in lab.manager.broker.log("dmm") if record.direction == ">"}
    assert {"v2.meter"} <= holders
    assert not [holder for holder in holders if holder.startswith("visa:")]


BUS = """
import pyvisa

class Meter:
    def __init__(self, address):
        opened = pyvisa.ResourceManager("@duodaq").open_resource
        self.one, self.other = (opened(address, read_termination="\\n", write_termination="\\n") for _ in range(2))

    def status(self):
        return self.one.read_stb()

    def locks(self):
        import pyvisa
        self.one.lock_excl()
        try:
            self.other.unlock()
        except pyvisa.VisaIOError as error:
            refused = int(error.error_code)
        self.other.close()
        state = self.one.lock_state
        self.one.unlock()
        return [refused, int(state), int(self.one.lock_state)]

    def close(self):
        self.one.close()
"""


@pytest.mark.parametrize("worker", ["inline", "thread", "process"])
async def test_a_hosted_driver_polls_the_bus_for_the_status_byte_and_unlocks_what_it_locked(
    tmp_path: Path, worker: str
) -> None:
    pytest.importorskip("pyvisa_py")
    file = tmp_path / "bus.toml"
    (tmp_path / "bus.py").write_text(BUS)
    with sim.launch("scpi-dmm", model="34465A", hislip=True) as meter:
        file.write_text(
            f"""
            [ports.dmm]
            visa = {{ resource = "{meter.address}", library = "@py" }}
            codec = "scpi"
            [instruments.dmm]
            runtime = "v2"
            driver = "./bus.py:Meter"
            port = "dmm"
            args = {{ address = "{{visa}}" }}
            worker = "{worker}"
            """
        )
        async with Lab.from_file(file) as lab:
            assert await lab.command("dmm", Execute("status")) == 0
            sent = [record.data for record in lab.manager.broker.log("dmm") if record.direction == ">"]
            assert sent[-1] == b"\x10STB"
            assert await lab.command("dmm", Execute("locks")) == [StatusCode.error_session_not_locked, 1, 0]


def _host_port(file: Path) -> list[str]:
    found = re.search(r'tcp = "(.*?)"', file.read_text())
    assert found is not None
    return found[1].split(":")


async def test_a_hosted_visa_driver_that_waits_for_ever_is_freed_when_its_worker_is_replaced(folder: Path) -> None:
    file = folder / "hosted.toml"
    file.write_text(
        file.read_text().replace("poll.voltage", 'deadline = "300 ms"\nkill_after = "300 ms"\npoll.voltage')
    )
    async with Lab.from_file(file) as lab:
        with pytest.raises(DuodaqError):
            await lab.command("meter", Execute("wait"))
        assert await lab.manager.broker.port("dmm").exchange(b"*OPC?\n", holder="test", wait_s=5) == b"1\n"


LAB = """
[lab]
name = "NAME"

[ports.dmm]
tcp = "DMM"
codec = "scpi"

[instruments.dmm]
runtime = "v2"
driver = "pymeasure.instruments.hp:HP34401A"
port = "dmm"
poll.voltage = { read = "reading", unit = "V", every = "50 ms" }

[instruments.scpi]
runtime = "v4"
driver = "duodaq:ScpiActor"
port = "dmm"
"""

MANY = """
import warnings
warnings.simplefilter("ignore")
import sys
script = open(sys.argv[1]).read()
exec(script)
for turn in range(30):
    assert dmm.id.startswith("HEWLETT-PACKARD"), turn
    assert abs(dmm.reading) < 10
    dmm.displayed_text = f"TURN {turn}"
    assert dmm.displayed_text == f"TURN {turn}"
print("all of them")
"""


def test_pymeasure_in_a_plain_script_shares_the_port_with_both_runtimes(
    meter: sim.SimProcess, tmp_path: Path, start_program: Callable[..., Any]
) -> None:
    pytest.importorskip("pymeasure")
    name = f"pymeasure{os.getpid()}"
    file, script = tmp_path / "lab.toml", tmp_path / "measure.py"
    file.write_text(LAB.replace("NAME", name).replace("DMM", meter.address))
    script.write_text(in_the_page("measure.py").replace('"@duodaq"', f'"{name}@duodaq"'))
    before = meter.report()["interleavings"]
    host = start_program("-m", "duodaq.cli", "run", file)
    host.wait_for("Attach with")
    with duodaq.connect(name) as lab:
        program = start_program("-c", MANY, script)
        asked = 0
        while program._process.poll() is None:
            assert lab.scpi.call("query", "SYST:VERS?").startswith("1991")
            assert abs(lab.dmm.read("voltage").value) < 10
            asked += 1
            block(0.01)
        assert program.end() == 0, program.said
        assert "all of them" in program.said
        assert asked > 3
        status = next(port for port in lab.status()["ports"] if port["name"] == "dmm")
        assert (status["stray_bytes"], status["errors"]) == (0, 0)
    assert meter.report()["interleavings"] == before
    host.interrupt(signal.SIGINT)
    assert host.end() == 0
