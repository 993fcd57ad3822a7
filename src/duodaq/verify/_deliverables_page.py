from __future__ import annotations

from collections.abc import Iterator

from duodaq.verify._page import Block, Code, Heading, Link, Page, Paragraph, Table, Text
from duodaq.verify._report_page import REPORT, verdict_of
from duodaq.verify._results import HARDWARE, Results

DELIVERABLES = "deliverables"

_PAGES = (
    (REPORT, "Test report", "what became of every test, and every figure that was measured"),
    ("summary", "Summary", "the numbers that stand for the run, and the commands"),
    ("test-index", "Test index", "what each test must show, has shown, and what is broken to see it fail"),
    (DELIVERABLES, "Deliverables", "this list"),
)


def deliverables(results: Results) -> Page:
    """What there is: the pages, the tests with their sabotages, and the parts of duodaq they went through."""
    state, sentence = verdict_of(results)
    return Page(DELIVERABLES, "Deliverables", state, sentence, tuple(_blocks(results)))


def _blocks(results: Results) -> Iterator[Block]:
    yield Heading("Pages")
    yield Paragraph(("All of them are made from ", Code("results.json"), " beside them, which a program can read."))
    rows: tuple[tuple[Text, ...], ...] = tuple(
        (Link(title, name), Code(f"{name}.html"), Code(f"{name}.md"), words) for name, title, words in _PAGES
    )
    yield Table(("page", "to look at", "as text", "says"), rows)
    if results.kind == HARDWARE:
        return
    yield Heading("Tests")
    sabotages = sum(len(entry.sabotages) for entry in results.index)
    yield Paragraph(f"{len(results.index)} tests and {sabotages} sabotages of them, installed with duodaq.")
    tests: tuple[tuple[Text, ...], ...] = tuple(
        (Code(e.test), e.category, Code(e.module), str(e.lines), str(len(e.sabotages))) for e in results.index
    )
    yield Table(("test", "category", "module", "lines of it", "sabotages"), tests, frozenset({3, 4}))
    yield Heading("Parts of duodaq under test")
    if results.coverage is None:
        yield Paragraph(f"Not measured: {results.absent.get('coverage', 'this run did not get that far')}.")
        return
    parts: tuple[tuple[Text, ...], ...] = tuple(
        (Code(f"duodaq.{p.name}"), str(p.files), str(p.statements), str(p.branches)) for p in results.coverage.packages
    )
    yield Table(("package", "files", "statements", "branches"), parts, frozenset({1, 2, 3}))
