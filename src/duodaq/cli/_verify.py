from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from duodaq.cli._console import say_json_line
from duodaq.errors import ConfigError
from duodaq.verify import (
    ALL_MODES,
    HardwarePlan,
    Plan,
    Results,
    Step,
    Summary,
    differences,
    read_index,
    read_pages,
    results_from_tests,
    verify_coexistence,
    verify_hardware,
    write_pages,
)

FAILED, INTERRUPTED = 1, 130
PAGES = Path("coexistence")
_COLOURS = {"passed": "green", "failed": "bold red", "not run": "yellow"}


@dataclass(frozen=True)
class Asked:
    """What was asked for on the command line."""

    modes: tuple[str, ...]
    tests: tuple[str, ...]
    directory: Path | None
    coverage: bool
    sabotage: str
    check: Path | None
    results: Path | None
    hardware: Path | None
    allow_motion: bool
    load: str
    as_json: bool


def verify(asked: Asked, out: Console, err: Console) -> int:
    """Run the tests, write the pages and say what came of it; the exit code.

    Raises:
        ConfigError: Something is wrong in what was asked. Nothing was run.
        SuiteError: The tests could not be run. No page was written.
    """
    folder = asked.directory or (None if asked.check else PAGES)
    if folder is not None:
        _see_that_it_can_be_written(folder)
    try:
        with _ended_by_signals(), _Shown(err) as shown:
            results = _carry_out(asked, shown.step)
    except KeyboardInterrupt:
        err.print("[bold red]Interrupted.[/] What was started has ended; no page was written.")
        return INTERRUPTED
    files = [] if folder is None else write_pages(results, folder)
    wrong = [] if asked.check is None else _compare(asked.check, results)
    if asked.as_json:
        _say_json(results, files, wrong, out)
    else:
        _say(results, files, wrong, asked.check, out)
    return FAILED if results.failed or wrong else 0


def _carry_out(asked: Asked, tell: Callable[[Step], None]) -> Results:
    if asked.hardware is not None:
        plan = HardwarePlan(asked.hardware, asked.allow_motion, asked.load)
        return verify_hardware(plan, tell)
    if asked.allow_motion:
        raise ConfigError("nothing moves without instruments", key="--allow-motion", remedy="Name a lab by --hardware")
    if asked.results is not None:
        return results_from_tests(asked.results, read_index())
    modes = asked.modes or ALL_MODES
    return verify_coexistence(Plan(tuple(dict.fromkeys(modes)), asked.tests, asked.coverage, asked.sabotage), tell)


def _see_that_it_can_be_written(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"no pages can be written there: {error}", key="--out", file=folder) from error


def _compare(folder: Path, results: Results) -> list[str]:
    kept, wrong = read_pages(folder)
    return [*(f"{name} is not what its results give" for name in wrong), *differences(kept, results)]


@contextlib.contextmanager
def _ended_by_signals() -> Generator[None]:
    """A request to end is what Ctrl-C is, so that what was started is ended in order."""

    def interrupt(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)  # asyncio cancels what it runs, and what moves is stopped in order

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Shown:
    """Progress, on stderr: a bar at a terminal, and a line for each test that has ended."""

    def __init__(self, err: Console) -> None:
        self._err = err
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Shown:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, step: Step) -> None:
        if step.what not in self._tasks:
            self._tasks[step.what] = self._progress.add_task(step.what, total=step.of)
        words = f"{step.what} {step.name} ({step.mode})" if step.name else step.what
        self._progress.update(self._tasks[step.what], completed=step.done, total=step.of, description=escape(words))
        if step.test is not None:
            duration = "" if step.test.duration_s is None else f"{step.test.duration_s:6.2f} s"
            state = f"[{_COLOURS[step.test.state]}]{step.test.state:8}[/]"
            self._err.print(f"{state}{duration:>9}  {escape(step.test.test)} ({escape(step.test.mode)})")


def _say(results: Results, files: list[Path], wrong: list[str], check: Path | None, out: Console) -> None:
    counted = Summary(results)
    for test in results.failed:
        out.print(f"[bold red]failed[/] {escape(f'{test.test} ({test.mode}): {test.error}')}", soft_wrap=True)
    for sentence in wrong:
        out.print(f"[bold red]differs[/] {escape(sentence)}", soft_wrap=True)
    colour = "bold red" if results.failed else "bold green"
    left = f", {counted.not_run} not run" if counted.not_run else ""
    out.print(f"[{colour}]{counted.passed} of {counted.ran} passed[/]{left}")
    if check is not None and not wrong:
        out.print(escape(f"The pages in {check} say the same, apart from what is measured."), soft_wrap=True)
    page = next((file for file in files if file.name == "summary.html"), None)
    if page is not None:
        out.print(escape(f"Four pages are in {page.parent}; begin with {page}"), soft_wrap=True)


def _say_json(results: Results, files: list[Path], wrong: list[str], out: Console) -> None:
    counted = Summary(results)
    facts = {
        "passed": counted.passed,
        "ran": counted.ran,
        "not_run": counted.not_run,
        "failed": [{"test": t.test, "mode": t.mode, "feature": t.feature, "error": t.error} for t in results.failed],
        "duration_s": counted.total_s,
        "concurrent_messages": counted.at_once,
        "takeover_ms": counted.takeover_ms,
        "branch_coverage": counted.branch_share,
        "differences": wrong,
        "files": [str(file) for file in files],
    }
    say_json_line(out, facts)
