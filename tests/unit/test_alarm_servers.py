"""Servers that an alarm is told to and that do what servers do: each notice ends in time, is counted and logged."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from duodaq.alarms import Messenger, Notice, _messenger
from duodaq.clock import Deadline, block, monotonic_s
from duodaq.model import MailDefinition

STEP_S, TRY_S = 0.6, 1.0
"""So long that a server which is well is reached on a busy machine."""
AT_MOST_S = 10.0
Answer = Callable[[socket.socket], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
FINE = b"250 fine\r\n"


@contextmanager
def server(answer: Answer) -> Iterator[Any]:
    """A server that does `answer` with each connection; `heard` is what it was sent, `times` how often."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    class Server:
        port = listener.getsockname()[1]
        times = 0

    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(20.0)
            answer(connection)

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                Server.times += 1
                threads.append(threading.Thread(target=one, args=(connection,)))
                threads[-1].start()

    threads.append(threading.Thread(target=serve))
    threads[0].start()
    try:
        yield Server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join()


def request_of(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    return data


def to_its_end(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def again_and_again(beginning: bytes, line: bytes) -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.sendall(beginning)
        while True:
            connection.sendall(line)
            block(0.005)

    return answer


def in_turn(*replies: bytes, then: Answer = to_its_end) -> Answer:
    """SMTP: a reply to each line (a message is one), then what is left."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(replies[0])
        with connection.makefile("rb") as lines:
            for reply in replies[1:]:
                if lines.readline() == b"":
                    return
                connection.sendall(reply)
                while reply.startswith(b"354") and lines.readline() not in (b".\r\n", b""):
                    pass
                if reply.startswith(b"354"):
                    connection.sendall(b"250 taken\r\n")
        then(connection)

    return answer


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Messenger]:
    monkeypatch.setattr(_messenger, "SERVER_S", STEP_S)
    monkeypatch.setattr(_messenger, "TRY_S", TRY_S)
    one = Messenger(pauses_s=(0.01, 0.01))
    yield one
    one.end()
    until(lambda: one.ended)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    monkeypatch.setattr(logging.getLogger("duodaq"), "propagate", True)
    return lambda: [record.msg for record in caplog.records if isinstance(record.msg, dict)]


def until(condition: Callable[[], bool], limit_s: float = AT_MOST_S) -> None:
    ends = Deadline(limit_s)
    while not condition():
        assert not ends.passed
        block(0.002)


def mail_by(port: int, security: Any = "none") -> MailDefinition:
    return MailDefinition("127.0.0.1", port, "lab@example.org", security=security)


HTTP: dict[str, tuple[Answer, str]] = {
    "is silent": (to_its_end, "timed out"),
    "drips its first line": (again_and_again(b"HTTP/1.1 2", b"0"), "did not come to an end in time"),
    "drips a header": (again_and_again(b"HTTP/1.1 200 OK\r\nA: ", b"b"), "did not come to an end in time"),
    "says wait for ever": (again_and_again(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "did not come to an end in time"),
    "has headers without end": (again_and_again(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 99), "100 headers"),
    "sends elsewhere": (
        lambda c: c.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://u:secret@x.example/secret\r\n\r\n"),
        "it sends elsewhere (302), to x.example, which is not followed",
    ),
    "answers 500": (lambda c: c.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), "HTTP Error 500"),
    "answers 404": (lambda c: c.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"), "HTTP Error 404"),
    "is none of HTTP": (lambda c: c.sendall(b"SSH-2.0-OpenSSH\r\n"), "BadStatusLine"),
    "hangs up": (lambda c: None, "Remote"),
}


@pytest.mark.parametrize("what", HTTP)
def test_a_webhook_whose_server(what: str, told: Messenger, said: Callable[[], list[Any]]) -> None:
    answer, why = HTTP[what]

    def answered(connection: socket.socket) -> None:
        request_of(connection)
        answer(connection)
        connection.shutdown(socket.SHUT_WR)
        to_its_end(connection)

    with server(answered) as one, server(lambda c: (request_of(c), c.sendall(OK))[0] and None) as other:
        began_s = monotonic_s()
        told.post(Notice("gas", {"alarm": "gas"}, f"http://127.0.0.1:{one.port}/"))
        told.post(Notice("fire", {"alarm": "fire"}, f"http://127.0.0.1:{other.port}/"))
        until(lambda: told.failed["webhook"] == 1)
        assert monotonic_s() - began_s < AT_MOST_S
        until(lambda: told.sent["webhook"] == 1)
        assert one.times == 3
    (line,) = said()
    assert (line["event"], line["alarm"]) == ("nobody was told of an alarm", "gas")
    assert why in line["error"]
    assert "secret" not in line["error"]


def test_what_a_server_does_after_it_has_taken_a_webhook_tells_it_no_second_time(told: Messenger) -> None:
    def answer(connection: socket.socket) -> None:
        request_of(connection)
        again_and_again(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x")(connection)

    with server(answer) as one:
        told.post(Notice("gas", {"alarm": "gas"}, f"http://127.0.0.1:{one.port}/"))
        until(lambda: told.sent["webhook"] == 1)
        until(lambda: told.ended)
        assert (one.times, told.failed["webhook"]) == (1, 0)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_webhook_whose_certificate_nobody_knows_is_not_told(
    told: Messenger, said: Callable[[], list[Any]], tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj", "/CN=a")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(["openssl", "req", "-x509", *kind, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    heard: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            heard.append(request_of(secured))

    with server(answer) as one:
        told.post(Notice("gas", {"alarm": "gas"}, f"https://127.0.0.1:{one.port}/"))
        until(lambda: told.failed["webhook"] == 1)
    assert "CERTIFICATE_VERIFY_FAILED" in said()[0]["error"]
    assert heard == []


@pytest.mark.parametrize("way", ["https", "tls"])
def test_a_server_that_begins_no_tls(way: str, told: Messenger) -> None:
    with server(to_its_end) as one:
        if way == "https":
            told.post(Notice("gas", {"alarm": "gas"}, f"https://127.0.0.1:{one.port}/"))
        else:
            told.use(mail_by(one.port, "tls"))
            told.post(Notice("gas", {"alarm": "gas"}, None, ("ada@example.org",)))
        until(lambda: sum(told.failed.values()) == 1)


SMTP: dict[str, Answer] = {
    "is silent": to_its_end,
    "greets without end": again_and_again(b"", b"220-here\r\n"),
    "drips its greeting": again_and_again(b"220 ", b"x"),
    "is silent after its greeting": in_turn(b"220 here\r\n"),
    "takes the sender and is silent": in_turn(b"220 here\r\n", FINE, FINE),
    "has no room": in_turn(b"220 here\r\n", FINE, b"452 no room\r\n", FINE),
    "takes nobody": in_turn(b"220 here\r\n", FINE, FINE, b"550 nobody\r\n", FINE),
    "hangs up": lambda connection: None,
}


@pytest.mark.parametrize("what", SMTP)
def test_mail_whose_server(what: str, told: Messenger, said: Callable[[], list[Any]]) -> None:
    with server(SMTP[what]) as one:
        told.use(mail_by(one.port))
        told.post(Notice("gas", {"alarm": "gas"}, None, ("ada@example.org",)))
        until(lambda: told.failed["email"] == 1)
        assert one.times == 3
    assert [(line["event"], line["by"]) for line in said()] == [("nobody was told of an alarm", "email")]


GOODBYE = {
    "silent": to_its_end,
    "endless": again_and_again(b"", b"221-bye\r\n"),
    "odd": lambda c: c.sendall(b"500 what\r\n"),
}


@pytest.mark.parametrize("then", GOODBYE.values(), ids=GOODBYE)
def test_mail_that_was_taken_is_sent_no_second_time(then: Answer, told: Messenger) -> None:
    with server(in_turn(b"220 here\r\n", FINE, FINE, FINE, b"354 go on\r\n", then=then)) as one:
        told.use(mail_by(one.port))
        told.post(Notice("gas", {"alarm": "gas"}, None, ("ada@example.org",)))
        until(lambda: told.sent["email"] == 1)
        until(lambda: told.ended)
        assert (one.times, told.failed["email"]) == (1, 0)


def test_who_was_refused_among_others_is_named(told: Messenger, said: Callable[[], list[Any]]) -> None:
    replies = (b"220 here\r\n", FINE, FINE, FINE, b"550 unknown\r\n", b"354 go on\r\n", b"221 bye\r\n")
    with server(in_turn(*replies)) as one:
        told.use(mail_by(one.port))
        told.post(Notice("gas", {"alarm": "gas"}, None, ("ada@example.org", "bob@example.org")))
        until(lambda: told.sent["email"] == 1)
        until(lambda: told.ended)
    assert [(line["event"], line["refused"]) for line in said()] == [
        ("not everybody was told of an alarm", ["bob@example.org"])
    ]


def test_what_is_infinite_is_json_all_the_same(told: Messenger) -> None:
    heard: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        data = request_of(connection)
        while not data.endswith(b"}"):
            data += connection.recv(65536)
        heard.append(data.partition(b"\r\n\r\n")[2])
        connection.sendall(OK)

    def never(word: str) -> None:
        pytest.fail(f"{word} is no JSON")

    with server(answer) as one:
        told.post(Notice("hot", {"alarm": "hot", "value": float("inf")}, f"http://127.0.0.1:{one.port}/"))
        until(lambda: told.sent["webhook"] == 1)
    assert json.loads(heard[0], parse_constant=never)["value"] == "inf"
