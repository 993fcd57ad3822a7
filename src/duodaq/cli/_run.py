from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from pathlib import Path
from typing import Any, TextIO, cast

from rich.console import Console
from rich.markup import escape

from duodaq.app import Lab, LabHost
from duodaq.cli._page import LabPage, Web
from duodaq.cli._report import shutdown_table
from duodaq.clock import new_loop
from duodaq.model import ShutdownReport
from duodaq.telemetry import Outlet, configure_logging


def run_lab(file: Path, out: Console, err: Console, web: Web = True) -> int:
    """Run the lab of `file`, and its page where `web` says, until a signal or a client ends it; the exit code."""
    configure_logging("INFO")
    until_ready = _WarningsAlone()
    for handler in logging.getLogger("duodaq").handlers:
        handler.addFilter(until_ready)
    lab = Lab.from_file(file)
    said, told = Outlet(cast("TextIO", out.file)), Outlet(cast("TextIO", err.file))
    out, err = _by(said, out), _by(told, err)  # the lab does not wait for whoever reads them

    async def ready(page: LabPage) -> None:
        counts = lab.manager.counts()
        out.print(f"[bold]{escape(lab.definition.name)}[/] is running: {counts['v2']} in V2, {counts['v4']} in V4.")
        for status in lab.manager.instruments():
            words = f"  {status.id}: {status.state}"
            out.print(escape(f"{words} — {status.message}" if status.message else words), soft_wrap=True)
        await page.start()
        out.print("Attach with duodaq.connect(); Ctrl-C stops it in order, a second one faster.")
        until_ready.is_over = True

    async def live() -> ShutdownReport:
        err.print(f"Starting {escape(lab.definition.name)}.")
        page = LabPage(lab, web, lambda sentence: out.print(escape(sentence), soft_wrap=True))
        try:
            return await LabHost(lab, lambda sentence: out.print(sentence)).run(partial(ready, page))
        finally:
            await page.aclose()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        report: ShutdownReport = runner.run(live())
    with contextlib.suppress(OSError):  # the terminal may be gone
        err.print(shutdown_table(report))
    for outlet in (said, told):
        outlet.drain()
    return 0 if report.clean else 1


class _WarningsAlone(logging.Filter):
    """Lets through what is wrong, until the lab has said by itself how it stands and where its page is."""

    is_over = False

    def filter(self, record: logging.LogRecord) -> bool:
        """As `logging` asks for it."""
        return self.is_over or record.levelno >= logging.WARNING


def _by(outlet: Outlet, console: Console) -> Console:
    """A console as that one, by that outlet."""
    file: Any = outlet
    return Console(file=file, force_terminal=console.is_terminal, width=console.width, highlight=False)
