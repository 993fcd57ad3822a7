from __future__ import annotations

from collections.abc import Iterator

from duodaq.verify._page import Block, Bullets, Code, Heading, Page, Paragraph, State, Table, Text
from duodaq.verify._results import FAILED, HARDWARE, NOT_RUN, PASSED, Figure, Results, Summary, Verdict
from duodaq.verify._wording import NOT_MEASURED, percent, quantity, seconds, times_table

REPORT = "test-report"


def verdict_of(results: Results) -> tuple[State, str]:
    """The whole run in a word, and in a sentence."""
    counted = Summary(results)
    if not counted.ran:
        return State(NOT_RUN), "Nothing was run."
    state = State(FAILED if results.failed else PASSED)
    where = f"on {in_words(results.modes)}" if results.kind == HARDWARE else in_modes(results.modes)
    sentence = f"{counted.passed} of {counted.ran} passed, {where}."
    if counted.not_run:
        sentence += f" {counted.not_run} were not run."
    if results.sabotage:
        sentence += f" The product was sabotaged on purpose: {results.sabotage}."
    return state, sentence


def in_modes(modes: list[str]) -> str:
    """Where the tests ran."""
    return f"in {'mode' if len(modes) == 1 else 'the modes'} {in_words(modes)}"


def in_words(names: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def test_report(results: Results) -> Page:
    """What became of every test, and every figure that was measured."""
    state, sentence = verdict_of(results)
    return Page(REPORT, "Test report", state, sentence, tuple(_blocks(results)))


def _blocks(results: Results) -> Iterator[Block]:
    yield Paragraph(f"Begun {results.began or 'at a time that was not noted'}; it took {seconds(results.took_s)}.")
    where = "on every instrument" if results.kind == HARDWARE else "in every mode"
    yield Heading(f"Every test, {where}")
    yield _matrix(results)
    yield from _failures(results)
    yield from _not_run(results)
    yield from _durations(results)
    if results.kind == HARDWARE:
        yield from _load(results)
        yield from _written(results)
    else:
        yield from _messages(results)
        yield from _recovery(results)
        yield from _meanwhile(results)
        yield from _shutdown(results)
        yield from _coverage(results)
        yield Heading("On real instruments")
        yield Paragraph((State(NOT_RUN), f" {results.absent.get('hardware', NOT_MEASURED)}."))
    yield Heading("With what")
    rows: tuple[tuple[Text, ...], ...] = tuple(results.versions.items())
    yield Table(("what", "version"), rows)


def _matrix(results: Results) -> Table:
    names = list(dict.fromkeys(test.test for test in results.tests))
    rows = tuple((Code(name), *(_cell(results.of(name, mode)) for mode in results.modes)) for name in names)
    longest = max((test.duration_s or 0.0 for test in results.tests), default=0.0) or 1.0
    tests = {(row, column): results.of(n, m) for row, n in enumerate(names) for column, m in enumerate(results.modes)}
    bars = {
        (row, column + 1): test.duration_s / longest
        for (row, column), test in tests.items()
        if test is not None and test.duration_s is not None
    }
    return Table(("test", *results.modes), rows, bars=bars)


def _cell(test: Verdict | None) -> Text:
    if test is None:
        return State(NOT_RUN)
    return State(test.state) if test.duration_s is None else (State(test.state), f" {seconds(test.duration_s)}")


def _failures(results: Results) -> Iterator[Block]:
    yield Heading("What failed")
    if not results.failed:
        yield Paragraph("Nothing failed.")
        return
    yield Bullets(tuple(_failure(test) for test in results.failed))


def _failure(test: Verdict) -> Text:
    where: Text = (Code(test.test), f" ({test.mode})")
    at = (f", at the feature “{test.feature}”",) if test.feature else ()
    return (*where, *at, ": ", Code(test.error))


def _not_run(results: Results) -> Iterator[Block]:
    left = [test for test in results.tests if test.state == NOT_RUN]
    if left:
        yield Heading("What was not run, and why")
        yield Bullets(tuple((Code(test.test), f" ({test.mode}): {test.error}") for test in left))


def _durations(results: Results) -> Iterator[Block]:
    counted = Summary(results)
    yield Heading("Durations")
    if counted.fastest is None or counted.slowest is None:
        yield Paragraph("No test ran to its end.")
        return
    rows: list[tuple[Text, ...]] = [
        ("all together", seconds(counted.total_s), ""),
        ("mean", seconds(counted.mean_s), ""),
    ]
    for what, (duration_s, test) in (("fastest", counted.fastest), ("slowest", counted.slowest)):
        rows.append((what, seconds(duration_s), (Code(test.test), f" ({test.mode})")))
    yield Table(("", "duration", "test"), tuple(rows), frozenset({1}))


def _messages(results: Results) -> Iterator[Block]:
    yield Heading("Concurrent messages")
    found = [(test.mode, test) for test in results.tests if any(f.name == "messages" for f in test.figures)]
    if not found:
        yield Paragraph("Not measured: the test of throughput did not end.")
        return
    yield Paragraph("Many senders to an instrument of each runtime; each message costs its device one exchange.")
    names = ("messages", "messages a second", *(f"message to answer, {n}th percentile" for n in (50, 99)))
    rows: list[tuple[Text, ...]] = []
    for mode, test in found:
        at_once = _value(test, "messages at once", "both")
        for side in ("v2", "v4"):
            rows.append((mode, side, *(_value(test, name, side) for name in names[:1]), at_once))
            rows[-1] += tuple(_value(test, name, side) for name in names[1:])
    columns = ("mode", "runtime", "messages", "at once, both", "a second", "answered after, median", "99th percentile")
    yield Table(columns, tuple(rows), frozenset(range(2, 7)))


def _value(test: Verdict, name: str, side: str) -> str:
    found = next((f for f in test.figures if f.name == name and f.of.get("side") == side), None)
    return NOT_MEASURED if found is None else quantity(found.value, found.unit)


def _recovery(results: Results) -> Iterator[Block]:
    yield Heading("Recovery")
    if results.takeover:
        yield Paragraph(
            "The process of an instrument is killed while another one stands ready: from its last act to the first"
            " reading of the device by its successor."
        )
        yield times_table(("runtime",), (((f.of.get("side", ""),), f) for f in results.takeover))
    else:
        yield Paragraph(f"Takeover of a killed process: {_why(results, 'takeover')}.")
    found = results.figures("recovery")
    if not found:
        yield Paragraph("Recovery from the faults of the isolation tests: not measured, for none of them ran that far.")
        return
    yield Paragraph(
        "In the isolation tests, faults strike one after the other: from the end of each to the next reading. A port"
        " that was unplugged, a start that failed and a process that died again wait for the product's back-off."
    )
    labels = ("mode", "runtime", "fault", "counted from")
    yield times_table(labels, (((test.mode, *_of(f, "side", "fault", "since")), f) for test, f in found))


def _of(figure: Figure, *labels: str) -> tuple[str, ...]:
    return tuple(figure.of.get(label, "") for label in labels)


def _meanwhile(results: Results) -> Iterator[Block]:
    name = "answers, 99th percentile"
    found = results.figures(name)
    if not found:
        return
    yield Heading("The other side meanwhile")
    yield Paragraph("How quickly the runtime that nothing was done to answered, while the other was in trouble.")
    times = {(t.mode, f.of["side"], f.of["when"]): quantity(f.value, f.unit) for t, f in found}
    sides = dict.fromkeys((mode, side) for mode, side, _ in times)
    rows = tuple((m, s, *(times.get((m, s, w), NOT_MEASURED) for w in ("in peace", "beside faults"))) for m, s in sides)
    yield Table(("mode", "runtime", f"{name}, in peace", "beside faults"), rows, frozenset({2, 3}))


def _shutdown(results: Results) -> Iterator[Block]:
    found = results.figures("shutdown against two that refuse")
    if found:
        yield Heading("Shutdown against two that refuse")
        rows = tuple((test.mode, quantity(f.value, f.unit), f.of.get("limit", "")) for test, f in found)
        yield Table(("mode", "took", "limit"), rows, frozenset({1, 2}))


def _coverage(results: Results) -> Iterator[Block]:
    yield Heading("Branch coverage")
    coverage = results.coverage
    if coverage is None:
        yield Paragraph(f"{_why(results, 'coverage').capitalize()}.")
        return
    yield Paragraph(
        f"Measured while the tests ran once more {in_modes(coverage.modes)}: {coverage.passed} of"
        f" {coverage.of} passed while they were watched. What runs in worker processes is not counted."
    )
    rows = tuple(
        (
            Code(f"duodaq.{p.name}"),
            str(p.files),
            f"{p.branches_taken} of {p.branches}",
            percent(p.branches_taken / p.branches if p.branches else None),
            percent(p.statements_run / p.statements if p.statements else None),
        )
        for p in coverage.packages
    )
    columns = ("package", "files", "branches", "of branches", "of statements")
    yield Table(columns, rows, frozenset({1, 2, 3, 4}))


def _load(results: Results) -> Iterator[Block]:
    yield Heading("Under load")
    found = [test for test in results.tests if test.figures]
    if not found:
        yield Paragraph("Not measured: no instrument was put under load.")
        return
    rows = tuple((test.mode, f.name, quantity(f.value, f.unit)) for test in found for f in test.figures)
    yield Table(("instrument", "what", "measured"), rows, frozenset({2}))


def _written(results: Results) -> Iterator[Block]:
    yield Heading("What was written to the instruments")
    if not results.written:
        yield Paragraph(f"Nothing that was recorded. {results.absent.get('written', '')}".strip())
        return
    rows = tuple((w.port, Code(w.words), w.holder, str(w.count)) for w in results.written)
    yield Table(("port", "written", "by", "times"), rows, frozenset({3}))


def _why(results: Results, what: str) -> str:
    return f"{NOT_MEASURED}, because {results.absent.get(what, 'this run did not get that far')}"
