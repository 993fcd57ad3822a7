"""The process in which the suite runs, and what it says line by line.

Rules for whoever edits this:

* It is in a session of its own: Ctrl-C at the terminal reaches this program alone, which ends it in order. It ends with
  its stdin, however this program ends, and so does every process below it.
* A test that says nothing for `SILENT_S` is given up: its process is killed and the next one goes on with the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Any

from duodaq.clock import Deadline

SUITE = "duodaq.testing.coexistence._suite"
SILENT_S = 90.0
"""A test has 60 s, and then some for what it leaves to end."""
ENDS_S = 15.0
_TAIL = 1500


class SilentError(Exception):
    """The process has said nothing for too long."""


class SuiteProcess:
    """One process of the suite, until it ends or is ended.

    Args:
        arguments: Of the suite.
        through: What runs it instead of plain ``-m``: the words of a program that measures it.
    """

    def __init__(self, arguments: Sequence[str], through: Sequence[str] = ()) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._rest = b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", *through, "-m", SUITE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def __enter__(self) -> SuiteProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self._errors.close()

    def said(self, silent_s: float = SILENT_S) -> Generator[dict[str, Any]]:
        """Each line that it says, until it ends.

        Raises:
            SilentError: It has said nothing for `silent_s`. It still runs.
        """
        assert self._process.stdout is not None
        descriptor, limit = self._process.stdout.fileno(), Deadline(silent_s)
        while True:
            if not select.select([descriptor], [], [], limit.left_s)[0]:
                raise SilentError
            data = os.read(descriptor, 65536)
            if not data:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                yield json.loads(line)
            limit = Deadline(silent_s)

    def end(self) -> int:
        """End it: in order if it is able to, or else at once. Idempotent. Its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            code = self._process.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process.stdout.close()
        return code

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def complaint(self) -> str:
        """The last lines that it wrote to stderr."""
        size = os.fstat(self._errors.fileno()).st_size
        tail = os.pread(self._errors.fileno(), _TAIL, max(0, size - _TAIL))
        return tail.decode("utf-8", "replace").strip()
