from __future__ import annotations

from collections.abc import Iterator

from duodaq.verify._page import Block, Bullets, Code, Heading, Page, Paragraph, State, Table, Text
from duodaq.verify._report_page import verdict_of
from duodaq.verify._results import HARDWARE, NOT_RUN, Entry, Results

INDEX = "test-index"


def test_index(results: Results) -> Page:
    """Every test: what it is about, what it must show, what it has shown, and what is broken to see it fail."""
    state, sentence = verdict_of(results)
    return Page(INDEX, "Test index", state, sentence, tuple(_blocks(results)))


def _blocks(results: Results) -> Iterator[Block]:
    categories = list(dict.fromkeys(entry.category for entry in results.index))
    for category in categories:
        entries = [entry for entry in results.index if entry.category == category]
        yield Heading(f"{category.capitalize()} ({len(entries)})")
        rows = tuple((Code(e.test), e.shows, *(_state(results, e, mode) for mode in results.modes)) for e in entries)
        yield Table(("test", "shows", *results.modes), rows)
    if results.kind == HARDWARE:
        return
    yield Heading("What each has shown")
    yield Paragraph("By marked assertions that held in this run; a sabotage counts only if it fails at its own.")
    rows = tuple(_proven(results, entry) for entry in results.index)
    yield Table(("test", "features", "sabotages"), rows, frozenset({2}))
    yield Heading("What is broken on purpose")
    for entry in results.index:
        yield Paragraph(Code(entry.test))
        yield Bullets(tuple(_sabotage(entry)))


def _state(results: Results, entry: Entry, mode: str) -> State:
    test = results.of(entry.test, mode)
    return State(NOT_RUN if test is None else test.state)


def _proven(results: Results, entry: Entry) -> tuple[Text, ...]:
    features = dict.fromkeys(f for mode in results.modes if (t := results.of(entry.test, mode)) for f in t.features)
    return Code(entry.test), ", ".join(features) or "none in this run", str(len(entry.sabotages))


def _sabotage(entry: Entry) -> Iterator[Text]:
    for one in entry.sabotages:
        yield (Code(one.name), f": {one.words} Fails at “{one.feature}”, in {', '.join(one.modes)}.")
