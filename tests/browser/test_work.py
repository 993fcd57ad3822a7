"""What several people do at the page over one lab: control, scans, presets, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [
    pytest.mark.browser,
    pytest.mark.serial,
    pytest.mark.alone("a browser draws on all of the machine"),
]
IDLE = pytest.mark.leaks_fd("the browser's connection for requests, which the server closes when it was idle for 5 s")
ANOTHER = """
async ([name, target, body]) => {
  const own = (globalThis.another ??= await new Promise((done) => {
    const socket = new WebSocket(`ws://${location.host}/api/live`);
    socket.onopen = () => done(socket);
  }));
  const id = Math.floor(Math.random() * 1e9);
  const answer = new Promise((done) => own.addEventListener("message", function heard({ data }) {
    const said = JSON.parse(data);
    if (said.id === id) { own.removeEventListener("message", heard); done(said); }
  }));
  own.send(JSON.stringify({ type: "do", id, name, target, body }));
  return await answer;
}
"""
"""A second page, as far as the lab can tell: a live connection of its own."""


def another(page: Any, action: str, target: str, /, **body: Any) -> dict[str, Any]:
    return page.tab.evaluate(ANOTHER, [action, target, body])


def test_what_a_latched_stop_refuses_cannot_be_pressed_and_says_why(page: Any) -> None:
    page.panel("spectrometer")
    refused = ["[aria-label='Set gain']", "[data-operation=calibrate]"]
    free = ["[aria-label='Set averages']", "[data-operation=spectrum]"]
    assert all(page.tab.is_enabled(f"#panel {one}") for one in refused + free)
    page.lab.stop_all()
    page.tab.wait_for_selector("#banner-latched:not([hidden])")
    did = "The stop is on the wire of shutter and stage."
    page.until(lambda: did in page.tab.inner_text("#banner-latched"))  # although no page has asked for it
    assert "dmm and meter: nothing was sent: it neither moves nor emits." in page.tab.inner_text("#banner-latched")
    assert "Without a fail-safe: spectrometer and camera." in page.tab.inner_text("#banner-latched")
    page.until(lambda: not any(page.tab.is_enabled(f"#panel {one}") for one in refused))
    assert {page.tab.get_attribute(f"#panel {one}", "title") for one in refused} == {
        "Stopped: refused until the reset."
    }
    assert all(page.tab.is_enabled(f"#panel {one}") for one in free)
    page.tab.fill("#panel [data-setting=gain]", "2")
    page.tab.press("#panel [data-setting=gain]", "Enter")
    assert "latched" in page.toast("spectrometer: set gain refused")
    page.lab.reset_stop("a test")
    page.until(lambda: all(page.tab.is_enabled(f"#panel {one}") for one in refused))
    assert page.tab.get_attribute(f"#panel {refused[0]}", "title") != "Stopped: refused until the reset."
    page.lab.shutter.call("open")


def test_a_field_of_a_setting_has_all_of_its_digits_and_sends_what_it_shows(page: Any) -> None:
    page.lab.spectrometer.set("gain", 80123456.789)
    page.panel("spectrometer")
    field = "#panel [data-setting=gain]"
    page.until(lambda: page.tab.input_value(field).startswith("8012345"))
    assert page.tab.input_value(field) == "80123456.789"
    page.tab.press(field, "Enter")
    page.toast("spectrometer: gain")
    assert page.tab.input_value(field) == "80123456.789"
    assert page.lab.spectrometer.get("gain") == 80123456.789
    page.lab.spectrometer.set("gain", 1.5)


def test_control_is_taken_shown_taken_over_after_a_question_and_let_go(page: Any) -> None:
    page.panel("spectrometer")
    holder = "#panel [data-holder=spectrometer]"
    page.until(lambda: page.tab.inner_text(holder).startswith("nobody"))
    assert another(page, "control", "spectrometer", who="Bob")["ok"]
    page.until(lambda: page.tab.inner_text(holder).startswith("Bob (page"))
    page.tab.fill("#panel [data-setting=averages]", "9")
    page.tab.press("#panel [data-setting=averages]", "Enter")
    assert "Bob" in page.toast("spectrometer: set averages refused")
    page.tab.click("#panel button:text-is('Take over …')")
    assert "Bob" in page.tab.inner_text("#ask")
    page.tab.fill("#ask input", "Ada")
    page.tab.click("#ask button.main")
    page.until(lambda: page.tab.inner_text(holder) == "you, as Ada")
    refused = another(page, "command", "spectrometer", kind="set", name="averages", value=3)
    assert not refused["ok"]
    assert "Ada" in refused["detail"]
    assert another(page, "control", "spectrometer", who="Bob", take_over=True)["ok"]
    assert "Bob" in page.toast("You have no control of spectrometer any more")
    assert another(page, "release", "spectrometer")["ok"]
    page.until(lambda: page.tab.inner_text(holder).startswith("nobody"))
    page.tab.click("#panel button:text-is('Take control')")
    page.tab.click("#ask button.main")
    page.until(lambda: page.lab.holders().get("spectrometer"))
    page.tab.click("#panel button:text-is('Let go')")
    page.until(lambda: not page.lab.holders().get("spectrometer"))
    page.js("globalThis.another.close()")


@IDLE
def test_a_preset_is_kept_compared_and_loaded(page: Any) -> None:
    page.lab.spectrometer.set("averages", 4)
    page.tab.click("[data-view=presets]")
    page.tab.fill("#view-presets [aria-label='Name of the preset']", "quiet")
    page.tab.click("#view-presets button.main")
    page.tab.wait_for_selector("#view-presets td:has-text('quiet')")
    page.lab.spectrometer.set("averages", 64)
    page.tab.click("#view-presets [aria-label='Load quiet']")
    row = " ".join(page.tab.inner_text("#ask tr:has-text('spectrometer.averages')").split())
    assert row == "spectrometer.averages 64 4 is set"
    assert page.lab.spectrometer.get("averages") == 64
    page.tab.click("#ask button.main")
    page.toast("quiet is loaded")
    assert page.lab.spectrometer.get("averages") == 4
    page.tab.click("#view-presets [aria-label='Remove quiet']")
    page.tab.click("#ask button.main")
    page.tab.wait_for_selector("#view-presets .empty")
    page.tab.click("[data-view=live]")


@IDLE
def test_a_scan_is_begun_watched_paused_and_aborted(page: Any) -> None:
    page.tab.click("[data-view=scans]")
    page.tab.click("#view-scans summary")
    for name, value in {"from": "1", "to": "26", "points": "50"}.items():
        page.tab.fill(f"#view-scans [aria-label={name}]", value)
    page.tab.click("#view-scans button[type=submit]")
    assert "outside the limits 0 … 25 mm" in page.toast("No scan has begun")
    page.tab.fill("#view-scans [aria-label=to]", "6")
    page.tab.click("#view-scans button[type=submit]")
    scan = page.tab.wait_for_selector("#view-scans [data-scan]:not([data-state=aborted])")
    page.until(lambda: "of 50 points" in scan.inner_text())
    assert page.tab.inner_text("[data-view=scans]") == "Scans 1"
    scan.query_selector("button:text-is('Pause')").click()
    page.until(lambda: scan.get_attribute("data-state") == "paused")
    assert "paused by" in scan.inner_text()
    scan.query_selector("button:text-is('Resume')").click()
    page.until(lambda: scan.get_attribute("data-state") == "running")
    scan.query_selector("button:text-is('Abort')").click()
    page.until(lambda: scan.get_attribute("data-state") == "aborted")
    assert "aborted by page" in scan.inner_text()
    assert not page.is_moving()
    page.tab.click("[data-view=live]")
