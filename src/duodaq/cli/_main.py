from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import sys
from collections.abc import Callable

_LONG = {"demo": "duodaq.cli.demo._demo", "run": "duodaq.cli._run"}
"""Commands that load a lab, and where they are."""


def main() -> None:
    """The entry point; a stop-all goes past the parser of all other commands."""
    _fill_closed_streams()
    from duodaq.cli._stop_all import in_plain_words, stop_now

    if (asked := in_plain_words(sys.argv[1:])) is not None:
        sys.exit(stop_now(asked))
    others = _load(sys.argv[1:2])
    others()


def _load(command: list[str]) -> Callable[[], None]:
    """All other commands, and what a long one needs. What is loaded stays to the end: nothing of it is searched for
    what nobody refers to, now, in the lab's loop, or at the end, which takes a tenth of a second else.
    """
    gc.disable()
    try:
        from duodaq.cli._app import main as others

        if command and command[0] in _LONG:
            importlib.import_module(_LONG[command[0]])
    finally:
        gc.enable()
    gc.freeze()
    return others


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
