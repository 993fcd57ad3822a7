"""What runs in the process of a shadow: one V4 driver, on what the lab tells of V2's, at the end of a link to it.

The process is the lab's. When the link ends it leaves; if its driver is blocked then, it is killed.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import pickle
import socket
import sys
from pathlib import Path
from typing import Any

from duodaq.clock import adopt_anchor, monotonic_s, new_loop, pause
from duodaq.errors import DataError, DuodaqError, LifecycleError
from duodaq.link import Pipe
from duodaq.migration._shadow import Shadow
from duodaq.migration._shadow_process import BLOCKED_S
from duodaq.migration._shadow_words import (
    Be,
    Became,
    Began,
    Commanded,
    Made,
    News,
    NoNumber,
    Number,
    Past,
    Records,
    ShadowPlan,
    Start,
    Tell,
    Told,
    decode_from_lab,
)
from duodaq.model import WireRecord
from duodaq.telemetry import told
from duodaq.workers import LogLine, encode_words, error_parts, limit_memory, show_as, unpack_trusted

_LOOK_S = 0.1
_NICE = 5
"""Below the lab and its V2 worker: a driver that computes takes what they leave."""


def run(link: socket.socket, descriptors: socket.socket) -> None:
    """Be a shadow at the end of `link` until the other end closes it."""
    faulthandler.enable()
    descriptors.close()
    loop = new_loop()
    try:
        loop.run_until_complete(_Process(link).run())
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)  # no thread of a driver is waited for


class _Process:
    def __init__(self, link: socket.socket) -> None:
        self._pipe = Pipe(link, encode_words, decode_from_lab, self._heard, self._lost)
        self._over = asyncio.Event()
        self._shadow: Shadow | None = None
        self._past: list[WireRecord] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._latched = False
        self._lives_inline = True
        self._beat_s = 0.0
        self._starved_s = 0.0

    async def run(self) -> None:
        """Until the link ends."""
        self._pipe.open()
        await self._over.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._shadow is not None:
            await self._shadow.aclose()

    def _lost(self, _: str) -> None:
        self._over.set()

    def _heard(self, message: Any) -> None:
        if isinstance(message, Be):
            self._be(message)
            return
        shadow = self._shadow
        if shadow is None:
            return  # it could not be what it was told to be, and has said so
        match message:
            case Past():
                self._past += message.records
            case Start():
                self._beat_s, self._starved_s = monotonic_s(), waited_for_a_processor_s()
                self._tasks.append(asyncio.create_task(self._begin(shadow)))
                self._tasks.append(asyncio.create_task(self._look_at_the_loop(shadow)))
            case News():
                self._latched = message.latched
                for item in message.items:
                    _take(shadow, item)
            case Tell():
                self._beat(shadow)  # before it answers: what the report says must be so
                shadow.note_poll_failures(message.v2_failures)
                self._pipe.send(Told(shadow.report().to_dict()))
            case _:
                raise DataError(f"a {type(message).__name__} comes from a shadow, not to one")

    def _be(self, message: Be) -> None:
        try:
            plan: ShadowPlan = pickle.loads(message.plan)
            show_as(f"shadow.{plan.beside.v2.id}")
            adopt_anchor(plan.anchor_ns)
            LogLine.install(self._pipe.send, plan.log_level)
            if sys.platform != "win32":
                os.nice(_NICE)
            if plan.memory_bytes is not None and sys.platform == "linux":
                limit_memory(plan.memory_bytes)
            self._lives_inline = plan.lives_inline
            self._shadow = Shadow(plan.beside, lambda: self._latched, plan.source)
        except Exception as error:  # noqa: BLE001 - whatever a plan's classes raise when they are made here is told
            self._pipe.send(Made(_in_words(error)))
        else:
            self._pipe.send(Made())

    async def _begin(self, shadow: Shadow) -> None:
        past, self._past = self._past, []
        try:
            await shadow.start(past)
        except Exception as error:  # noqa: BLE001 - the lab has to know
            self._pipe.send(Began(_in_words(error)))
        else:
            self._pipe.send(Began())

    async def _look_at_the_loop(self, shadow: Shadow) -> None:
        while True:
            self._beat(shadow)
            await pause(_LOOK_S)

    def _beat(self, shadow: Shadow) -> None:
        """The loop goes: note if it has not for long."""
        now_s = monotonic_s()
        late_s, self._beat_s = now_s - self._beat_s - _LOOK_S, now_s
        starved_s, before_s = waited_for_a_processor_s(), self._starved_s
        self._starved_s = starved_s
        shadow.note_starved(starved_s - before_s)
        late_s -= starved_s - before_s  # that was the machine, and no driver
        if late_s > BLOCKED_S:
            shadow.note_blocked(late_s, lives_inline=self._lives_inline)


def waited_for_a_processor_s() -> float:
    """For how long the thread that began this process could have run and did not; 0 where no kernel says it."""
    try:
        return int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _in_words(error: Exception) -> dict[str, Any]:
    return error_parts(error if isinstance(error, DuodaqError) else LifecycleError(told(error)))[0]


def _take(shadow: Shadow, item: Records | Number | NoNumber | Commanded | Became) -> None:
    match item:
        case Records():
            for record in item.records:
                shadow.take(record)
        case Number():
            shadow.take_number(item.channel, item.unit, item.t_ns, item.value)
        case NoNumber():
            shadow.take_no_number(item.channel)
        case Commanded():
            try:
                command = unpack_trusted(item.command)
            except Exception as error:  # noqa: BLE001 - whatever the classes of its arguments raise
                shadow.note_not_comparable("a command", f"it cannot be read: {told(error)}")
            else:
                shadow.commanded(item.number, command, item.trace_id)
        case Became():
            shadow.became(item.number, item.result, item.error, is_known=item.is_known)
