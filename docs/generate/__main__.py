"""Write anew what the documents say of the code: ``make reference``; with ``--check`` only say what is out of date.

A region of a document that begins with ``<!-- generated: WRITER WORDS -->`` and ends with ``<!-- end -->`` belongs to a
writer of this folder. All that stands outside of them is written by people and stays.
"""

from __future__ import annotations

import sys
from pathlib import Path

from regions import DOCS, rewritten


def main(arguments: list[str]) -> int:
    stale: list[Path] = []
    for path in sorted(DOCS.rglob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = rewritten(before)
        if after != before:
            stale.append(path)
            if "--check" not in arguments:
                path.write_text(after, encoding="utf-8")
    said = "is out of date: make reference" if "--check" in arguments else "written"
    for path in stale:
        print(f"{path.relative_to(DOCS.parent)}: {said}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
