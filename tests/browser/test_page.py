"""The page, in a browser, over the demonstration's instruments: what a person sees and does there."""

from __future__ import annotations

import importlib
import re
import time
from typing import Any

import pytest

pytestmark = [
    pytest.mark.browser,
    pytest.mark.serial,
    pytest.mark.alone("a stop is timed from the click, and a browser draws on all of the machine"),
]
HELLO = "document.querySelectorAll('.instrument').length === 6"
IDLE = pytest.mark.leaks_fd("the browser's connection for requests, which the server closes when it was idle for 5 s")
MANY = """
const name = (n) => `the_pump_that_cools_the_second_amplifier_of_the_laser_${n}`;
const many = Array.from({ length: 50 }, (_, n) => ({ id: name(n), driver: "a:B", runtime: "v2" }));
import("/instruments.js").then((m) => m.build(document.getElementById("instruments"), many, () => {}));
"""


def test_both_runtimes_and_every_instrument_with_its_worker_and_values_are_seen(page: Any) -> None:
    assert [page.tab.inner_text(f"[data-runtime={name}]").split() for name in ("v2", "v4")] == [
        ["V2", "running"],
        ["V4", "running"],
    ]
    cards = {card.get_attribute("data-instrument"): card for card in page.tab.query_selector_all(".instrument")}
    assert list(cards) == ["dmm", "meter", "shutter", "stage", "camera", "spectrometer"]
    page.until(lambda: re.search(r"reference\s+2\.\d+.V", cards["dmm"].inner_text()))
    page.until(lambda: re.search(r"power\s+-?[\d.]+.[nµm]?W", cards["meter"].inner_text()))
    assert "HP34401A · v2-process (process " in cards["dmm"].inner_text()
    assert "Esp300 · v4-inline (inline) · port stage" in cards["stage"].inner_text()
    page.tab.click("[data-view=ports]")
    shown = page.tab.inner_text("#view-ports")
    page.tab.click("[data-view=live]")
    assert all(name in shown for name in ("v2-process", "v4.camera", "meter.power", "balanced", "127.0.0.1:"))


@IDLE
def test_page_opens_with_a_past_and_every_curve_has_its_name_its_colour_and_its_unit(page: Any) -> None:
    page.tab.reload()
    page.until(lambda: page.js(HELLO))
    page.until(lambda: page.js("duodaq.plots.past_s > performance.now() / 1000 + 0.1"))  # from before it was opened
    curves = page.tab.query_selector_all("#plots [data-curve]")
    names = [curve.get_attribute("data-curve") for curve in curves]
    assert sorted(names) == ["dmm.reference", "meter.power", "stage.x.position"]
    units = "[...document.querySelectorAll('#plots .group')].map(g => [g.dataset.unit, g.innerText.split(/\\s/)[0]])"
    assert page.js(units) == [["V", "dmm.reference"], ["W", "meter.power"], ["mm", "stage.x.position"]]
    marks = [curve.evaluate("one => getComputedStyle(one).getPropertyValue('--mark')") for curve in curves]
    chips = [
        page.js(f"document.querySelector('[data-stream=\"{name}\"]').style.getPropertyValue('--mark')")
        for name in names
    ]
    assert len(set(chips)) == 3
    assert [
        page.js(f"getComputedStyle(document.documentElement).getPropertyValue('{c[4:-1]}')") for c in chips
    ] == marks


def test_a_curve_whose_unit_changes_begins_anew(page: Any) -> None:
    found = page.js("""(async () => {
        const { curveOf, take } = await import('/curves.js');
        take('a.power', 'W', [1000, 2000], [0.001, 0.002], false);
        take('a.power', 'dBm', [3000], [3], false);
        const { unit, end, v } = curveOf('a.power');
        return [unit, Array.from(v.subarray(0, end))];
    })()""")
    assert found == ["dBm", [3]]


def test_a_spectrum_is_drawn_over_its_own_axis(page: Any) -> None:
    page.until(lambda: page.js("duodaq.traces.drawn > 1"))
    shown = "document.querySelector('#traces .plot').getAttribute('aria-label')"
    assert page.js(shown) == "spectrometer.lamp in mW over nm"


def test_plots_move(page: Any) -> None:
    picture = "document.querySelector('#plots canvas').toDataURL()"
    before, updates = page.js(picture), page.js("duodaq.plots.updates")
    page.until(lambda: page.js("duodaq.plots.updates") > updates + 5 and page.js(picture) != before)


