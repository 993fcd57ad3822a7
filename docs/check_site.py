"""Look through the built site: every link within it leads somewhere, and no page loads anything from elsewhere.

Links to other sites are listed, not followed: `python docs/check_site.py build/docs/html`.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = re.compile(rb"""(?:url\(|@import\s+|import\(|from\s+|fetch\()\s*["']?(?:https?:)?//[^"')\s]+""")


class Page(HTMLParser):
    """What a page links to, what it loads, and which places in it others may link to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a":
            self.links.append(given.get("href", ""))
        else:
            self.loads += [given[name] for name in ("src", "href") if name in given]


def is_outside(target: str) -> bool:
    return bool(urlsplit(target).netloc)


def faults_of(site: Path) -> tuple[list[str], set[str]]:
    """What is wrong with the site, and which other sites it links to."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    faults: list[str] = []
    outside: set[str] = set()
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        outside |= {link for link in page.links if is_outside(link)}
        faults += [f"{name}: loads {target}" for target in page.loads if is_outside(target)]
        within = [link for link in (*page.links, *page.loads) if not urlsplit(link).scheme and not is_outside(link)]
        faults += [f"{name}: {link} leads nowhere" for link in within if not _leads(path, link, pages)]
    for file in (*site.rglob("*.css"), *site.rglob("*.js")):
        faults += [f"{file.relative_to(site)}: loads {found.decode()}" for found in LOADED.findall(file.read_bytes())]
    return faults, outside


def _leads(path: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if target not in pages:
        return target.is_file()
    return not parts.fragment or unquote(parts.fragment) in pages[target].places


def main(site: Path) -> int:
    faults, outside = faults_of(site)
    print(f"{len(outside)} links to other sites, not followed:", *sorted(outside), sep="\n  ")
    print(*faults, sep="\n", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
