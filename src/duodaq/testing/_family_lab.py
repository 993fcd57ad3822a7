from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import duodaq
from duodaq.app import LabClient
from duodaq.clock import Deadline, block


class FamilyLab:
    """A lab of hosted drivers, in a worker process unless told otherwise: opened from stanzas, asked, and struck."""

    def __init__(self, folder: Path, stanzas: str, worker: str = "process") -> None:
        self._file = folder / "lab.toml"
        name = re.sub(r"\W", "", folder.name)[-30:] + str(os.getpid())
        head = f'[lab]\nname = "{name}"\n[runtimes.v2]\nworker = "{worker}"\n'
        self._file.write_text(head + stanzas, encoding="utf-8")
        self._client: LabClient | None = None

    def __enter__(self) -> FamilyLab:
        self._client = duodaq.open(self._file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()

    @property
    def client(self) -> LabClient:
        """The lab, as a program has it."""
        assert self._client is not None
        return self._client

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def settled(self) -> FamilyLab:
        """Itself, once all its spares stand ready: from then on it opens nothing that a test could seem to leave."""
        manager: Any = getattr(self.client._channel, "lab").manager  # noqa: B009  # pyright: ignore[reportPrivateUsage]  # a private lab has it
        spares: Any = manager.housing.nursery._spares
        self.wait(lambda: set(spares.ready) == set(spares._places))
        return self

    def status(self, instrument: str) -> dict[str, Any]:
        """State, worker and process of an instrument."""
        return getattr(self.client, instrument).status()

    def channel(self, name: str) -> dict[str, Any]:
        """What is known of the polled channel ``"instrument.channel"``."""
        channels = self.client._channel.request("channels", {})  # pyright: ignore[reportPrivateUsage]  # as its handles
        return next(one for one in channels if f"{one['instrument']}.{one['channel']}" == name)

    def kill_worker(self, instrument: str) -> int:
        """SIGKILL for the process that an instrument lives in; the pid of the one that has taken over."""
        before = self.status(instrument)
        assert before["mode"] == "process"
        assert before["pid"] != os.getpid()
        os.kill(before["pid"], signal.SIGKILL)
        return self.wait_for_another(instrument, before["pid"])

    def wait_for_another(self, instrument: str, pid: int, limit_s: float = 30.0) -> int:
        """The pid of the process that has taken over from `pid`, once the instrument is ready in it."""
        self.wait(lambda: self.status(instrument)["pid"] not in (None, pid), limit_s)
        self.wait(lambda: self.status(instrument)["state"] in ("ready", "acquiring"), limit_s)
        return self.status(instrument)["pid"]

    def wait(self, condition: Callable[[], bool], limit_s: float = 30.0) -> None:
        """Wait until `condition()` holds."""
        limit = Deadline(limit_s)
        while not condition():
            assert not limit.passed, self.client.status()["instruments"]
            block(0.01)


def error_of(work: Callable[[], Any]) -> Exception:
    """What `work()` raises."""
    try:
        result = work()
    except Exception as error:  # noqa: BLE001  the test looks at whatever came
        return error
    raise AssertionError(f"it was done: {result!r}")