def test_plots_stand_still_when_paused_and_go_on(page: Any) -> None:
    page.tab.click("#pause")
    page.tab.wait_for_timeout(150)
    still = page.js("document.querySelector('#plots canvas').toDataURL()")
    page.tab.wait_for_timeout(400)
    assert page.js("document.querySelector('#plots canvas').toDataURL()") == still
    page.tab.click("#pause")
    page.until(lambda: page.js("document.querySelector('#plots canvas').toDataURL()") != still)


def test_camera_image_changes(page: Any) -> None:
    picture = "document.getElementById('image').toDataURL()"
    before = page.js(picture)
    page.until(lambda: page.js(picture) != before)
    assert page.js("[document.getElementById('image').width, document.getElementById('image').height]") == [256, 256]


def test_a_line_over_the_image_has_its_profile(page: Any) -> None:
    page.tab.click("[data-tool=line]")
    page.js("document.querySelector('#camera .over').scrollIntoView({ block: 'center' })")
    box = page.tab.query_selector("#camera .over").bounding_box()
    page.tab.mouse.move(box["x"] + 20, box["y"] + 120)
    page.tab.mouse.down()
    page.tab.mouse.move(box["x"] + 120, box["y"] + 190)
    page.tab.mouse.up()
    page.tab.wait_for_selector("[aria-label='Line profile']:not([hidden])")
    page.tab.click("[data-tool=look]")
    page.tab.wait_for_selector("[aria-label='Line profile']", state="hidden")


def test_panel_of_a_shutter_says_whether_it_is_open(page: Any) -> None:
    page.panel("shutter")
    page.tab.wait_for_selector("[data-shutter=shutter]:text-is('open')")
    page.tab.click("#panel button:text-is('Close')")
    page.tab.wait_for_selector("[data-shutter=shutter]:text-is('closed')")
    assert page.lab.shutter.call("is_open") is False
    page.tab.click("#panel button:text-is('Open')")
    page.tab.wait_for_selector("[data-shutter=shutter]:text-is('open')")


def test_move_from_the_panel_arrives_at_the_simulator(page: Any) -> None:
    page.move_to("3.25")
    page.until(lambda: abs(page.position_mm() - 3.25) < 0.001 and not page.is_moving())
    page.until(lambda: page.tab.inner_text("#panel [data-axis=x]").startswith("3.2500"))
    page.until(lambda: page.tab.inner_text("#panel [data-setpoint=x]").split() == ["3.2500", "mm,", "reached"])
    assert "3.2500" in page.tab.inner_text("[data-instrument=stage] [data-channel='x.position']")


def test_alarm_appears_is_acknowledged_with_a_name_and_goes_when_all_is_well(page: Any) -> None:
    page.lab.stage.x.move(3.25)
    page.tab.wait_for_selector("#banner-alarms", state="hidden")
    page.lab.stage.x.move(2.75)
    line = page.tab.wait_for_selector("#banner-alarms [data-alarm=close]").inner_text()
    assert "below 3 mm" in line
    assert "mind the lens" in line
    page.tab.click("[data-view=alarms]")
    card = page.tab.query_selector("#view-alarms [data-alarm=close]")
    assert card.query_selector(".chip").inner_text() == "raised"
    page.until(lambda: card.query_selector(".big").inner_text().split() == ["2.7500", "mm"])
    page.js("localStorage.removeItem('duodaq-name')")
    page.tab.click("#banner-alarms button")
    page.tab.fill("#ask input", "Ada")
    page.tab.click("#ask button.main")
    page.tab.wait_for_selector("#banner-alarms", state="hidden")
    assert card.query_selector(".chip").inner_text() == "acknowledged"
    assert "Ada (page (127.0.0.1))" in card.inner_text()
    assert not card.query_selector("button").is_visible()
    assert page.lab.alarms["close"].by == "Ada (page (127.0.0.1))"
    page.lab.stage.x.move(3.25)
    page.until(lambda: card.query_selector(".chip").inner_text() == "normal")
    page.tab.click("[data-view=live]")


def test_move_beyond_its_limits_is_refused_with_a_reason_and_nothing_moves(page: Any) -> None:
    before = page.position_mm()
    page.move_to("25.5")
    said = page.toast("stage: move x refused")
    assert "25.5" in said
    assert "25" in said.replace("25.5", "")
    page.tab.fill("[data-target=x]", "25.5")
    page.tab.press("[data-target=x]", "Enter")
    page.tab.wait_for_selector(".toast em:not([hidden])")
    assert len(page.tab.query_selector_all(".toast")) == 1
    assert page.position_mm() == before
    assert not page.is_moving()
    stands = f"{before:.4f} mm, where it stands"
    page.until(lambda: " ".join(page.tab.inner_text("#panel [data-setpoint=x]").split()) == stands)
    assert float(page.tab.input_value("[data-target=x]")) == pytest.approx(before, abs=1e-4)


