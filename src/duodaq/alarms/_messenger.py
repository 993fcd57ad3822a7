"""Tells people outside of the lab, by webhook and by mail, in threads of its own: no loop ever waits for a server."""

from __future__ import annotations

import json
import math
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any
from urllib.parse import urlsplit

from duodaq.alarms._connection import Connection, Smtp, opener
from duodaq.clock import Deadline, block
from duodaq.model import MailDefinition
from duodaq.telemetry import get_logger

SERVER_S = 10.0
"""How long a server may take for each step."""
TRY_S = 20.0
"""How long it may take for all of them."""
NOTICE_S = 60.0
"""For how long a notice is tried at all."""
PAUSES_S = (1.0, 5.0)
"""Between the tries of one notice."""
_WAITING = 64
_LINES = 16
_log = get_logger("alarms")


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be told: a line, the facts, and to whom."""

    subject: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    webhook: str | None = None
    email: tuple[str, ...] = ()


class Messenger:
    """Sends notices, those to one address one after another; what fails is tried again twice, then logged and counted.

    A try has failed that did not end within 20 s, whatever its server said meanwhile, and that was answered by anything
    but success: a redirection is not followed. What a server does after it has taken a notice makes no difference.

    Each address has a thread of its own for as long as something is on its way to it, so that one that is silent holds
    up no other. At most 16 have one at once; what is for a further address then waits behind the fewest. At most 64
    wait in one line; what comes on top is logged and counted as failed.
    """

    def __init__(self, mail: MailDefinition | None = None, *, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        self.sent: dict[str, int] = {"webhook": 0, "email": 0}
        self.failed: dict[str, int] = {"webhook": 0, "email": 0}
        self._mail = mail
        self._pauses_s = pauses_s
        self._lock = threading.Lock()
        self._lines: dict[str, deque[tuple[str, Notice]]] = {}
        self._threads: list[threading.Thread] = []
        self._ending = threading.Event()

    def use(self, mail: MailDefinition | None) -> None:
        """Send mail by this server from now on."""
        self._mail = mail

    def post(self, notice: Notice) -> None:
        """Send `notice` soon. Never waits."""
        if notice.webhook is not None:
            self._post("webhook", urlsplit(notice.webhook).netloc.lower(), notice)
        if notice.email:
            self._post("email", "mail", notice)

    def end(self) -> None:
        """Send what waits, and try nothing again. Idempotent; never waits."""
        self._ending.set()

    @property
    def ended(self) -> bool:
        """Whether nothing is on its way, and none of its threads is left."""
        return not any(thread.is_alive() for thread in self._threads)

    def _post(self, way: str, address: str, notice: Notice) -> None:
        with self._lock:
            line = self._lines.get(address)
            if line is None and len(self._lines) >= _LINES:
                line = min(self._lines.values(), key=len)
            if line is None:
                line = deque([(way, notice)])
                thread = threading.Thread(target=self._run, args=(address, line), name="alarm messenger", daemon=True)
                thread.start()
                self._threads = [*(one for one in self._threads if one.is_alive()), thread]
                self._lines[address] = line
                return
            room = len(line) < _WAITING
            if room:
                line.append((way, notice))
        if not room:
            self._give_up(way, notice, f"{_WAITING} notices wait already")

    def _run(self, address: str, line: deque[tuple[str, Notice]]) -> None:
        while True:
            with self._lock:
                if not line:
                    del self._lines[address]
                    return
                way, notice = line.popleft()
            self._try(way, notice, self._send_webhook if way == "webhook" else self._send_mail)

    def _try(self, way: str, notice: Notice, send: Callable[[Notice, Connection], None]) -> None:
        limit = Deadline(NOTICE_S)
        for pause_s in (*self._pauses_s, None):
            try:
                connection = Connection(Deadline(min(TRY_S, limit.left_s)), SERVER_S)
                with connection.watched():
                    send(notice, connection)
            except Exception as error:  # noqa: BLE001 - whatever a server does to these libraries
                if pause_s is None or limit.passed or self._ending.is_set():
                    self._give_up(way, notice, f"{type(error).__name__}: {error}")
                    return
                block(pause_s, self._ending)
            else:
                with self._lock:
                    self.sent[way] += 1
                return

    def _give_up(self, way: str, notice: Notice, why: str) -> None:
        _log.error("nobody was told of an alarm", by=way, alarm=notice.facts.get("alarm"), error=why)
        with self._lock:  # behind the line: whoever sees the count finds it said
            self.failed[way] += 1

    def _send_webhook(self, notice: Notice, connection: Connection) -> None:
        body = json.dumps({"text": notice.subject, **_json_facts(notice)}, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "duodaq"}
        request = urllib.request.Request(str(notice.webhook), body, headers)
        try:
            with opener(connection).open(request, timeout=SERVER_S):
                connection.taken()
        except urllib.error.HTTPError as error:
            with error:
                place = error.headers.get("Location")
            if place is None or error.code // 100 != 3:
                raise
            what = f"it sends elsewhere ({error.code}), to {_host(place)}, which is not followed"
            raise ConnectionError(what) from None

    def _send_mail(self, notice: Notice, connection: Connection) -> None:
        mail = self._mail
        if mail is None:
            raise LookupError("the lab file has no [mail]")
        message = EmailMessage()
        message["Subject"] = " ".join(notice.subject.split())
        message["From"], message["To"] = mail.sender, ", ".join(notice.email)
        message.set_content("\n".join(f"{name}: {value}" for name, value in notice.facts.items()))
        server = _server(mail, connection)
        try:
            if mail.user is not None:
                server.login(mail.user, os.environ[mail.password_env] if mail.password_env else "")
            refused = server.send_message(message)
            connection.taken()
            if refused:
                alarm = notice.facts.get("alarm")
                _log.error("not everybody was told of an alarm", alarm=alarm, refused=sorted(refused))
            server.quit()
        finally:
            server.close()


def _server(mail: MailDefinition, connection: Connection) -> Smtp:
    trusted = ssl.create_default_context()
    server = Smtp(connection, mail.host, mail.port, trusted if mail.security == "tls" else None)
    if mail.security == "starttls":
        try:
            server.starttls(context=trusted)
        except BaseException:
            server.close()
            raise
    return server


def _json_facts(notice: Notice) -> dict[str, Any]:
    """JSON has no word for what is infinite."""
    odd = (math.inf, -math.inf)
    return {name: str(value) if value in odd else value for name, value in notice.facts.items()}


def _host(place: str) -> str:
    """Of an address the host alone: the rest may be a secret."""
    return urlsplit(place).netloc.rpartition("@")[2] or "another place of the same host"
