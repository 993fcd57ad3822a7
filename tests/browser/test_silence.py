"""What a page shows of a channel that falls silent: no line where nothing is known, and old values that say so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [
    pytest.mark.browser,
    pytest.mark.serial,
    pytest.mark.alone("a browser draws on all of the machine"),
    pytest.mark.leaks_fd("the browser's connection for requests, which the server closes when it was idle for 5 s"),
]
HELLO = "document.querySelectorAll('.instrument').length === 6"
CURVE = "[data-curve='meter.power']"
VALUE = "[data-instrument=meter] [data-channel=power]"
PICTURE = "document.querySelector('#plots canvas').toDataURL()"
DRAWN = """async ([parts, from, to]) => {
    const { gathered, take } = await import('/curves.js');
    const name = `a.${Math.random()}`;
    for (const [times, past] of parts) take(name, 'V', times.map((s) => 1000 * s), times.map(() => 1), past);
    const [x, v] = gathered([name], from, to, 1000);
    const of = (kind) => Array.from(x).filter((_, i) => v[i] === kind);
    return { unknown: of(null), points: of(1) };
}"""
BLANK = """() => {
    const canvas = document.querySelector('#plots canvas');
    const pen = canvas.getContext('2d');
    const mark = getComputedStyle(document.querySelector("[data-curve='meter.power']")).getPropertyValue('--mark');
    pen.save();
    pen.fillStyle = mark;
    const [r, g, b] = pen.fillStyle.match(/\\w\\w/g).map((part) => parseInt(part, 16));
    pen.restore();
    const { left, width } = document.querySelector('#plots .u-over').getBoundingClientRect();
    const begin = Math.round((left - canvas.getBoundingClientRect().left) * devicePixelRatio);
    const shown = Math.round(width * devicePixelRatio);
    const { data, width: across, height } = pen.getImageData(begin, 0, shown, canvas.height);
    const places = (x) => Array.from({ length: height }, (_, y) => 4 * (y * across + x));
    const columns = Array.from({ length: across }, (_, x) => places(x).some(
        (i) => Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 60));
    const inked = columns.map((on, x) => (on ? x : -1)).filter((x) => x >= 0);
    const widest = Math.max(0, ...inked.slice(1).map((x, n) => x - inked[n]));
    return { inked: inked.length, blank: widest / across };
}"""

OLD = """async ([state, every_s, age_s]) => {
    const { hear, reading } = await import(`/moment.js?${Math.random()}`);
    const say = (ms) => hear({ instruments: { a: { state } }, parameters: [], values: { 'a.b': [ms, 1, 'V'] } }, ms);
    for (let n = 0; n < 12; n += 1) say(1e12 + n * 1000 * every_s);
    const last = 1e12 + 11000 * every_s;
    hear({ instruments: { a: { state } }, parameters: [], values: { 'a.b': [last, 1, 'V'] } }, last + 1000 * age_s);
    return reading('a', 'b').stale;
}"""
PANEL = """async (id) => {
    const moment = await import('/moment.js');
    const { update } = await import('/panel.js');
    const now = moment.present();
    const lost = { state: 'error', message: 'the line was lost' };
    moment.hear({ ...now, instruments: { ...now.instruments, [id]: lost } }, moment.labTime() + 5000);
    update();
    return {
        axis: document.querySelector('#panel [data-axis]')?.style.opacity,
        said: document.querySelector('#panel .axis small')?.textContent,
        fields: [...document.querySelectorAll('#panel [data-setting]')].filter((one) => one.value).map(
            (one) => Boolean(one.closest('.field.stale'))),
    };
}"""
AS_BEFORE = """(chosen) => {
    if (chosen === null) localStorage.removeItem('duodaq-plots optics');
    else localStorage.setItem('duodaq-plots optics', chosen);
}"""
CHOSEN = "localStorage.setItem('duodaq-plots optics', '[\"meter.power\"]')"


def times(begin: float, end: float, step: float) -> list[float]:
    return [begin + n * step for n in range(round((end - begin) / step) + 1)]


def drawn(page: Any, parts: list[tuple[list[float], bool]], begin: float, end: float) -> Any:
    return page.tab.evaluate(DRAWN, [parts, begin, end])


@pytest.mark.parametrize("past", [False, True])
def test_a_curve_is_broken_where_nothing_came_for_much_longer_than_usual(page: Any, past: bool) -> None:
    found = drawn(page, [(times(1000, 1005, 0.05) + times(1023, 1030, 0.05), past)], 1000, 1030)
    assert found["unknown"]
    assert 1005 < min(found["unknown"]) < 1005.1
    assert 1022.9 < max(found["unknown"]) < 1023
    assert not [t for t in found["points"] if 1005.1 < t < 1022.9]


@pytest.mark.parametrize(
    "parts",
    [
        [(times(1000, 2800, 60), False)],
        [(times(1000, 1900, 60), True), (times(1960, 2800, 60), False)],
        [(times(1000, 1300, 60), False), (times(1300.05, 1310, 0.05), False)],  # read oftener from then on
        [(times(1000, 1010, 0.05), False), (times(1070, 2800, 60), False)],  # and seldomer
        [(times(1000, 1001.9, 0.1) + times(1003.8, 1010, 0.1), False)],  # less than 2 s
        [(times(1000, 2800, 0.5), False)],  # thinned
    ],
)
def test_a_curve_is_whole_however_seldom_its_values_come(page: Any, parts: list[tuple[list[float], bool]]) -> None:
    assert drawn(page, parts, parts[0][0][0], parts[-1][0][-1])["unknown"] == []


def test_a_value_between_two_gaps_is_seen_where_it_is(page: Any) -> None:
    found = drawn(page, [([*times(1000, 1005, 0.05), 1015, *times(1025, 1030, 0.05)], False)], 1000, 1030)
    assert len([t for t in found["points"] if 1014.9 < t < 1015.1]) == 2  # a line of half a pixel
    assert not [t for t in found["points"] if 1005.1 < t < 1014.9 or 1015.1 < t < 1024.9]


@pytest.mark.parametrize(
    ("state", "every_s", "age_s", "old"),
    [
        ("acquiring", 0.2, 1.5, False),
        ("acquiring", 0.2, 3, True),
        ("acquiring", 60, 200, False),
        ("acquiring", 60, 300, True),
        ("ready", 0.2, 10, False),  # it was ended, and is the last that is known
        ("ready", 0.2, 20, True),
        ("ready", 60, 200, False),
        ("error", 60, 1.5, False),
        ("error", 60, 3, True),
        ("hung", 0.2, 3, True),
    ],
)
def test_a_value_is_old_when_its_channel_is_silent_for_longer_than_usual_or_its_instrument_is_not_well(
    page: Any, state: str, every_s: float, age_s: float, old: bool
) -> None:
    assert page.tab.evaluate(OLD, [state, every_s, age_s]) is old


def test_a_panel_says_of_an_instrument_in_error_that_its_values_are_old(page: Any) -> None:
    page.panel("stage")
    stage = page.tab.evaluate(PANEL, "stage")
    page.panel("camera")
    page.until(lambda: page.js("[...document.querySelectorAll('#panel [data-setting]')].some((one) => one.value)"))
    camera = page.tab.evaluate(PANEL, "camera")
    page.tab.click("#panel .close")
    assert stage["axis"] == "0.5"
    assert stage["said"].startswith("no longer kept up to date, ")
    assert camera["fields"]
    assert all(camera["fields"])


@pytest.fixture
def unplugged(page: Any) -> Iterator[Any]:
    """The page with the meter's curve alone, and its cable pulled."""
    page.tab.reload()
    page.until(lambda: page.js(HELLO))
    before = page.js("localStorage.getItem('duodaq-plots optics')")
    shown = page.js("[...document.querySelectorAll('#plots [data-curve]')].map((one) => one.dataset.curve)")
    for name in shown:
        if name != "meter.power":
            page.tab.click(f"[data-stream='{name}']")
    page.tab.wait_for_timeout(3000)
    page.bench.meter.unplug()
    yield page
    page.bench.meter.replug()
    page.tab.wait_for_selector(f"{VALUE}:not(.stale)", timeout=30_000)  # its line is open again before the next test
    page.tab.wait_for_selector("[data-runtime=v2] small:text-is('running')", timeout=30_000)
    page.tab.evaluate(AS_BEFORE, before)
    page.tab.reload()
    page.until(lambda: page.js(HELLO))


