"""One instrument behind a VISA library, for an unmodified V2 driver in a process, a V4 actor and a PyVISA program."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from duodaq import sim
from duodaq.app import Lab
from duodaq.config import load_lab
from duodaq.config._notes import describe
from duodaq.model import Execute

pytest.importorskip("pyvisa_py")
pytest.importorskip("pymeasure")
pyvisa = pytest.importorskip("pyvisa")

LAB = """
[lab]
name = "{name}"

[ports.meter]
visa = {{ resource = "{address}", library = "@py" }}
codec = "scpi"
timeout = "5 s"

[instruments.old]
runtime = "v2"
driver = "pymeasure.instruments.hp:HP34401A"
port = "meter"
worker = "process"
passive = true
poll.voltage = {{ read = "reading", unit = "V", every = "50 ms" }}

[instruments.new]
runtime = "v4"
driver = "duodaq:ScpiActor"
port = "meter"
"""


def program(lab: str, resource: str, count: int) -> tuple[list[str], int, str]:
    """A PyVISA program of this user, which opens the instrument under its own name."""
    manager = pyvisa.ResourceManager(f"{lab}@duodaq")
    meter = manager.open_resource(resource, timeout=5000, read_termination="\n", write_termination="\n")
    try:
        answers = [meter.query("SYST:VERS?" if number % 2 else "*IDN?") for number in range(count)]
        return answers, meter.read_stb(), type(meter).__name__
    finally:
        meter.close()
        manager.close()


@pytest.mark.parametrize("kind", ["hislip", "vxi11"])
async def test_both_runtimes_and_a_program_share_it_and_nothing_interleaves(kind: str, tmp_path: Path) -> None:
    with sim.launch("scpi-dmm", model="34465A", faults=["jitter_ms=0.5-3"], **{kind: True}) as meter:
        file = tmp_path / "lab.toml"
        name = f"shared{kind}{os.getpid()}"
        file.write_text(LAB.format(name=name, address=meter.address))
        async with Lab.from_file(file) as lab:
            readings: list[float] = []

            async def old() -> None:
                readings.extend([(await lab.read("old", "voltage")).value for _ in range(15)])

            async def new() -> list[Any]:
                asked = ["*IDN?" if n % 2 else "*OPC?" for n in range(30)]
                return [await lab.command("new", Execute("query", (text,)), 10.0) for text in asked]

            (answers, status, kind_of), replies, _ = await asyncio.gather(
                asyncio.to_thread(program, name, meter.address, 20), new(), old()
            )
            assert len(readings) == 15
            assert max(abs(value) for value in readings) < 100
            assert all(answer.startswith("Keysight" if n % 2 == 0 else "1994") for n, answer in enumerate(answers))
            assert all("Keysight" in str(reply) if n % 2 else "1" in str(reply) for n, reply in enumerate(replies))
            assert kind_of == "TCPIPInstrument"
            assert 0 <= status < 256
            worker = lab.manager.broker.status()[0].worker
            assert worker.startswith("pyvisa-py")
            holders = {record.holder for record in lab.manager.broker.log("meter") if record.direction == ">"}
            assert len(holders) >= 3, holders
        report = meter.report()
    assert report["interleavings"] == 0
    assert report["misframed"] == 0
    assert report["exchanges"] >= 65


def test_check_tells_of_library_and_worker(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    ports = "".join(
        f'[ports.p{number}]\nvisa = {{ resource = "GPIB0::{number}::INSTR", library = "@ivi" }}\ncodec = "esp300"\n'
        for number in (8, 9)
    )
    file.write_text(ports + '[ports.scope]\nvisa = "USB0::0x0957::0x1F01::MY1::INSTR"\n')
    notes = "\n".join(describe(load_lab(file)))
    assert "port p8: the VISA library @ivi carries it, in a worker process that it shares with p9" in notes
    assert "port scope: whichever VISA library is installed carries it, in a worker process of its own" in notes
    assert "nobody can write its crash actions" in notes
    assert "a stop waits for the read in hand, at most 2 s" in notes
