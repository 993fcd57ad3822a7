from __future__ import annotations

import sys


def main() -> None:
    """The entry point; a stop-all goes past the parser of all other commands."""
    from duodaq.cli._stop_all import in_plain_words, stop_now

    if (asked := in_plain_words(sys.argv[1:])) is not None:
        sys.exit(stop_now(asked))
    from duodaq.cli._app import main as others

    others()
