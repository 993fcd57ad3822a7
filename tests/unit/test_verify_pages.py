"""What `duodaq verify` writes: both forms say the same, nothing is invented, and what is measured can be told apart."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from duodaq.errors import ConfigError
from duodaq.verify import Plan, Results, Summary, Verdict, differences, load_results, pages_of, read_pages, write_pages
from duodaq.verify._results import Coverage, Entry, Figure, Package, Sabotage
from duodaq.verify._run import chosen

HOSTILE = "<script>alert('x')</script> a|b `c` *d* [e](f)\nsecond line"


BROKEN = Sabotage("s", "order", "S.", ["inline"])


def results(**changed: Any) -> Results:
    tests = [
        Verdict("test_one", "inline", "passed", 1.25, features=["order"], figures=[took(2.0), at_once(96)]),
        Verdict("test_one", "process", "failed", 4.0, "order", "[order] V4 stopped first"),
        Verdict("test_two", "inline", "passed", 0.5, features=["no echo"]),
    ]
    index = [
        Entry(
            "test_one", "lifecycle", "Both start and stop.", "kit.one", 10, [Sabotage("s", "order", "S.", ["inline"])]
        ),
        Entry("test_two", "data", "Readings arrive.", "kit.two", 20),
    ]
    made = Results("coexistence", ["inline", "process"], tests, index, began="2026-01-01T00:00:00+00:00", took_s=7.0)
    made.versions = {"Python": "CPython 3.11.7", "duodaq": "0.1.0"}
    made.absent = {"coverage": "it was not asked for", "takeover": "this run left it out"}
    return msgspec.structs.replace(made, **changed)


def took(value_ms: float) -> Figure:
    return Figure("recovery", value_ms, "ms", {"side": "v2", "fault": "SIGKILL", "since": "its process died"})


def at_once(count: int) -> Figure:
    return Figure("messages at once", count, "", {"side": "both"})


class Words(HTMLParser):
    """What a reader of a page reads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._skipped = 0
        self.feed(text[text.index("<main>") :])

    def handle_data(self, data: str) -> None:
        self.found += re.findall(r"\w+", data)


def words_of_markdown(text: str) -> list[str]:
    lines = text.split("\n\n", 2)[2].splitlines()  # its title and the other pages are the head of the page in HTML
    lines = [re.sub(r"\]\([\w.-]+\)", "]", line) for line in lines if line not in ("```console", "```")]
    return re.findall(r"\w+", "\n".join(line for line in lines if not set(line) <= set("|-: ")).replace("\\", ""))


@pytest.mark.parametrize("page", ["summary", "test-report", "test-index", "deliverables"])
def test_html_and_markdown_of_a_page_say_the_same(page: str) -> None:
    pages = pages_of(results(coverage=Coverage([Package("dual", 11, 900, 800, 200, 150)], ["inline"], 2, 2)))
    seen = words_of_markdown(pages[f"{page}.md"])
    if page == "summary":  # there the tiles have no heads of columns
        seen = [word for word in seen if word not in ("what", "how", "much")]
        heads = [word for word in Words(pages[f"{page}.html"]).found if word not in ("what", "how", "much")]
        assert seen == heads
    else:
        assert seen == Words(pages[f"{page}.html"]).found


def test_a_page_needs_no_other_file_and_no_network() -> None:
    for name, text in pages_of(results()).items():
        assert not re.search(r"https?:|src=|@import|url\(|<script|<link", text), name
        if name.endswith(".html"):
            assert "prefers-color-scheme: dark" in text
            assert 'name="viewport"' in text


def test_what_was_not_measured_is_absent_and_says_why() -> None:
    pages = pages_of(results())
    assert "| branch coverage | not measured | it was not asked for |" in pages["summary.md"]
    assert "| recovery | not measured | this run left it out |" in pages["summary.md"]
    assert "Not measured: the test of throughput did not end." in pages["test-report.md"]
    nothing = pages_of(results(tests=[], index=[], modes=[], versions={}, absent={}))
    for text in (*pages.values(), *nothing.values()):
        assert not re.search(r"\b(None|nan|inf)\b", text)
    assert "Nothing was run." in nothing["summary.md"]


def test_numbers_are_those_of_the_run() -> None:
    counted = Summary(results())
    assert (counted.total, counted.ran, counted.passed) == (3, 3, 2)
    assert counted.total_s == 5.75
    assert counted.at_once == 96
    text = pages_of(results())["summary.md"]
    assert "| pass rate | 66.7 % | 2 of 3 |" in text
    assert "| fastest | 0.50 s | `test_two` (inline) |" in text
    assert "| slowest | 4.00 s | `test_one` (process) |" in text
    assert "| mean | 1.92 s | a test |" in text


