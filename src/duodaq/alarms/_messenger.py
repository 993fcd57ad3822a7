"""Tells people outside of the lab, by webhook and by mail, in a thread of its own: no loop ever waits for a server."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import smtplib
import ssl
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

from duodaq.clock import Deadline, block
from duodaq.model import MailDefinition
from duodaq.telemetry import get_logger

SERVER_S = 10.0
"""How long a server may take for each step."""
NOTICE_S = 60.0
"""For how long a notice is tried at all."""
PAUSES_S = (1.0, 5.0)
"""Between the tries of one notice."""
_WAITING = 64
_log = get_logger("alarms")


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be told: a line, the facts, and to whom."""

    subject: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    webhook: str | None = None
    email: tuple[str, ...] = ()


class Messenger:
    """Sends notices, one after another; what fails is tried again twice, then logged and counted.

    At most 64 wait; what comes on top is logged and counted as failed.
    """

    def __init__(self, mail: MailDefinition | None = None, *, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        self.sent: dict[str, int] = {"webhook": 0, "email": 0}
        self.failed: dict[str, int] = {"webhook": 0, "email": 0}
        self._mail = mail
        self._pauses_s = pauses_s
        self._waiting: queue.Queue[Notice | None] = queue.Queue(_WAITING)
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def use(self, mail: MailDefinition | None) -> None:
        """Send mail by this server from now on."""
        self._mail = mail

    def post(self, notice: Notice) -> None:
        """Send `notice` soon. Never waits."""
        if notice.webhook is None and not notice.email:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="alarm messenger", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(notice)
        except queue.Full:
            for way in _ways(notice):
                self._give_up(way, notice, f"{_WAITING} notices wait already")

    def end(self) -> None:
        """Send what waits, try nothing again, and end. Idempotent; never waits."""
        if self._thread is None or self._ending.is_set():
            return
        self._ending.set()
        with contextlib.suppress(queue.Full):  # it looks whether it shall end behind each notice, too
            self._waiting.put_nowait(None)

    @property
    def ended(self) -> bool:
        """Whether its thread has ended, or never was."""
        return self._thread is None or not self._thread.is_alive()

    def _run(self) -> None:
        while (notice := self._waiting.get()) is not None:
            if notice.webhook is not None:
                self._try("webhook", notice, lambda n=notice: self._send_webhook(n))
            if notice.email:
                self._try("email", notice, lambda n=notice: self._send_mail(n))
            if self._ending.is_set() and self._waiting.empty():
                return

    def _try(self, way: str, notice: Notice, send: Callable[[], None]) -> None:
        limit = Deadline(NOTICE_S)
        for pause_s in (*self._pauses_s, None):
            try:
                send()
            except Exception as error:  # noqa: BLE001 - whatever a server does to these libraries
                if pause_s is None or limit.passed or self._ending.is_set():
                    self._give_up(way, notice, f"{type(error).__name__}: {error}")
                    return
                block(pause_s, self._ending)
            else:
                self.sent[way] += 1
                return

    def _give_up(self, way: str, notice: Notice, why: str) -> None:
        self.failed[way] += 1
        _log.error("nobody was told of an alarm", by=way, alarm=notice.facts.get("alarm"), error=why)

    def _send_webhook(self, notice: Notice) -> None:
        body = json.dumps({"text": notice.subject, **notice.facts}, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "duodaq"}
        request = urllib.request.Request(str(notice.webhook), body, headers)
        with urllib.request.urlopen(request, timeout=SERVER_S) as answer:
            answer.read(1)

    def _send_mail(self, notice: Notice) -> None:
        mail = self._mail
        if mail is None:
            raise LookupError("the lab file has no [mail]")
        message = EmailMessage()
        message["Subject"], message["From"], message["To"] = notice.subject, mail.sender, ", ".join(notice.email)
        message.set_content("\n".join(f"{name}: {value}" for name, value in notice.facts.items()))
        with self._server(mail) as server:
            if mail.user is not None:
                server.login(mail.user, os.environ[mail.password_env] if mail.password_env else "")
            server.send_message(message)

    def _server(self, mail: MailDefinition) -> smtplib.SMTP:
        trusted = ssl.create_default_context()
        if mail.security == "tls":
            return smtplib.SMTP_SSL(mail.host, mail.port, timeout=SERVER_S, context=trusted)
        server = smtplib.SMTP(mail.host, mail.port, timeout=SERVER_S)
        if mail.security == "starttls":
            try:
                server.starttls(context=trusted)
            except BaseException:
                server.close()
                raise
        return server


def _ways(notice: Notice) -> list[str]:
    return [*(["webhook"] if notice.webhook is not None else []), *(["email"] if notice.email else [])]