def test_setting_from_the_panel_reaches_the_camera(page: Any) -> None:
    page.panel("camera")
    page.tab.fill("[data-setting=exposure_s]", "0.03")
    page.tab.press("[data-setting=exposure_s]", "Enter")
    page.until(lambda: page.lab.camera.get("exposure_s") == 0.03)


def test_stop_all_stops_the_axis_within_200_ms_and_its_reset_is_confirmed(page: Any) -> None:
    page.move_to("20")
    page.until(page.is_moving)
    began_ns = time.time_ns()
    page.js("document.getElementById('stop-all').click()")
    page.until(lambda: not page.is_moving(), 5.0)
    took_s = (time.time_ns() - began_ns) / 1e9
    assert page.position_mm() < 19
    assert took_s < 0.2
    said = page.toast("Stopped in")
    assert "The stop is on the wire of shutter and stage." in said
    assert "Without a fail-safe: spectrometer and camera." in said
    page.until(lambda: "on the wire of shutter and stage" in page.tab.inner_text("#banner-latched"))
    page.move_to("2")
    assert "latched" in page.toast("stage: move x refused")
    moving = ["Move", "Step back", "Step on", "Home"]
    page.until(lambda: not any(page.can(one) for one in moving))
    assert page.can("Stop"), "whoever stops is never kept from it"
    page.panel("shutter")
    page.until(lambda: not page.can("Open"))
    assert page.can("Close")
    page.panel("stage")
    page.tab.click("#reset-stop")
    page.tab.click("#stop-all")  # a question on the page does not stand before it
    page.toast("Stopped in")
    page.js("document.getElementById('toasts').replaceChildren()")
    page.tab.wait_for_selector("#ask", state="hidden")
    page.tab.click("#reset-stop")
    page.tab.press("#ask input", "Control+.")
    page.toast("Stopped in")
    page.tab.wait_for_selector("#ask", state="hidden")  # what was asked of the stop before is asked again
    assert page.lab.status()["latched"]
    page.tab.click("#reset-stop")
    page.tab.fill("#ask input", "Ada")
    page.tab.click("#ask button.main")
    page.tab.wait_for_selector("#banner-latched", state="hidden")
    assert not page.lab.status()["latched"]
    page.until(lambda: all(page.can(one) for one in moving))
    page.tab.click("#camera .waiting button:text-is('Start')")
    page.tab.wait_for_selector("#camera .waiting", state="hidden")
    page.lab.shutter.call("open")


@IDLE
def test_recording_is_started_ended_and_listed(page: Any) -> None:
    page.tab.click("#record")
    page.tab.wait_for_selector("#record.recording")
    page.tab.click("#record")
    assert "complete" in page.toast("Recorded")
    page.tab.click("[data-view=runs]")
    page.tab.wait_for_selector("#view-runs td:has-text('finished')")
    page.tab.click("[data-view=live]")


