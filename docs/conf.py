"""How the documents become a site (`make docs`). They are Markdown that reads as well in the repository itself."""

from __future__ import annotations

import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

project = "duodaq"
release = version = version_of("duodaq")
extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["generate"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = "duodaq"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_show_search_summary = False  # would fetch pages, which a browser refuses where the site is read from files
html_static_path = ["site"]
html_css_files = ["duodaq.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6e6e", "color-brand-content": "#0b6e6e"},
    "dark_css_variables": {"color-brand-primary": "#5cc8c0", "color-brand-content": "#5cc8c0"},
}
copybutton_prompt_text = "$ "

README = re.compile(r"\]\((\.\./)+README\.md")
"""Links to the README, which is a page of the site by another name."""
CONTENTS = {
    "": ["about"],
    "Tutorials": ["tutorials/first-lab", "tutorials/your-driver"],
    "How to": "how-to/*",
    "Explanations": [
        "explanations/two-runtimes",
        "explanations/messages",
        "explanations/who-may-drop-data",
        "explanations/cutover",
        "explanations/shared-ports",
        "explanations/stopping",
        "explanations/isolation",
        "explanations/tour",
    ],
    "Reference": "reference/*",
    "Coexistence": [f"coexistence/{page}" for page in ("summary", "test-report", "test-index", "deliverables")],
    "Decisions": ["decisions/README", "decisions/*"],
}
"""What stands in the side bar; the documents themselves need no list of it. A page that no entry names is an error."""


def setup(app: Any) -> None:
    app.connect("source-read", _with_contents)


def _with_contents(app: Any, name: str, source: list[str]) -> None:
    source[0] = README.sub("](/about.md", source[0])
    if name == "index":
        there = {caption: pages for caption, pages in CONTENTS.items() if _is_there(pages)}
        source[0] += "".join(_tree(caption, pages) for caption, pages in there.items())


def _is_there(pages: str | list[str]) -> bool:
    """Whether there is anything to list: the pages of the coexistence tests are written by a run of them."""
    patterns = [pages] if isinstance(pages, str) else pages
    return any(True for pattern in patterns for _ in Path(__file__).parent.glob(f"{pattern}.md"))


def _tree(caption: str, pages: str | list[str]) -> str:
    listed = [pages] if isinstance(pages, str) else pages
    options = [
        ":hidden:",
        *([f":caption: {caption}"] if caption else []),
        *([":glob:"] if any("*" in page for page in listed) else []),
    ]
    return "\n".join(["", "```{toctree}", *options, "", *listed, "```", ""])
