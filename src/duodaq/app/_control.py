"""Who holds control of which instrument: one named client of each at most, and nobody unless somebody wants it.

Rules for whoever edits this:

* Nobody needs control to work: what nobody holds is free for all. What somebody holds, others may read and stop.
* A client is a connection, and dies with it. A name is what people call it, and lets nobody in.
* A scan of the lab's own is a client too: it borrows control from whoever began it, and gives it back.
* What the lab itself does (alarms, safe states, instruments that others are made of) asks nobody here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import msgspec

from duodaq.clock import utc_ns
from duodaq.errors import DuodaqError, NotInControlError
from duodaq.model import (
    Command,
    Execute,
    GetParameter,
    InstrumentDefinition,
    ReadChannel,
    SnapFrame,
    Stop,
    command_name,
    is_polled_call,
)

_LONGEST_NAME = 100


class Client:
    """Somebody who asks things of a lab; no two are the same, whatever they are called.

    Attributes:
        name: What people call it.
        kind: What it is: ``notebook``, ``script``, ``page``, ``scan``, ``program``.
        place: Where it is: a process, an address; empty if that is known.
        ended: It is gone, and holds nothing any more.
    """

    def __init__(self, name: str, kind: str = "program", place: str = "") -> None:
        self.name, self.kind, self.place = name, kind, place
        self.ended = False

    def introduce(self, name: str, kind: str, place: str) -> None:
        """Say who it is."""
        self.name, self.kind, self.place = name[:_LONGEST_NAME], kind[:_LONGEST_NAME], place[:_LONGEST_NAME]

    def called(self, name: str | None = None) -> str:
        """How it is told of, under a name of its own choice if it has one."""
        name = name or self.name
        parts = [part for part in (self.kind, self.place) if part and part != name]
        return f"{name} ({', '.join(parts)})" if parts else name

    def __repr__(self) -> str:
        return f"<client {self.called()}>"


class Holder(msgspec.Struct, frozen=True):
    """Who holds control of an instrument: by `name`, as which `client`, since when (UTC ns), and what for."""

    instrument: str
    name: str
    client: str
    since_ns: int
    what: str = ""

    def __str__(self) -> str:
        return f"{self.what} of {self.client}" if self.what else self.client


class ControlChange(msgspec.Struct, frozen=True):
    """That control was ``taken``, ``taken over``, ``lent``, ``released`` or ``lost``: by whom, from whom, why."""

    instrument: str
    what: str
    who: str
    t_ns: int
    before: str | None = None
    why: str = ""


class _Hold:
    def __init__(self, client: Client, holder: Holder) -> None:
        self.client = client
        self.holder = holder


_ACTING: ContextVar[Client | None] = ContextVar("duodaq_client", default=None)


def acting_client() -> Client | None:
    """For whom the present task works; None for the program that has the lab."""
    return _ACTING.get()


class acting:  # noqa: N801 - used as the function that it was: one made of a generator takes three times as long
    """Work for `client` within the block."""

    __slots__ = ("_client", "_token")

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> None:
        self._token = _ACTING.set(self._client)

    def __exit__(self, *_: object) -> None:
        _ACTING.reset(self._token)


class ControlTable:
    """The holders of a lab's instruments. Belongs to the lab's loop.

    Args:
        tell: Told of every change.
    """

    def __init__(self, tell: Callable[[ControlChange], None]) -> None:
        self._tell = tell
        self._here = Client("the program that has the lab", "")
        self._holds: dict[str, list[_Hold]] = {}

    def client(self) -> Client:
        """For whom the present task works: always the same one for the program that has the lab."""
        return acting_client() or self._here

    def holders(self) -> dict[str, Holder]:
        """Who holds what, by instrument; what nobody holds is not in it."""
        return {instrument: holds[-1].holder for instrument, holds in self._holds.items()}

    def holder(self, instrument: str) -> Holder | None:
        """Who holds `instrument`."""
        holds = self._holds.get(instrument)
        return holds[-1].holder if holds else None

    def is_lent(self, instrument: str, what: str) -> bool:
        """Whether it is still lent for `what`: nobody has taken it over, or given it back."""
        return any(hold.holder.what == what for hold in self._holds.get(instrument, ()))

    def held_by(self, client: Client) -> list[str]:
        """What that client holds, or has lent."""
        return [name for name, holds in self._holds.items() if any(hold.client is client for hold in holds)]

    def take(
        self, instrument: str, name: str | None = None, *, take_over: bool = False, client: Client | None = None
    ) -> Holder:
        """Take control; whoever has it keeps it unless it is taken over.

        Args:
            instrument: Which.
            name: What the client calls itself; its own name if None.
            take_over: Whether to take it from whoever has it. He is told when he asks for something next.
            client: Who takes it; the client for whom the present task works if None.

        Raises:
            NotInControlError: Somebody else has it. He keeps it.
        """
        client = client or self.client()
        before = self._other(instrument, client)
        if before is not None and not take_over:
            raise self._refusal(before.holder, "control")
        holder = Holder(instrument, name or client.name, client.called(name), utc_ns())
        again = before is None and instrument in self._holds
        lent = None if before is not None else self._lent(instrument)
        self._holds[instrument] = [_Hold(client, holder), *([] if lent is None else [lent])]
        if before is not None:
            self._say(holder, "taken over", str(before.holder))
        elif not again:
            self._say(holder, "taken")
        return holder

    def lend(self, instrument: str, borrower: Client, what: str, *, client: Client | None = None) -> None:
        """Have `borrower` hold control for `what`, whether or not the client had it; `give_back` ends that.

        Raises:
            NotInControlError: Somebody else has it, or it is lent already, be it by this client. Nothing is lent.
        """
        client = client or self.client()
        before = self._other(instrument, client)
        if before is not None:
            raise self._refusal(before.holder, what)
        if (lent := self._lent(instrument)) is not None:
            raise self._refusal(lent.holder, what)
        own = self.holder(instrument) or Holder(instrument, client.name, client.called(), 0)
        holder = Holder(instrument, own.name, own.client, utc_ns(), what)
        self._holds.setdefault(instrument, []).append(_Hold(borrower, holder))
        self._say(holder, "lent")

    def give_back(self, what: str, why: str = "") -> None:
        """End what was lent for `what`: whoever had control before has it again."""
        self._drop(lambda hold: hold.holder.what == what, "released", why)

    def release(self, instrument: str, client: Client | None = None) -> bool:
        """Give control up; whether there was any.

        Raises:
            NotInControlError: Somebody else has it. He keeps it.
        """
        client = client or self.client()
        holds = self._holds.get(instrument)
        if not holds:
            return False
        other = self._other(instrument, client)
        if other is not None:
            raise self._refusal(other.holder, "release")
        if (lent := self._lent(instrument)) is not None:  # what the client's own scan has it keeps until it ends
            self._holds[instrument] = [lent]
        else:
            del self._holds[instrument]
        if holds[0] is not lent:
            self._say(holds[0].holder, "released")
        return holds[0] is not lent

    def leave(self, client: Client, why: str) -> None:
        """`client` is gone, and what it held is free."""
        client.ended = True
        self._drop(lambda hold: hold.client is client, "lost", why)

    def check(self, instrument: str, wish: str, client: Client | None = None) -> None:
        """Whether the client may do what moves, emits or sets.

        Raises:
            NotInControlError: Somebody else has control; he is named. Nothing was sent.
        """
        if instrument in self._holds:
            other = self._other(instrument, client or self.client())
            if other is not None:
                raise self._refusal(other.holder, wish)

    def check_command(self, definition: InstrumentDefinition, command: Command) -> None:
        """As `check`, of a command; one that only reads or stops is free.

        Raises:
            NotInControlError: Somebody else has control; he is named. Nothing was sent.
        """
        if definition.id in self._holds and not only_reads(definition, command):
            self.check(definition.id, command_name(command))

    def forget(self, instrument: str) -> None:
        """An instrument is gone, and with it the control of it."""
        self._drop(lambda hold: hold.holder.instrument == instrument, "lost", "it was removed from the lab")

    def _other(self, instrument: str, client: Client) -> _Hold | None:
        """Who holds it, unless that is `client`."""
        holds = self._holds.get(instrument)
        return None if not holds or holds[-1].client is client else holds[-1]

    def _lent(self, instrument: str) -> _Hold | None:
        """For what it is lent, if it is."""
        holds = self._holds.get(instrument)
        return holds[-1] if holds and holds[-1].holder.what else None

    def _drop(self, goes: Callable[[_Hold], bool], what: str, why: str) -> None:
        for instrument, holds in list(self._holds.items()):
            gone = [one for one in holds if goes(one)]
            left = [one for one in holds if one not in gone]
            if left:
                self._holds[instrument] = left
            else:
                del self._holds[instrument]
            if gone:
                self._say(gone[-1].holder, what, str(left[-1].holder) if left else None, why)

    def _say(self, holder: Holder, what: str, before: str | None = None, why: str = "") -> None:
        self._tell(ControlChange(holder.instrument, what, str(holder), utc_ns(), before, why))

    def _refusal(self, holder: Holder, wish: str) -> NotInControlError:
        since = datetime.fromtimestamp(holder.since_ns / 1e9).astimezone().isoformat(timespec="seconds")
        name = holder.instrument
        return NotInControlError(
            f"{holder} holds control since {since}; nothing was sent",
            instrument=name,
            command=wish,
            holder=str(holder),
            since_ns=holder.since_ns,
            left=f"reading and stopping are free; lab.{name}.control(take_over=True), or the page, takes it over",
        )


def only_reads(definition: InstrumentDefinition, command: Command) -> bool:
    """Whether `command` is free for all: it reads, or stops, and sets nothing.

    Of what an Execute calls only what is known to read does: an actor's handlers that may be repeated, a query if all
    of it asks; of a driver that duodaq does not know what is polled, as it is polled, and what its stanza names
    `passive`.
    """
    if isinstance(command, GetParameter | ReadChannel | Stop):
        return True
    if isinstance(command, SnapFrame):
        return not command.options
    if not isinstance(command, Execute):
        return False
    if definition.runtime == "v2":
        named = () if isinstance(definition.passive, bool) else definition.passive
        return command.name in named or is_polled_call(definition, command)
    from duodaq.v4 import BUILT_IN  # who attaches to a lab elsewhere loads no runtime

    kind: Any = BUILT_IN.get(definition.driver) if isinstance(definition.driver, str) else definition.driver
    if not hasattr(kind, "message_for"):
        return False  # its class is known where it runs alone
    try:
        spec: Any = kind.spec_for(kind.message_for(command))
    except DuodaqError:
        return True  # it is no command at all, and who handles it says what is wrong
    return spec is not None and spec.only_reads(kind.message_for(command))
