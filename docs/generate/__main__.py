"""Write anew what the documents say of the code: ``make reference``; with ``--check`` only say what is out of date.

A region of a document that begins with ``<!-- generated: WRITER WORDS -->`` and ends with ``<!-- end -->`` belongs to a
writer of this folder. All that stands outside of them is written by people and stays.
"""

from __future__ import annotations

import sys
import traceback

from regions import DOCS, rewritten


def main(*, check: bool) -> int:
    """1 if a document could not be written, or with `check` if one is out of date; all others are written."""
    wrong = 0
    for path in sorted(DOCS.rglob("*.md")):
        name, before = path.relative_to(DOCS.parent), path.read_text(encoding="utf-8")
        try:
            after = rewritten(before)
        except Exception as error:  # noqa: BLE001  # one writer that fails keeps no other document from being written
            traceback.print_exc()
            print(f"{name}: not written: {error}")
            wrong += 1
            continue
        if after == before:
            continue
        wrong += check
        if not check:
            path.write_text(after, encoding="utf-8")
        print(f"{name}: {'is out of date: make reference' if check else 'written'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
