"""A lab whose terminal takes nothing any more: stopped by Ctrl-S, a connection that hangs, a pager that waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import duodaq
from duodaq.clock import Deadline, block

LAB = """
[lab]
name = "{name}"

[instruments.noisy]
runtime = "v2"
driver = "./noisy.py:Noisy"
poll.v = {{ call = "value", unit = "V", every = "20 ms" }}
"""
NOISY = """
class Noisy:
    def value(self):
        for _ in range(10):
            print("x" * 1000)
        return 1.0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="control sockets and pipes as Linux has them")
def test_a_lab_whose_output_nobody_reads_goes_on_stops_and_ends(tmp_path: Path) -> None:
    name = f"unread-{os.getpid()}"
    (tmp_path / "lab.toml").write_text(LAB.format(name=name))
    (tmp_path / "noisy.py").write_text(NOISY)
    unread, written = os.pipe()
    os.set_blocking(written, False)
    try:
        while True:
            os.write(written, b"y" * 4096)
    except BlockingIOError:
        os.set_blocking(written, True)
    command = [sys.executable, "-m", "duodaq.cli", "run", "lab.toml", "--no-web"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=written, stderr=written) as process:
        os.close(written)
        try:
            limit = Deadline(30.0)
            while True:
                try:
                    lab = duodaq.connect(name)
                except duodaq.DuodaqError:
                    assert not limit.passed, "it does not answer"
                    block(0.05)
                else:
                    break
            with lab:
                assert lab.noisy.read("v").value == 1.0
                lab.stop_all()
            process.send_signal(signal.SIGINT)
            assert process.wait(30.0) == 0
        finally:
            process.kill()
            os.close(unread)
