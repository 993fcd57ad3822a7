"""A program that knows nothing of duodaq: it asks an echo device through a virtual port, and compares the answers.

``outside_client.py KIND WHERE NAME COUNT SESSIONS`` asks COUNT questions from each of SESSIONS sessions, all at once,
and says as JSON how many it has asked and which answers were wrong. With COUNT 0 it kills itself in the middle of an
exchange.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import threading
from typing import Any, Protocol


class Line(Protocol):
    def write(self, data: bytes, /) -> Any: ...

    def readline(self) -> bytes: ...


def open_pty(where: str) -> Line:
    import serial

    return serial.Serial(where, 19200, timeout=30)


class TcpLine:
    def __init__(self, where: str) -> None:
        host, _, number = where.rpartition(":")
        self._socket = socket.create_connection((host, int(number)), timeout=30)
        self._file = self._socket.makefile("rb")
        self.write = self._socket.sendall
        self.readline = self._file.readline


class VisaLine:
    """A port of a lab, as a PyVISA program opens it: `where` is ``lab@duodaq port``."""

    def __init__(self, where: str) -> None:
        import pyvisa

        lab, port = where.split(" ")
        resource: Any = pyvisa.ResourceManager(lab).open_resource(port, read_termination="", timeout=30_000)
        self.write = resource.write_raw
        self.readline = resource.read_raw


KINDS = {"pty": open_pty, "tcp": TcpLine, "visa": VisaLine}
"""How a program of each kind opens its line; one for each way in."""


def ask(line: Line, name: str, count: int, wrong: list[str]) -> None:
    for i in range(count):
        line.write(f"Q{name}n{i}?\n".encode())
        answer = line.readline()
        if answer != f"{name}n{i}\n".encode():
            wrong.append(f"{name}n{i}: {answer!r}")


def die_asking(line: Line, name: str) -> None:
    chance = random.Random(name)
    ask(line, name, chance.randrange(3), [])
    line.write(f"Q{name}last?\n".encode() + chance.choice([b"", b"Qhal", b"Qnever1?\nQnever2?\n"]))
    threading.Event().wait(chance.uniform(0, 0.004))
    os.kill(os.getpid(), signal.SIGKILL)


def main(kind: str, where: str, name: str, count: int, sessions: int) -> None:
    if not count:
        die_asking(KINDS[kind](where), name)
    wrong: list[str] = []
    lines = [KINDS[kind](where) for _ in range(sessions)]
    threads = [threading.Thread(target=ask, args=(line, f"{name}s{i}", count, wrong)) for i, line in enumerate(lines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(json.dumps({"asked": count * sessions, "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]))
