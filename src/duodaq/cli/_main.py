from __future__ import annotations

import contextlib
import io
import os
import sys


def main() -> None:
    """The entry point; a stop-all goes past the parser of all other commands."""
    _fill_closed_streams()
    from duodaq.cli._stop_all import in_plain_words, stop_now

    if (asked := in_plain_words(sys.argv[1:])) is not None:
        sys.exit(stop_now(asked))
    from duodaq.cli._app import main as others

    others()


def _fill_closed_streams() -> None:
    """Put the null device where a standard stream was closed, or the next port that is opened gets its number, and what
    is said to nobody goes to an instrument.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "r" if number == 0 else "w", closefd=False)))