def test_a_share_is_never_rounded_up_to_all() -> None:
    almost = Coverage([Package("dual", 1, 1, 1, 10_000, 9_999)], ["inline"], 1, 1)
    assert "| branch coverage | 99.9 % |" in pages_of(results(coverage=almost))["summary.md"]


def test_a_recovery_stands_beside_its_goal() -> None:
    text = pages_of(results())["test-report.md"]
    assert "goal 5 ms" in text
    assert "| inline | v2 | SIGKILL | its process died | 1 | 2.00 ms | 2.00 ms | 2.00 ms | within |" in text
    slow = [Verdict("test_one", "inline", "passed", 1.0, figures=[took(5.1)])]
    assert "| 5.10 ms | beyond |" in pages_of(results(tests=slow))["test-report.md"]


def test_a_failed_test_is_shown_with_its_feature_on_every_page() -> None:
    pages = pages_of(results())
    assert "- `test_one` (process), at the feature “order”: `[order] V4 stopped first`" in pages["test-report.md"]
    for name, text in pages.items():
        assert "2 of 3 passed" in text, name
        assert ("**failed**" if name.endswith(".md") else 'class="state bad"') in text, name


def test_words_of_an_error_are_words_and_no_markup() -> None:
    pages = pages_of(results(tests=[Verdict("test_one", "inline", "failed", 1.0, HOSTILE, HOSTILE)]))
    assert "<script" not in pages["test-report.html"]
    row = next(line for line in pages["test-report.md"].splitlines() if line.startswith("- `test_one`"))
    assert "\\<script\\>" in row
    assert row.endswith("``")


def test_pages_are_written_with_their_results_and_read_back(tmp_path: Path) -> None:
    files = write_pages(results(), tmp_path / "new" / "pages")
    assert {file.suffix for file in files} == {".html", ".md", ".json"}
    kept, wrong = read_pages(tmp_path / "new" / "pages")
    assert (kept, wrong) == (results(), [])


def test_a_page_that_was_changed_by_hand_is_noticed(tmp_path: Path) -> None:
    write_pages(results(), tmp_path)
    page = tmp_path / "summary.md"
    page.write_text(page.read_text().replace("66.7 %", "100 %"))
    (tmp_path / "deliverables.html").unlink()
    assert read_pages(tmp_path)[1] == ["summary.md", "deliverables.html"]


def test_results_that_cannot_be_read_are_an_error_with_their_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"results\.json"):
        read_pages(tmp_path)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ConfigError, match="these are no results"):
        load_results(tmp_path / "results.json")


def test_pages_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="the pages cannot be written"):
        write_pages(results(), tmp_path / "file")


def test_another_machine_and_other_times_make_no_difference() -> None:
    other = results(began="2027", took_s=99.0, versions={"Python": "3.13"}, absent={})
    other.tests = [
        msgspec.structs.replace(t, duration_s=9.0, figures=[took(400.0), at_once(3)] if t.figures else [])
        for t in other.tests
    ]
    other.index[0].lines = 11
    other.coverage = Coverage([Package("dual", 1, 1, 1, 1, 1)], ["inline"], 1, 1)
    assert differences(results(), other) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"modes": ["inline"]}, "modes: "),
        ({"sabotage": "s"}, "sabotage: "),
        ({"tests": results().tests[:2]}, "test_two (inline) is there, and not now"),
        ({"tests": [*results().tests, Verdict("test_two", "process", "passed")]}, "is not there, and now is"),
        (
            {"tests": [Verdict("test_two", "inline", "failed", 0.5), *results().tests[:2]]},
            "'passed' there, 'failed' now",
        ),
        ({"index": results().index[:1]}, "index: test_two is there"),
    ],
)
def test_what_is_not_measured_makes_a_difference(changed: dict[str, Any], words: str) -> None:
    assert any(words in sentence for sentence in differences(results(), results(**changed)))


def test_a_feature_a_figure_or_a_sabotage_that_is_gone_makes_a_difference() -> None:
    for change in (
        lambda r: r.tests[0].features.clear(),
        lambda r: r.tests[0].figures.pop(),
        lambda r: r.index[0].sabotages.clear(),
        lambda r: setattr(r.index[0], "shows", "Something else."),
    ):
        other = results()
        change(other)
        assert len(differences(results(), other)) == 1


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(modes=("parallel",)), "no mode 'parallel'"),
        (Plan(tests=("test_nothing",)), "no test 'test_nothing'"),
        (Plan(sabotage="nothing"), "no sabotage 'nothing'"),
    ],
)
def test_what_there_is_not_is_refused_and_what_there_is_is_named(plan: Plan, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        chosen(plan, results().index)
    assert str(refused.value.remedy).startswith("There are: ")


def test_chosen_tests_run_in_the_order_of_the_index() -> None:
    assert chosen(Plan(tests=("test_two", "test_one")), results().index) == ["test_one", "test_two"]
    assert chosen(Plan(), results().index) == ["test_one", "test_two"]
