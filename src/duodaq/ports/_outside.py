from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from duodaq.clock import Deadline
from duodaq.errors import ConfigError, DataError, LifecycleError, PortLostError
from duodaq.link import BlockingTalk, Message, News
from duodaq.model import PortDefinition, VisaDefinition
from duodaq.ports._remote import RemoteLines, RemoteOwner
from duodaq.ports._sentences import PortFacts, Ports, ToUser
from duodaq.ports._session import BlockingSession
from duodaq.ports._told_codec import ToldCodec

TOPIC = "ports"
_FIRST_S = 5.0
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ToUser | Ports).decode


class LabPorts:
    """The ports of a running lab, for blocking code in any program of the same user. Thread-safe, without a thread.

    Args:
        path: The lab's control socket.
        version: Of the control socket's protocol.

    Raises:
        LifecycleError: Nobody serves there, it does not answer, or it refuses this program.
    """

    def __init__(self, path: Path, version: int) -> None:
        self.lab = ""
        self._lines = RemoteLines(self.send, _no_framing, await_news=self.await_news)
        self._owners: Mapping[str, RemoteOwner] | None = None
        self._sessions: weakref.WeakSet[BlockingSession] = weakref.WeakSet()
        self._news = News()
        self._talk = BlockingTalk(path, version, TOPIC, self._heard, self._lost)
        deadline = Deadline(_FIRST_S)
        with self._news:
            while self._owners is None and self._talk.alive and not deadline.passed:
                self._talk.await_news(self._news, deadline.left_s)
        if self._owners is None:
            self._talk.close()
            raise LifecycleError(f"the lab on {path} did not say which ports it has")

    @property
    def alive(self) -> bool:
        """Whether the lab can be reached through this, from this process."""
        return self._talk.alive

    def definitions(self) -> dict[str, PortDefinition]:
        """The definition of every port, by name, as far as it matters here."""
        return {name: owner.definition for name, owner in (self._owners or {}).items()}

    def session(self, port: str, holder: str, *, impatient: bool = False) -> BlockingSession:
        """A session of `holder`, usable from any thread.

        Raises:
            ConfigError: There is no such port.
        """
        owners = self._owners or {}
        if port not in owners:
            known = ", ".join(sorted(owners)) or "none"
            raise ConfigError(f"there is no port named '{port}'", remedy=f"Ports here: {known}.")
        made = BlockingSession(owners[port], holder, impatient=impatient)
        self._sessions.add(made)
        if not self._talk.alive:  # nobody will tell it
            made.fail(PortLostError("the connection to the lab is over", port=port))
        return made

    def close(self) -> None:
        """Leave the lab; what was under way goes back. Idempotent."""
        self._talk.close()
        self._end_sessions("the connection to the lab was closed")

    def send(self, message: Message) -> None:
        """Send one sentence.

        Raises:
            DeliveryError: The connection is over.
        """
        self._talk.send(_encode(message))

    def await_news(self, news: News, timeout_s: float | None) -> None:
        """Within `news`: wait until it may have been notified; see BlockingPipe."""
        self._talk.await_news(news, timeout_s)

    def _heard(self, sentence: bytes) -> None:
        try:
            message = _decode(sentence)
        except msgspec.MsgspecError as error:
            raise DataError(f"not a sentence about ports: {error}") from error
        if isinstance(message, Ports):
            with self._news:
                self.lab = message.lab
                self._owners = {facts.name: self._owner_of(facts) for facts in message.ports}
                self._news.notify_all()
        else:
            self._lines.heard(message)

    def _owner_of(self, facts: PortFacts) -> RemoteOwner:
        definition = PortDefinition(
            name=facts.name,
            serial=facts.serial,
            tcp=facts.tcp,
            codec=facts.codec,
            timeout_s=facts.timeout_s,
            idle_ms=facts.idle_ms,
            hold_max_s=facts.hold_max_s,
            visa=None if facts.visa is None else VisaDefinition(facts.visa),
        )
        codec = None
        if facts.codec is not None:
            codec = ToldCodec(facts.codec, facts.write_terminator, facts.longest_reply_s, facts.status_query)
        return RemoteOwner(definition, codec, 0, self._lines)

    def _lost(self, why: str) -> None:
        self._end_sessions(f"the connection to the lab was lost: {why}")

    def _end_sessions(self, why: str) -> None:
        for session in list(self._sessions):
            session.fail(PortLostError(why, port=session.name))


def _no_framing(framing: Any) -> None:
    """Only what the port's codec says is answered may be asked for from here."""
    if framing is not None:
        raise DataError("only what the port's codec says is answered")