def test_a_lost_instrument_is_old_in_all_places_its_time_goes_on_and_its_gap_is_blank(unplugged: Any) -> None:
    page = unplugged
    for place in (f"{VALUE}.stale", f"{CURVE}.stale"):
        page.tab.wait_for_selector(place, timeout=15_000)
    before = page.js(PICTURE)
    page.until(lambda: page.js(PICTURE) != before, 2)
    assert page.tab.is_hidden("#plots .waiting")
    another = page.tab.context.browser.new_page()
    another.add_init_script(CHOSEN)
    another.goto(page.address)
    another.wait_for_selector(f"{VALUE}.stale")
    another.wait_for_selector(f"{CURVE}.stale")
    page.until(lambda: "W" in another.inner_text(CURVE))
    another.wait_for_selector("#plots .waiting", state="hidden")
    another.close()
    page.bench.meter.replug()
    for place in (VALUE, CURVE):
        page.tab.wait_for_selector(f"{place}:not(.stale)", timeout=30_000)
    page.until(lambda: page.tab.evaluate(BLANK)["blank"] > 0.06)


def test_words_say_when_the_last_value_was_where_none_lies_in_the_time_shown(unplugged: Any) -> None:
    page = unplugged
    page.tab.select_option("[aria-label='Time shown']", "10")
    try:
        page.tab.wait_for_selector(
            "#plots .waiting:has-text('No value of meter.power in the time shown')", timeout=15_000
        )
        page.tab.select_option("[aria-label='Time shown']", "60")
        page.tab.wait_for_selector("#plots .waiting", state="hidden")
    finally:
        page.tab.select_option("[aria-label='Time shown']", "30")
