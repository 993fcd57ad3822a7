"""What cards, panels and plots say: what is there and no more, in words and units that a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [
    pytest.mark.browser,
    pytest.mark.serial,
    pytest.mark.alone("a browser draws on all of the machine"),
]
LOST = """
async () => {
  const { hear, labTime, present } = await import("/moment.js");
  const alarms = await import("/alarms.js");
  const now = structuredClone(present());
  now.instruments.stage.state = "error";
  const then = labTime();
  hear(now, then + 200000);
  alarms.moved(now.alarms);
  const card = document.querySelector("#view-alarms [data-alarm=close]");
  const said = [card.classList.contains("stale"), card.textContent];
  hear(now, then);
  return said;
}
"""
WRITTEN = """
async () => {
  const written = [];
  const fill = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...where) {
    if (this.canvas.closest("#plots")) written.push(text);
    return fill.call(this, text, ...where);
  };
  const { curveOf, take } = await import("/curves.js");
  const { t, end } = curveOf("meter.power");
  const ms = 1000 * t[end - 1];
  take("meter.power", "W", [ms + 1, ms + 2], [0.0021, 0.002], false);
  await new Promise((done) => setTimeout(done, 800));
  CanvasRenderingContext2D.prototype.fillText = fill;
  return written;
}
"""
CUT = """
() => [...document.querySelectorAll("#panel .op input[placeholder]")].filter((one) => {
  const style = getComputedStyle(one);
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = style.font;
  return pen.measureText(one.placeholder).width > one.clientWidth - parseFloat(style.paddingLeft) * 2 + 1;
}).map((one) => one.placeholder)
"""
TOPS = """
() => [...document.querySelectorAll(".instrument")].map((one) => {
  return Math.round(one.firstElementChild.getBoundingClientRect().top - one.getBoundingClientRect().top);
})
"""


@pytest.fixture
def phone(page: Any) -> Iterator[Any]:
    page.tab.set_viewport_size({"width": 390, "height": 844})
    yield page
    page.tab.set_viewport_size({"width": 1440, "height": 900})


def test_an_axis_has_buttons_for_the_motions_of_its_class_and_no_state_that_nobody_tells(page: Any) -> None:
    page.panel("spectrometer")
    page.tab.wait_for_selector("#panel [aria-label='Axis grating'] button:text-is('Move')")
    found = [one.inner_text() for one in page.tab.query_selector_all("#panel [aria-label='Axis grating'] button")]
    assert found == ["Move", "Stop"]
    assert page.tab.is_hidden("#panel [aria-label='Axis grating'] .chip")
    operations = [one.inner_text() for one in page.tab.query_selector_all("#panel [data-operation]")]
    assert operations == ["calibrate", "spectrum"]
    page.panel("stage")
    page.tab.wait_for_selector("#panel [aria-label='Axis x'] .chip:text-is('idle')")
    assert page.can("Home")
    assert page.can("Step on")


def test_a_velocity_that_nobody_told_has_no_row(page: Any) -> None:
    page.panel("stage")
    row = "#panel [data-setting='x.velocity']"
    page.tab.wait_for_selector(row, state="attached")
    if not any((one["instrument"], one["name"]) == ("stage", "x.velocity") for one in page.lab.parameters()):
        page.tab.wait_for_selector(row, state="hidden")
    page.lab.stage.get("x.velocity")
    page.tab.wait_for_selector(row, state="visible")


@pytest.mark.parametrize("instrument", ["stage", "spectrometer"])
def test_words_in_the_fields_of_operations_are_whole(page: Any, instrument: str) -> None:
    page.panel(instrument)
    page.tab.wait_for_selector("#panel [data-operation]", state="attached")
    page.js("document.querySelectorAll('#panel details').forEach((one) => { one.open = true; })")
    assert page.js("document.querySelectorAll('#panel .op input[placeholder]').length") > 0
    assert page.tab.evaluate(CUT) == []
    page.tab.click("#panel .close")


def test_what_v4_alone_knew_of_an_instrument_is_gone_from_its_card_when_v2_has_it_again(page: Any) -> None:
    row = "[data-instrument=meter] [data-channel=wavelength_nm]"
    assert not page.tab.query_selector_all(row)
    page.lab.migrate("cutover", "meter", by="Ada", force=True)
    try:
        page.tab.wait_for_selector(row)
    finally:
        page.lab.migrate("rollback", "meter", by="Ada", why="a test")
    page.tab.wait_for_selector("[data-instrument=meter] .chip.v2")
    page.tab.wait_for_selector(row, state="detached")
    page.tab.wait_for_selector("[data-instrument=meter] [data-channel=power]:not(.stale)")
    page.tab.wait_for_timeout(1500)  # nothing brings it back
    assert not page.tab.query_selector_all(row)


def test_the_value_of_an_alarm_whose_instrument_is_lost_says_how_old_it_is(page: Any) -> None:
    page.tab.wait_for_selector("#view-alarms [data-alarm=close]", state="attached")
    page.until(lambda: "stale" not in page.tab.get_attribute("#view-alarms [data-alarm=close]", "class"))
    stale, text = page.tab.evaluate(LOST)
    assert stale
    assert "old: 3 min ago, at " in text


def test_the_title_of_an_axis_has_the_unit_of_its_ticks(page: Any) -> None:
    written = page.tab.evaluate(WRITTEN)
    assert "meter.power, mW" in written
    assert any(text.endswith("\u202fmW") for text in written)


def test_degrees_are_written_as_people_write_them(page: Any) -> None:
    said = page.js("""(async () => {
        const { neat, said, saidOf, unitSaid } = await import('/format.js');
        return [neat(28, 'degC'), said(22.5, 'degC'), saidOf('a.position', 22, 'degC'), unitSaid('deg'), unitSaid('V')];
    })()""")
    assert said == ["28\u202f°C", "22.500\u202f°C", "22.0000\u202f°C", "deg", "V"]


def test_on_a_phone_cards_beside_a_taller_one_begin_at_their_top(phone: Any) -> None:
    tops = phone.tab.evaluate(TOPS)
    assert len(tops) == 6
    assert len(set(tops)) == 1


def test_on_a_phone_a_table_that_goes_on_throws_a_shadow_at_its_edge(phone: Any) -> None:
    phone.tab.click("[data-view=ports]")
    phone.tab.wait_for_selector("#view-ports .scroll")
    assert phone.js(
        "(() => { const s = document.querySelector('#view-ports .scroll'); return s.scrollWidth > s.clientWidth; })()"
    )
    style = phone.js("getComputedStyle(document.querySelector('#view-ports .scroll')).backgroundAttachment")
    assert style.split(", ") == ["local", "local", "scroll", "scroll"]
    phone.tab.click("[data-view=live]")
