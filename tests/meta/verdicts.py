"""Judges what it is asked to on stdin, one line of JSON each: ``[test, "--mode", …]``, as the command line takes it.

Each is judged by a process of its own, forked from this one, which has loaded all that they need and has no other
thread (Arrow's memory pool may have one, and forks as it should). The answer is a line of JSON, too: what the process
printed on stdout and on stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from typing import IO

from duodaq.testing import _nursery
from duodaq.testing.coexistence import __main__ as judge
from duodaq.testing.coexistence import load_sabotages

LIMIT_S = 120


def become_judge(arguments: list[str], out: IO[bytes], err: IO[bytes]) -> None:
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.argv = ["judge", *arguments]
    signal.alarm(LIMIT_S)  # whose signal ends it
    if _nursery.at_hand():
        _nursery.Nursery(begin=_nursery.forked).adopt()
    judge.main()


def main() -> None:
    load_sabotages()
    assert threading.active_count() == 1, "what a thread holds at a fork stays held for ever"
    for line in sys.stdin:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if not child:
                try:
                    become_judge(json.loads(line), out, err)
                finally:
                    os._exit(2)
            os.waitpid(child, 0)
            said = [file.seek(0) or file.read().decode(errors="replace") for file in (out, err)]
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