def test_an_instrument_is_shadowed_moved_by_name_and_moved_back_and_a_refusal_says_why(page: Any) -> None:
    meter, dialog = "[data-moving=meter]", "#ask"
    page.tab.click("[data-view=migration]")
    assert page.tab.wait_for_selector(meter).get_attribute("data-stage") == "v2"
    assert "no codec" in page.tab.inner_text("#view-migration > p"), "why a shutter has no way to V4"
    page.tab.click(f"{meter} [data-do=shadow]")
    page.tab.wait_for_selector(f"{meter}[data-stage=shadow]")
    page.until(lambda: re.search(r"of them the same\s+[1-9]", page.tab.inner_text(f"{meter} .found")))
    assert "ITS SHADOW, NOW: NOTHING DIFFERS" in page.tab.inner_text(f"{meter} .found").upper()
    dmm = "[data-moving=dmm]"
    page.tab.click(f"{dmm} [data-tick=config]")  # V4 has no name for its nplc
    page.tab.fill(f"{dialog} input", "Ada")
    page.tab.click(f"{dialog} button.main")
    page.tab.wait_for_selector(f"{dmm} [data-item=config].met:has-text('Ada')")
    page.tab.wait_for_selector(f"{meter} [data-item=config].met")
    page.tab.click(f"{meter} [data-do=cutover]")
    assert "not met. shadow: the shadow" in page.tab.inner_text(dialog)
    page.tab.fill(f"{dialog} input", "Ada")
    page.tab.click(f"{dialog} button.main")
    page.tab.wait_for_selector(f"{meter}[data-stage=v4]")
    assert (page.lab.meter.runtime, page.lab.migrate("status", "meter")[0]["stage"]) == ("v4", "v4")
    page.tab.wait_for_selector(f"{meter}:has-text('although: shadow: the shadow')")
    page.tab.wait_for_selector("[data-instrument=meter] .chip.v4", state="attached")  # every other view knows, too
    report = page.js("fetch('/api/migration/meter/report').then(a => a.text())")
    assert report.startswith("# Shadow of meter: within tolerance")
    page.lab.meter.control("Bert")
    page.tab.click(f"{meter} [data-do=rollback]")
    page.tab.click(f"{dialog} button.main")
    assert "Bert" in page.toast("meter: refused")
    page.lab.meter.release()
    page.tab.click(f"{meter} [data-do=rollback]")
    page.tab.fill(f"{dialog} [aria-label=Why]", "tea")
    page.tab.click(f"{dialog} button.main")
    page.tab.wait_for_selector(f"{meter}[data-stage=v2]:has-text('why tea')")
    page.js("document.getElementById('toasts').replaceChildren()")
    page.tab.click("[data-view=live]")


def test_log_is_shown_and_filtered(page: Any) -> None:
    page.tab.click("[data-view=log]")
    importlib.import_module("duodaq.telemetry").get_logger("web").warning("said in a test", instrument="stage")
    page.tab.wait_for_selector(".log .warning p:has-text('said in a test instrument=stage')")
    page.tab.fill("#view-log input", "no line has this")
    assert page.tab.inner_text(".log") == "No such lines."
    page.tab.fill("#view-log input", "")
    page.tab.click("[data-view=live]")


@IDLE
def test_page_fits_a_phone_with_stop_all_in_sight(page: Any) -> None:
    page.tab.set_viewport_size({"width": 390, "height": 844})
    page.js("document.querySelector('#panel .close')?.click()")
    page.js("scrollTo(0, document.body.scrollHeight)")
    assert page.js("document.documentElement.scrollWidth") <= 390
    box = page.tab.query_selector("#stop-all").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert box["y"] + box["height"] <= 844
    page.js("scrollTo(0, 0)")
    page.tab.click("[data-view=log]")
    importlib.import_module("duodaq.telemetry").get_logger("web").warning("said on a phone", instrument="stage")
    page.tab.wait_for_selector(".log .warning p:has-text('said on a phone')")
    wide = "(() => { const t = document.querySelector('.log time'); return t.scrollWidth - t.clientWidth; })()"
    assert page.js(wide) <= 0  # a time ends before the words begin
    page.tab.click("[data-view=live]")
    page.js(MANY)
    assert page.js("document.documentElement.scrollWidth") <= 390
    page.tab.fill("#instruments input", "amplifier laser_7")
    assert page.js("[...document.querySelectorAll('.instrument:not([hidden])')].length") == 1
    page.tab.set_viewport_size({"width": 1440, "height": 900})
    page.tab.reload()
    page.until(lambda: page.js(HELLO))
    page.tab.press("body", "Tab")
    assert page.js("document.activeElement.id") == "stop-all"


@IDLE
@pytest.mark.leaks_thread("the new server has its thread for pictures from its first one on")
def test_page_says_that_it_is_lost_and_heals_when_the_server_is_back(page: Any) -> None:
    sane = list(page.errors)
    page.restart()
    page.tab.wait_for_selector("#banner-lost", state="hidden")
    rows, images = page.js("[duodaq.plots.updates, duodaq.camera.images]")
    page.until(lambda: page.js(f"duodaq.plots.updates > {rows} && duodaq.camera.images > {images}"))
    assert [error for error in page.errors if "ERR_CONNECTION" not in error] == sane
    page.errors[:] = sane


@IDLE
def test_page_asks_this_machine_alone_and_makes_no_errors(page: Any) -> None:
    page.tab.reload()
    page.until(lambda: page.js(HELLO))
    page.until(lambda: page.js("duodaq.camera.images > 0"))
    own = page.address.removeprefix("http://")
    assert {url for url in page.requests if re.sub(r"^(http|ws)://", "", url).find(own) != 0} == set()
    assert {url for url in page.requests if "/vendor/" in url}
    assert page.errors == []
