"""What is always in sight: nothing of the header lies over anything else of it, on whatever screen."""

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
PARTS = """
() => {
  const shown = [];
  const part = (name, one, words = false) => {
    if (!one.checkVisibility()) return;
    const range = document.createRange();
    range.selectNodeContents(one);
    const box = words ? range.getBoundingClientRect() : one.getBoundingClientRect();
    let [left, top, right, bottom] = [box.left, box.top, box.right, box.bottom];
    for (let at = words ? one : one.parentElement; at && at !== document.body; at = at.parentElement) {
      if (getComputedStyle(at).overflowX === "visible") continue;
      const around = at.getBoundingClientRect();
      [left, right] = [Math.max(left, around.left), Math.min(right, around.right)];
    }
    const lines = new Set([...range.getClientRects()].filter((r) => r.width).map((r) => Math.round(r.bottom / 6)));
    const cut = one.scrollWidth > one.clientWidth + 1;
    if (right > left) shown.push({ name, left, top, right, bottom, lines: lines.size, cut });
  };
  const $ = (id) => document.getElementById(id);
  part("stop", $("stop-all"));
  part("lab", $("lab-name"), true);
  part("line", $("lab-line"), true);
  for (const one of $("runtimes").children) part(`runtime ${one.dataset.runtime}`, one);
  for (const one of $("views").children) part(`view ${one.dataset.view}`, one);
  part("record", $("record"));
  part("theme", $("theme"));
  return shown;
}
"""


def overlaps(parts: list[dict[str, Any]]) -> list[str]:
    pairs = [(one, other) for n, one in enumerate(parts) for other in parts[n + 1 :]]
    return [f"{a['name']} over {b['name']}" for a, b in pairs if _across(a, b) > 0.5 and _down(a, b) > 0.5]


def _across(a: dict[str, Any], b: dict[str, Any]) -> float:
    return min(a["right"], b["right"]) - max(a["left"], b["left"])


def _down(a: dict[str, Any], b: dict[str, Any]) -> float:
    return min(a["bottom"], b["bottom"]) - max(a["top"], b["top"])


@pytest.fixture(scope="module", params=[False, True], ids=["ringing", "ringing and recording"])
def shown(request: pytest.FixtureRequest, page: Any) -> Iterator[Any]:
    """The page while an alarm is raised, and as it was afterwards."""
    page.lab.reset_stop("a test")
    page.lab.stage.x.move(3.25)
    page.lab.stage.x.move(2.75)
    page.tab.wait_for_selector("#banner-alarms [data-alarm=close]")
    if request.param:
        page.tab.click("#record")
        page.tab.wait_for_selector("#record.recording")
    yield page
    page.tab.set_viewport_size({"width": 1440, "height": 900})
    if request.param:
        page.tab.click("#record")
        page.toast("Recorded")
        page.js("document.getElementById('toasts').replaceChildren()")
    page.lab.stage.x.move(3.25)
    page.tab.wait_for_selector("#banner-alarms", state="hidden")


@IDLE
@pytest.mark.parametrize("width", [1440, 1366, 1200, 1024, 768, 390])
def test_nothing_in_the_header_lies_over_anything_else(shown: Any, width: int) -> None:
    shown.tab.set_viewport_size({"width": width, "height": 844})
    assert shown.tab.is_visible("#banner-alarms")
    parts = shown.tab.evaluate(PARTS)
    assert overlaps(parts) == []
    seen = {part["name"]: part for part in parts}
    assert {"stop", "lab", "line", "record", "theme"} <= set(seen)
    assert all(part["left"] >= 0 and part["right"] <= width for part in parts)
    assert not seen["lab"]["cut"], "its name is what tells one lab from another"
    assert seen["stop"]["lines"] == 1
    shown.until(lambda: shown.js("document.documentElement.scrollWidth") <= width)  # plots follow a frame behind
