"""Who asks by HTTP or over a live connection, and for how long somebody is taken to be there."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Generator
from typing import Any, NamedTuple

from duodaq.app import Client, Lab
from duodaq.clock import monotonic_s, pause
from duodaq.web._access import Role
from duodaq.web._refusal import Refusal

KEY_HEADER = "x-duodaq-key"
LAPSE_S = 60.0
"""Who holds control by a key, and has said nothing for so long, holds it no more."""
MOST_KEYS = 64
_LOOK_S = 1.0


class Visitor(NamedTuple):
    """Who asks: what he may do, from where he comes, as whom he holds control, and whether he is there to stay."""

    role: Role
    peer: str
    client: Client
    stays: bool = False

    @property
    def name(self) -> str:
        return self.client.called()


def visitor_at(role: Role, peer: str, *, stays: bool = False) -> Visitor:
    """Somebody new."""
    return Visitor(role, peer, Client("page", "page", peer), stays)


class _Key:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.seen_s = monotonic_s()
        self.in_hand = 0


class Visitors:
    """Those who hold control over plain HTTP, where there is no connection that could end: each has a key.

    A key is known until nothing was asked with it for `LAPSE_S`; then what it held is free, which is logged.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._keys: dict[str, _Key] = {}
        self._task: asyncio.Task[None] | None = None

    def of(self, state: Any, key: str | None) -> Visitor:
        """Who the gate found somebody to be, with the key that he shows."""
        role, peer = getattr(state, "role", Role.NOBODY), getattr(state, "peer", "?")
        known = self._keys.get(key or "")
        if known is None:
            return visitor_at(role, peer)
        return Visitor(role, peer, known.client, True)

    def seen(self, key: str | None) -> None:
        """Somebody shows a key, whatever he asks: he is there."""
        known = self._keys.get(key or "")
        if known is not None:
            known.seen_s = monotonic_s()

    def keep(self, visitor: Visitor) -> tuple[str, Visitor]:
        """A new key, and who shows it. If there are too many, the one that holds nothing for longest is no more.

        Raises:
            Refusal: 429, there are too many, and with each something is held.
        """
        if len(self._keys) >= MOST_KEYS:
            self._drop_idle()
        if len(self._keys) >= MOST_KEYS:
            raise Refusal(429, "TooMany", f"{MOST_KEYS} programs hold control by a key; let one release it")
        key = secrets.token_urlsafe(18)
        self._keys[key] = _Key(visitor.client)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_after(), name="page-keys")
        return key, visitor._replace(stays=True)

    def forget(self, client: Client) -> None:
        """Its key is good for nothing more, unless it holds control of something else."""
        for key, known in list(self._keys.items()):
            if known.client is client and not self._lab.control.held_by(client):
                del self._keys[key]

    @contextlib.contextmanager
    def asking(self, client: Client) -> Generator[None]:
        """It is there for as long as what it asked for takes."""
        known = next((one for one in self._keys.values() if one.client is client), None)
        if known is None:
            yield
            return
        known.in_hand += 1
        try:
            yield
        finally:
            known.in_hand -= 1
            known.seen_s = monotonic_s()

    async def aclose(self) -> None:
        """Nobody is there any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for known in self._keys.values():
            self._lab.control.leave(known.client, "the page is served no longer")
        self._keys.clear()

    def _drop_idle(self) -> None:
        held = self._lab.control.held_by
        idle = [key for key, known in self._keys.items() if not known.in_hand and not held(known.client)]
        if idle:
            del self._keys[min(idle, key=lambda key: self._keys[key].seen_s)]

    async def _look_after(self) -> None:
        while self._keys:
            await pause(_LOOK_S)
            for key, known in list(self._keys.items()):
                if not known.in_hand and monotonic_s() - known.seen_s > LAPSE_S:
                    del self._keys[key]
                    self._lab.control.leave(known.client, f"nothing was asked with its key for {LAPSE_S:g} s")
