"""Every queue that data or a message passes: its bound from the code, what happens when it is full, who counts it.

A bound that is renamed or goes away fails here; one that changes changes the document.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from markup import table as table_of

from duodaq.alarms import _alarms, _messenger
from duodaq.app import _flights
from duodaq.bridge import Bridge, ParameterTable
from duodaq.dataplane import Hub, Policy
from duodaq.link import LinkServer
from duodaq.link._client import LinkClient
from duodaq.ports import _owner
from duodaq.ports._wirelog import WireLog
from duodaq.storage import Recorder, _recorder
from duodaq.tap import Opening
from duodaq.telemetry import _log_file, _outlet, _span_queue
from duodaq.v2 import _manager, _work
from duodaq.v4 import ActorSystem, DataPublisher
from duodaq.v4._system import DeadLetters
from duodaq.v4.instruments import _streams
from duodaq.web import _feed, _history, _jobs, _operations, _viewer
from duodaq.web._log import LogTail
from duodaq.workers import _outbox, _process_hosted


def given(function: Callable[..., Any], name: str) -> Any:
    """What a parameter is if nobody says otherwise."""
    return inspect.signature(function).parameters[name].default


def megabytes(size: int) -> str:
    return f"{size / 2**20:g} MiB"


def policy_of(function: Callable[..., Any], name: str = "policy") -> str:
    return FULL[given(function, name)]


FULL = {
    Policy.BLOCK: "whoever publishes waits",
    Policy.DROP_OLDEST: "**the oldest is dropped**",
    Policy.DROP_NEWEST: "**the new one is dropped**",
    Policy.LATEST: "the new one takes the place of the waiting one of its stream",
}


class Queue(NamedTuple):
    name: str
    bound: str
    full: str
    counted: str


COMMANDS = (
    Queue(
        "requests of one program at the control socket",
        f"{given(LinkServer, 'outstanding'):,}",
        "refused: `MailboxFullError`, *not done*",
        "the error",
    ),
    Queue(
        "commands from the page and the HTTP API",
        f"{_operations.MOST_IN_HAND:,}",
        "refused with 429; a stop never is",
        "the answer",
    ),
    Queue(
        "exports and repairs asked for by HTTP",
        f"{_jobs.MOST_WAITING:,}, {_jobs.MOST_AT_ONCE} at work",
        "refused with 429",
        "`GET /api/jobs`",
    ),
    Queue(
        "commands at one worker process",
        f"{_process_hosted.WINDOW:,}",
        "the caller waits until its deadline, then `MailboxFullError`, *not done*",
        "`duodaq_commands_in_hand`",
    ),
    Queue(
        "V2's manager task",
        f"{_manager.CAPACITY:,}",
        f"the caller waits, {_manager.POST_S:g} s at most, then `MailboxFullError`, *not done*",
        "`lab.status()`",
    ),
    Queue(
        "one V2 instrument",
        f"{_work.CAPACITY:,}",
        "the caller waits until its deadline, then `MailboxFullError`, *not done*",
        "`duodaq_mailbox_messages`, `duodaq_commands_total`",
    ),
    Queue(
        "the mailbox of a V4 actor",
        f"{given(ActorSystem, 'mailbox'):,}",
        "`ask` and `tell` wait, `tell_nowait` raises `MailboxFullError`, *not done*",
        "`duodaq_mailbox_messages`, `duodaq_messages_total`",
    ),
    Queue(
        "V4's dead letters",
        f"{given(DeadLetters, 'limit'):,}",
        FULL[Policy.DROP_OLDEST] + "; each was logged",
        "`duodaq_dead_letters_total`",
    ),
    Queue(
        "exchanges under one lease of a port",
        f"{_owner._NEXT_LIMIT:,}",
        "refused: `PortBusyError`, nothing was written",
        "`duodaq_port_errors_total`",
    ),
    Queue(
        "those who wait for a port",
        "as many as ask",
        "each waits until its own deadline, then `PortBusyError` names the holder",
        "`duodaq_port_waiting`, `duodaq_port_lease_wait_seconds`",
    ),
)

DATA = (
    Queue(
        "a subscriber of either hub, unless it says otherwise",
        f"{given(Hub.subscribe, 'capacity'):,}",
        policy_of(Hub.subscribe),
        "`duodaq_dropped_total`, the ledger",
    ),
    Queue(
        "the recorder",
        f"{given(Recorder, 'capacity'):,} batches, {megabytes(given(Recorder, 'max_bytes'))}",
        f"actors that can wait do, {_streams._ROOM_S:g} s; else **the new one is lost to it**, a gap in the run",
        f"`books` of the run, `duodaq_dropped_total`, an alarm at {_recorder._ALARM_AT:.0%}",
    ),
    Queue(
        "from a worker process to the lab",
        f"{_outbox.CAPACITY:,} there and {_outbox.WINDOW:,} on the way, {megabytes(_outbox.WINDOW_BYTES)}",
        FULL[Policy.BLOCK],
        "the ledger; `worker died` if it does",
    ),
    Queue(
        "the bridge, in each direction",
        f"{given(Bridge, 'capacity'):,}, {megabytes(given(Bridge, 'max_bytes'))}",
        policy_of(Bridge),
        "the ledger, under `bridge`",
    ),
    Queue(
        "a scan that flies",
        f"{_flights._WAITING:,} batches",
        FULL[Policy.DROP_NEWEST] + " to the scan; recordings have it",
        "`lost` of the flight",
    ),
    Queue(
        "alarms, from each hub",
        f"{_alarms._CAPACITY:,}",
        FULL[Policy.DROP_OLDEST],
        "the ledger, under `alarms`",
    ),
    Queue(
        "webhooks and mails",
        f"{_messenger._WAITING:,} for each address, {_messenger._LINES} addresses at once",
        FULL[Policy.DROP_NEWEST] + ", and logged",
        "`duodaq_alarm_notices_total`",
    ),
    Queue(
        "the page's server, for all browsers",
        f"{_feed._WAITING:,} batches, {megabytes(_feed._WAITING_BYTES)}",
        FULL[Policy.DROP_OLDEST],
        "the ledger, under `page`",
    ),
    Queue("one browser: rows", f"{_viewer.MOST_ROWS:,} messages", FULL[Policy.DROP_OLDEST], "told to the page"),
    Queue("one browser: images, spectra", "one a stream", FULL[Policy.LATEST], "told to the page"),
    Queue(
        "a reader over Arrow Flight",
        f"{given(Opening, 'capacity'):,} batches, unless it says otherwise",
        FULL[Policy.DROP_OLDEST],
        "`missed` of each batch, the ledger",
    ),
    Queue(
        "changes of the parameter table, for one reader",
        f"{given(ParameterTable.watch, 'capacity'):,}",
        "the new one takes the place of the waiting one of its entry",
        "the ledger of the table",
    ),
)

RECORDS = (
    Queue(
        "news of the lab, for one program",
        f"{given(LinkClient.subscribe, 'capacity'):,}",
        FULL[Policy.DROP_OLDEST],
        "`missed` of the reader",
    ),
    Queue(
        "the wire log of one port, in memory",
        f"{given(WireLog, 'limit'):,} records, {megabytes(given(WireLog, 'max_bytes'))}",
        FULL[Policy.DROP_OLDEST] + "; a recorded wire log has it",
        "the numbers of the records",
    ),
    Queue("the log file", f"{_log_file._WAITING:,} lines", FULL[Policy.DROP_NEWEST], "`duodaq_log_lines_lost_total`"),
    Queue("the console", f"{_outlet.WAITING:,} texts", FULL[Policy.DROP_NEWEST], "`duodaq_log_lines_lost_total`"),
    Queue("spans of traces", f"{_span_queue.MOST:,}", FULL[Policy.DROP_NEWEST], "`duodaq_spans_total`"),
    Queue("the past of a stream, for the page", f"{_history.KEPT:,} points", FULL[Policy.DROP_OLDEST], "not counted"),
    Queue("the log on the page", f"{given(LogTail, 'most'):,} lines", FULL[Policy.DROP_OLDEST], "the numbers"),
)

GROUPS = {"commands": COMMANDS, "data": DATA, "records": RECORDS}


def table(words: list[str], like: list[list[str]]) -> str:
    """The queues of one group."""
    return table_of(("queue", "bound", "when it is full", "counted in"), GROUPS[words[0]])


assert DataPublisher.subscribe is not Hub.subscribe
assert given(DataPublisher.subscribe, "capacity") == given(Hub.subscribe, "capacity")
