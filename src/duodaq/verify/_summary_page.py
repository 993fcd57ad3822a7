from __future__ import annotations

from duodaq.verify._page import Block, Code, Commands, Heading, Page, Paragraph, State, Table, Text, Tiles
from duodaq.verify._report_page import verdict_of
from duodaq.verify._results import GOAL_MS, HARDWARE, NOT_RUN, Results, Summary, Verdict
from duodaq.verify._wording import NOT_MEASURED, goal, milliseconds, percent, seconds

SUMMARY = "summary"


def summary_page(results: Results) -> Page:
    """The numbers that stand for the run, and the commands that run it again: a quick reference."""
    state, sentence = verdict_of(results)
    blocks: tuple[Block, ...] = (
        Tiles(tuple(_tiles(results))),
        Heading("Run it again"),
        *_commands(results),
        Heading("Exit codes"),
        Table(
            ("code", "meaning"),
            (
                (Code("0"), "all that ran has passed"),
                (Code("1"), "a test has failed; the pages say which"),
                (Code("2"), "it could not be run; nothing was written"),
                (Code("130"), "it was interrupted; nothing was written"),
            ),
        ),
    )
    return Page(SUMMARY, "Summary", state, sentence, blocks)


def _tiles(results: Results) -> list[tuple[str, Text, Text]]:
    counted = Summary(results)
    where = "instruments" if results.kind == HARDWARE else "modes"
    tiles: list[tuple[str, Text, Text]] = [
        ("pass rate", percent(counted.rate), f"{counted.passed} of {counted.ran}"),
        ("tests", str(counted.total), f"{counted.not_run} of them not run"),
        ("all together", seconds(counted.total_s), "of testing"),
        ("mean", seconds(counted.mean_s), "a test"),
        ("fastest", *_timed(counted.fastest)),
        ("slowest", *_timed(counted.slowest)),
        (where, str(len(results.modes)), ", ".join(results.modes)),
    ]
    return [*tiles, *_measured(results, counted), *_versions(results)]


def _timed(timed: tuple[float, Verdict] | None) -> tuple[Text, Text]:
    if timed is None:
        return NOT_MEASURED, "no test ran to its end"
    duration_s, test = timed
    return seconds(duration_s), (Code(test.test), f" ({test.mode})")


def _measured(results: Results, counted: Summary) -> list[tuple[str, Text, Text]]:
    if results.kind == HARDWARE:
        return []
    at_once = NOT_MEASURED if counted.at_once is None else str(counted.at_once)
    recovery: Text = milliseconds(counted.takeover_ms)
    beside: Text = results.absent.get("takeover", "")
    if counted.takeover_ms is not None:
        beside = (
            f"median of {len(results.takeover)} killed processes; goal {GOAL_MS:g} ms: ",
            goal(counted.takeover_ms),
        )
    covered = "of dual, bridge and ports" if results.coverage else results.absent.get("coverage", "")
    return [
        ("concurrent messages", at_once, "under way at once, both runtimes together"),
        ("recovery", recovery, beside),
        ("branch coverage", percent(counted.branch_share), covered),
        ("real instruments", State(NOT_RUN), results.absent.get("hardware", "")),
    ]


def _versions(results: Results) -> list[tuple[str, Text, Text]]:
    found = results.versions
    return [
        ("duodaq", found.get("duodaq", "unknown"), f"on {found.get('Python', 'an unknown Python')}"),
        (
            "machine",
            f"{found.get('processors', '?')} processors",
            f"{found.get('system', '')}, load {found.get('load when it began', 'not known')} when it began",
        ),
    ]


def _commands(results: Results) -> list[Block]:
    if results.kind == HARDWARE:
        lines = ("duodaq verify --hardware lab.toml", "duodaq verify --hardware lab.toml --allow-motion")
        return [Commands(lines), Paragraph("Without the option nothing moves; nothing is ever made to emit.")]
    first = results.index[0].test if results.index else ""
    return [
        Commands(
            (
                "duodaq verify",
                "duodaq verify --mode inline --no-coverage",
                f"duodaq verify --test {first}",
                "duodaq verify --hardware lab.toml",
            )
        ),
        Paragraph("All of it; the quickest look; one test in every mode; your own instruments, read only."),
    ]
