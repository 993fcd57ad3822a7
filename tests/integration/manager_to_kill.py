"""A manager as the watchdog sees one: ports, workers, and an end that it does not choose.

Run as a program: ``manager_to_kill.py JSON``. It prints one line of JSON when everything is told, and another one
whenever something happened to its watchdog.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import Any

from duodaq.clock import pause
from duodaq.model import PortDefinition
from duodaq.ports import Broker
from duodaq.watchdog.owner import PortPlan, Watchdog


def say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def start_worker(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def fill(line: Any) -> None:
    """Write until nothing has been taken for a while: what a far end does not read moves on to it at first."""
    refused = 0
    while refused < 10:
        refused = 0 if line.write_nowait(b"x" * 4096) else refused + 1
        if refused:
            await pause(0.02)


async def main(ask: dict[str, Any]) -> None:
    watchdog = Watchdog(ask["socket"], log_path=ask["log"], on_stop_all=lambda report: say(stopped=report))
    await watchdog.start(20)
    broker = Broker()
    broker.subscribe_lines(watchdog.line_changed)
    for name, port in ask["ports"].items():
        plan = {key: [part.encode() for part in port.get(key, ())] for key in ("crash", "stop_all")}
        serial = {"path": port["path"]} if "path" in port else None
        watchdog.watch_port(
            name,
            PortPlan(
                port["terminator"].encode(), tuple(plan["crash"]), tuple(plan["stop_all"]), serial, port.get("tcp")
            ),
        )
        added = await broker.add(PortDefinition(name, serial=serial, tcp=port.get("tcp")))
        if not port.get("closed"):
            await broker.open(name)
            line = added.owner.transport
            if port.get("full"):
                await fill(line)
            line.write_nowait(port.get("half", "").encode())
    workers = [start_worker(code) for code in ask["workers"]]
    for worker in workers:
        watchdog.watch_worker(worker.pid, os.pidfd_open(worker.pid))
    assert await watchdog.settled(5)
    if ask.get("forks") and not os.fork():
        signal.pause()  # a child of that kind keeps all that this process has open
    say(watchdog=watchdog.pid, workers=[worker.pid for worker in workers])
    restarted = 0
    while True:
        await pause(0.01)
        if watchdog.restarted != restarted and watchdog.alive and await watchdog.settled(5):
            restarted = watchdog.restarted
            say(watchdog=watchdog.pid)


asyncio.run(main(json.loads(sys.argv[1])))
