from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from duodaq.app import Lab, LabClient, in_lab, open_lab
from duodaq.bluesky import ScanInterruptedError, ScanRun
from duodaq.cli._page import LabPage, Web
from duodaq.cli._report import shutdown_table
from duodaq.cli.demo._knife_edge import KnifeEdge, fit_knife_edge
from duodaq.cli.demo._ledger import FailedReadings, device_table, ledger_table
from duodaq.cli.demo._recording import recording_table
from duodaq.cli.demo._table import Bench, set_up
from duodaq.clock import Deadline, block
from duodaq.errors import ConfigError, DuodaqError
from duodaq.model import ShutdownReport
from duodaq.storage.reading import open_run
from duodaq.telemetry import Outlet, configure_logging

FROM_MM, TO_MM = 1.0, 9.0
TOLERANCE = 0.02
_PICTURE = "run.png"
_LOOK_S = 0.2
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
OBEYED_S = 1.0
"""How long a device may take from the bytes of a stop to having stopped."""
VIEW = {"roi": (768, 768, 512, 512), "binning": (4, 4), "exposure_s": 0.02, "speed": 1, "gain": 1}


class Demo:
    """The demonstration, step by step; `run` returns the exit code."""

    def __init__(
        self,
        out: Console,
        *,
        points: int,
        target: Path,
        seed: int,
        unplug_at: int | None,
        stay: bool,
        web: Web,
        migrate: bool = False,
    ) -> None:
        self._out = out
        self._stay = stay
        self._web = web
        self._points = points
        self._target = target
        self._seed = seed
        self._unplug_at = unplug_at
        self._migrate = migrate
        self._faults: list[str] = []
        self._ledgers: dict[str, Any] = {}
        self._failed = FailedReadings()

    def run(self) -> int:
        """Set up the table, run the lab on it, scan, compare with the truth, stop; 0 if all of it held."""
        with (self._target / "lab.log").open("w") as log:
            configure_logging("INFO", stream=log)
            try:
                with self._failed:
                    self._run_bench(self._target)
            finally:
                configure_logging("WARNING")
        for fault in self._faults:
            self._print(f"[bold red]{escape(fault)}[/]")
        return 1 if self._faults else 0

    def _run_bench(self, target: Path) -> None:
        self._say(f"Setting up a simulated optical table (seed {self._seed}), each instrument a process of its own.")
        with set_up(target, f"demo-{os.getpid()}", self._seed) as bench:
            self._run_lab(bench, target)
            self._read_back(bench)

    def _run_lab(self, bench: Bench, target: Path) -> None:
        lab = open_lab(bench.lab_file, _end_this)
        page = LabPage(in_lab(lab, _itself), self._web, self._say)
        in_lab(lab, lambda _: page.start())
        try:
            self._introduce(lab)
            lab.start_recording(target)
            self._measure(lab, bench)
            self._finish(lab, bench)
            self._draw(target)
            if self._stay and not self._faults:
                self._go_on(lab)
        finally:
            in_lab(lab, lambda _: page.aclose())
            report: ShutdownReport = lab.close()
            self._print(shutdown_table(report))
            if not report.clean:
                self._faults.append("The shutdown was not clean.")
        self._show(*recording_table(target, self._ledgers))

    def _go_on(self, lab: LabClient) -> None:
        """Measure again, for whoever looks at the page, until Ctrl-C."""
        lab.shutter.call("open")
        for instrument in (lab.meter, lab.dmm, lab.stage):
            instrument.start()
        lab.camera.start(**VIEW)
        self._say("The lab goes on, for you to use its page; Ctrl-C ends it.")
        try:
            while True:
                block(_LOOK_S)
        except KeyboardInterrupt:
            self._say("Closing the shutter, ending the streams.")
        with self._blamed("The shutter was not closed"):
            lab.shutter.call("shut")
        for instrument in (lab.camera, lab.stage, lab.meter, lab.dmm):
            with self._blamed(f"{instrument.id} did not finish"):
                instrument.finish()

    def _draw(self, target: Path) -> None:
        self._say(f"The recording and the lab's log are in {target}")
        run = open_run(target)
        run.label(sample="knife edge", tags=["demo"])
        try:
            picture: Any = run.plot()
            picture.savefig(target / _PICTURE, dpi=120)
        except ImportError:
            self._say("There is no picture of it without matplotlib, which comes with duodaq[data].")
            return
        if not self._stay and self._web is not False:
            self._say("The page ends with the demonstration; `duodaq demo --stay` (in .venv/bin) keeps it open.")
        self._say(f"A picture of it is {_PICTURE} there; in a notebook: duodaq.open_run({str(target)!r}).plot()")

    def _introduce(self, lab: LabClient) -> None:
        self._say("Both runtimes are running, in one lab:")
        for instrument in lab:
            state = instrument.status()["state"]
            self._out.print(f"  {instrument.id:8} {instrument.runtime.upper()}  {instrument.driver_name:40}  {state}")

    def _measure(self, lab: LabClient, bench: Bench) -> None:
        self._say("Opening the shutter, homing the stage, starting the camera.")
        lab.shutter.call("open")
        lab.stage.x.home()
        lab.camera.start(**VIEW)
        self._say(f"Scanning the knife edge through the beam: {self._points} points.")
        try:
            run = self._scan(lab, bench)
        except ScanInterruptedError as error:
            self._faults.append(f"Scan {error.what}")
            self._say(f"The scan stopped after {len(error.run)} of {self._points} points; what it has is recorded.")
            return
        self._say("Fitting the beam width; only now is the table asked for the true one.")
        self._compare(fit_knife_edge(run["stage_x"], run["power"]), bench)

    def _scan(self, lab: LabClient, bench: Bench) -> ScanRun:
        reached = 0

        def at_point(name: str, _: dict[str, Any]) -> None:
            nonlocal reached
            reached += name == "event"
            if name == "event" and self._migrate:
                self._move_the_meter(lab, reached)
            if name == "event" and reached == self._unplug_at:
                self._say("Pulling the power meter's cable out.")
                bench.meter.unplug()

        return lab.scan(
            lab.stage.x,
            np.linspace(FROM_MM, TO_MM, self._points),
            read=[lab.meter, lab.dmm],
            settle_s=0.02,
            progress=self._out.is_terminal,
            on_document=at_point,
            sample="knife edge",
        )

    def _move_the_meter(self, lab: LabClient, reached: int) -> None:
        """Move the power meter to V4 after a third of the points, and back after two."""
        do = {self._points // 3: "cutover", 2 * self._points // 3: "rollback"}.get(reached)
        if do is None:
            return
        with self._blamed(f"The {do} of the power meter was not done"):
            done = lab.migrate(do, "meter", by="the demo", force=True)
            self._say(
                f"Moved the power meter to {done['owner'].upper()} in the middle of the scan:"
                f" {done['gap_s'] * 1e3:.0f} ms without an owner."
            )

    def _compare(self, found: KnifeEdge, bench: Bench) -> None:
        truth = bench.table.truth()
        off = found.width_mm / truth.radius_mm - 1
        self._out.print(
            f"  beam radius (1/e²)  found {found.width_mm:.4f} ± {found.width_error_mm:.4f} mm"
            f" · true {truth.radius_mm:.4f} mm · off by {off:+.2%}\n"
            f"  beam centre         found {found.centre_mm:.4f} mm · true {truth.centre_mm:.4f} mm\n"
            f"  noise of the meter  {truth.sigma_relative:.2%} of the reading and {truth.sigma_absolute_w * 1e6:g} µW"
        )
        if not abs(off) <= TOLERANCE:  # also of a fit that found no number
            self._faults.append(f"The width is off by {off:+.2%}; {TOLERANCE:.0%} was promised.")

    def _finish(self, lab: LabClient, bench: Bench) -> None:
        self._say("Closing the shutter, ending the streams, finishing the recording.")
        with self._blamed("The shutter was not closed"):
            lab.shutter.call("shut")
        for instrument in (lab.camera, lab.meter, lab.dmm):
            with self._blamed(f"{instrument.id} did not finish"):
                instrument.finish()
        with self._blamed("The recording was not finished"):
            lab.stop_recording()
        self._ledgers = lab.status()["ledgers"]
        self._show(*ledger_table(self._ledgers))
        self._show(*device_table(self._ledgers, bench, lab.camera.get("frames_lost"), self._failed.counts))

    def _read_back(self, bench: Bench) -> None:
        deadline = Deadline(OBEYED_S)
        while True:
            state = bench.table.state()
            moving = any(state.moving.values())
            if deadline.passed or not (state.shutter_open or moving):
                break
            block(0.02)
        self._say(
            f"Read back from the table: the shutter is {'open' if state.shutter_open else 'closed'},"
            f" {'an axis is moving' if moving else 'nothing moves'}."
        )
        if state.shutter_open or moving:
            self._faults.append("The table was not left safe.")

    @contextlib.contextmanager
    def _blamed(self, what: str) -> Generator[None]:
        """One step that must not keep the next ones from being taken."""
        try:
            yield
        except DuodaqError as error:
            self._faults.append(f"{what}: {error}")

    def _show(self, table: Table, problems: list[str]) -> None:
        self._print(table)
        self._faults.extend(problems)

    def _say(self, sentence: str) -> None:
        self._print(f"[bold]{escape(sentence)}[/]")

    def _print(self, what: str | Table) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone, and the table is made safe all the same
            self._out.print(what)


def _end_this() -> None:
    """End in order what SIGTERM ends: another program asks for it."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


async def _itself(lab: Lab) -> Lab:
    return lab


def run_demo(
    *,
    headless: bool,
    points: int,
    directory: Path,
    seed: int,
    unplug_at: int | None = None,
    stay: bool = False,
    web: Web = True,
    migrate: bool = False,
) -> int:
    """Show all of duodaq without hardware; 0 if the width was right, the books balanced and all was safe.

    Raises:
        ConfigError: The recording cannot be kept there, or the scan does not come to that point. Nothing was started.
    """
    if unplug_at is not None and unplug_at > points:
        raise ConfigError(f"the scan has only {points} points", key=f"--unplug-at {unplug_at}")
    outlet: Any = Outlet(sys.stdout)  # neither the scan nor the shutter waits for a terminal that takes nothing more
    said = False if headless else sys.stdout.isatty()
    out = Console(file=outlet, highlight=False, no_color=headless, force_terminal=said, soft_wrap=True)
    target = _new_folder(directory)
    try:
        stay = stay or (out.is_terminal and web is not False)
        demo = Demo(
            out, points=points, target=target, seed=seed, unplug_at=unplug_at, stay=stay, web=web, migrate=migrate
        )
        with _ended_as_by_ctrl_c(), contextlib.redirect_stdout(outlet):
            return demo.run()
    except DuodaqError as error:
        out.print(f"[bold red]The demonstration failed: {escape(str(error))}[/]")
        return 1
    finally:
        outlet.drain()


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Generator[None]:
    """Have the first SIGTERM or SIGHUP end in order what Ctrl-C ends in order; those behind it change nothing."""

    def end(_: int, __: Any) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [signal.signal(number, end) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)


def _new_folder(directory: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    target = directory.absolute() / f"demo-{stamp}-{os.getpid()}"
    try:
        target.mkdir(parents=True)
    except OSError as error:
        remedy = "Name a folder that you may write to."
        raise ConfigError(f"cannot record there: {error.strerror}", key=f"--out {directory}", remedy=remedy) from error
    return target
