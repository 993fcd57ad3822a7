"""Messages: on a screen with little room they lie upon nothing that is pressed, and those of a view go with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [
    pytest.mark.browser,
    pytest.mark.serial,
    pytest.mark.alone("a browser draws on all of the machine"),
]
IDLE = pytest.mark.leaks_fd("the browser's connection for requests, which the server closes when it was idle for 5 s")
LONG = "a refusal that names what was asked for, what the limits are, and that nothing was sent anywhere " * 2
UNDER = """
() => {
  const under = [];
  const stop = document.getElementById("stop-all").getBoundingClientRect();
  const floor = stop.top > innerHeight / 2 ? stop.top : innerHeight;
  for (const one of document.querySelectorAll("main button, main summary, .drawer button, #stop-all")) {
    if (!one.checkVisibility()) continue;
    const scrolled = one.closest(".drawer") ?? document.documentElement;
    if (one.id !== "stop-all") scrolled.scrollBy(0, one.getBoundingClientRect().bottom - floor + 12);
    const box = one.getBoundingClientRect();
    const there = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
    if (there?.closest("#toasts")) under.push(one.textContent || one.id);
  }
  scrollTo(0, 0);
  return under;
}
"""


def say(page: Any, title: str, **how: Any) -> None:
    page.tab.evaluate(
        "async ([title, text, how]) => (await import('/toasts.js')).toast(title, text, 'bad', how)", [title, LONG, how]
    )
    page.toast(title)


@pytest.fixture
def phone(page: Any) -> Iterator[Any]:
    """The page on a phone, and as it was afterwards."""
    page.lab.reset_stop("a test")
    page.tab.set_viewport_size({"width": 390, "height": 844})
    yield page
    page.js("document.getElementById('toasts').replaceChildren()")
    page.js("document.querySelector('#panel .close')?.click()")
    page.tab.click("[data-view=live]")
    page.tab.set_viewport_size({"width": 1440, "height": 900})


@IDLE
def test_on_a_phone_messages_lie_upon_no_button_of_a_scan_that_is_refused_while_another_runs(phone: Any) -> None:
    phone.tab.click("[data-view=scans]")
    phone.tab.click("#view-scans summary")
    wish = '{"axes": [{"axis": "stage.x", "start": 3.2, "stop": 3.3, "points": 2}], "read": ["meter"], "settle_s": 30}'
    begin = (
        f"fetch('/api/scans', {{ method: 'POST', headers: {{ 'content-type': 'application/json' }}, body: '{wish}' }})"
    )
    number = phone.js(f"{begin}.then(a => a.json())")["number"]
    card = f"#view-scans [data-scan='{number}']"
    try:
        phone.tab.wait_for_selector(f"{card} button:text-is('Abort')")
        say(phone, "No scan has begun", of="scans")
        say(phone, "stage: move x refused")
        assert phone.tab.evaluate(UNDER) == []
        assert phone.js("document.getElementById('toasts').getBoundingClientRect().height") < 844 / 3
        phone.tab.click(f"{card} button:text-is('Abort')")
        phone.tab.wait_for_selector(f"{card}[data-state=aborted]")
    finally:
        phone.tab.click("#view-scans summary")
        phone.js(
            f"fetch('/api/scans/{number}').then(a => a.json())"
            f".then(one => one.ended_ns === null && fetch('/api/scans/{number}/abort', {{ method: 'POST' }}))"
        )


def test_on_a_phone_messages_lie_upon_no_button_of_a_panel(phone: Any) -> None:
    phone.panel("stage")
    say(phone, "stage: move x refused")
    assert phone.tab.evaluate(UNDER) == []


def test_beside_a_panel_messages_lie_upon_nothing_of_it(page: Any) -> None:
    page.panel("stage")
    say(page, "stage: move x refused")
    edge = page.js("document.getElementById('toasts').getBoundingClientRect().right")
    assert edge <= page.js("document.getElementById('panel').getBoundingClientRect().left")
    page.js("document.getElementById('toasts').replaceChildren()")
    page.js("document.querySelector('#panel .close').click()")


@IDLE
def test_a_message_of_a_view_goes_with_it_and_one_of_the_lab_stays(page: Any) -> None:
    page.tab.click("[data-view=migration]")
    say(page, "meter: refused", stays=True, of="migration")
    say(page, "NOT STOPPED", stays=True)
    page.tab.click("[data-view=log]")
    page.tab.wait_for_selector(".toast:has-text('meter: refused')", state="detached")
    assert page.tab.query_selector_all(".toast:has-text('NOT STOPPED')")
    page.js("document.getElementById('toasts').replaceChildren()")
    page.tab.click("[data-view=live]")
