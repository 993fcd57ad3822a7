"""What looks through the built site finds what it is there for."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def check_site(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
    return importlib.import_module("check_site")


SOUND = '<h1 id="top">A</h1><a href="b.html#there">b</a><a href="#top">up</a><a href="https://example.org/">out</a>'


def site(folder: Path, more: str = "", style: str = "") -> Path:
    (folder / "a.html").write_text(SOUND + more, encoding="utf-8")
    (folder / "b.html").write_text('<p id="there">B</p>', encoding="utf-8")
    (folder / "site.css").write_text(f"p {{ {style} }} /* https://example.org is only named */", encoding="utf-8")
    return folder


def test_a_sound_site_has_no_faults_and_its_outside_links_are_listed(check_site: Any, tmp_path: Path) -> None:
    assert check_site.faults_of(site(tmp_path)) == ([], {"https://example.org/"})


@pytest.mark.parametrize(
    "more",
    [
        '<a href="c.html">no such page</a>',
        '<a href="b.html#nowhere">no such place</a>',
        '<a href="#nowhere">nor here</a>',
        '<script src="https://cdn.example.org/x.js"></script>',
        '<link rel="stylesheet" href="//cdn.example.org/x.css">',
        '<img src="missing.png">',
    ],
)
def test_what_leads_nowhere_or_loads_from_elsewhere_is_a_fault(check_site: Any, tmp_path: Path, more: str) -> None:
    faults, _ = check_site.faults_of(site(tmp_path, more))
    assert len(faults) == 1


def test_a_style_that_loads_from_elsewhere_is_a_fault(check_site: Any, tmp_path: Path) -> None:
    faults, _ = check_site.faults_of(site(tmp_path, style="src: url('https://fonts.example.org/f.woff2');"))
    assert faults == ["site.css: loads url('https://fonts.example.org/f.woff2"]
