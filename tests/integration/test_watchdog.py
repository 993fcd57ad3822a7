"""The watchdog on real lines and processes: what is on the wire, and who still lives, after the manager was killed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duodaq import sim
from duodaq.clock import Deadline, block, monotonic_s, utc_ns
from duodaq.errors import DeliveryError, LifecycleError
from duodaq.watchdog import ask_watchdog_to_stop_all

pytestmark = pytest.mark.serial

LIMIT_S = 0.5
"""What the SPEC gives the watchdog, from the manager's death to the last byte of a crash action."""

BLOCKED = "import signal, socket; signal.signal(signal.SIGTERM, signal.SIG_IGN); socket.create_server(('', 0)).accept()"
STOPPED = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"


class FarEnd:
    """What a device hears, with the moment of the last byte."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.heard = b""
        self.last_s = 0.0

    def read(self) -> None:
        with contextlib.suppress(OSError):
            if heard := os.read(self.descriptor, 65536):
                self.heard += heard
                self.last_s = monotonic_s()


class Pty(FarEnd):
    def __init__(self) -> None:
        master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.path = os.ttyname(self.slave)
        super().__init__(master)

    def close(self) -> None:
        os.close(self.descriptor)
        os.close(self.slave)


class Tcp:
    """A device on TCP; `ends` are its connections, in their order."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(5)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections: list[socket.socket] = []

    def accept(self) -> FarEnd:
        connection, _ = self.listener.accept()
        self.connections.append(connection)
        return FarEnd(connection.fileno())

    def close(self) -> None:
        for connection in [self.listener, *self.connections]:
            connection.close()


def hear(*ends: FarEnd, until: Callable[[], bool], limit_s: float = 3.0) -> None:
    """Read from `ends` until that holds."""
    deadline = Deadline(limit_s)
    while not until():
        assert not deadline.passed, [end.heard[-200:] for end in ends]
        ready = select.select([end.descriptor for end in ends], [], [], 0.02)[0]
        for end in ends:
            if end.descriptor in ready:
                end.read()


class Manager:
    """The program under the watchdog's eyes."""

    def __init__(self, folder: Path, **ask: Any) -> None:
        self.socket = folder / "wd.sock"
        self.log = folder / "watchdog.log"
        ask = {"socket": str(self.socket), "log": str(self.log), "workers": [], **ask}
        script = Path(__file__).with_name("manager_to_kill.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(ask)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.watchdog = 0
        self.workers: list[int] = []
        self.pidfds: dict[int, int] = {}

    def ready(self) -> None:
        said = self.says()
        self.watchdog, self.workers = said["watchdog"], said["workers"]
        for pid in (self.watchdog, *self.workers):
            self.watch(pid)

    def watch(self, pid: int) -> None:
        self.pidfds[pid] = os.pidfd_open(pid)

    def says(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 30)[0], "the manager says nothing"
        line = self.process.stdout.readline()
        if not line:
            pytest.fail(self.process.communicate()[1])
        return json.loads(line)

    def kill(self) -> float:
        """SIGKILL; when that was."""
        killed_s = monotonic_s()
        self.process.kill()
        return killed_s

    def ended(self, pid: int, limit_s: float = 5.0) -> bool:
        return bool(select.select([self.pidfds[pid]], [], [], limit_s)[0])

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def close(self) -> None:
        self.process.kill()
        for pid, descriptor in self.pidfds.items():
            if pid != self.watchdog or not self.ended(pid):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)
        self.process.communicate()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, for sockets."""
    made = Path(tempfile.mkdtemp(prefix="wd-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def manage(folder: Path) -> Iterator[Callable[..., Manager]]:
    made: list[Manager] = []

    def start(**ask: Any) -> Manager:
        made.append(Manager(folder, **ask))
        return made[-1]

    yield start
    for manager in made:
        manager.close()


@pytest.fixture
def pty() -> Iterator[Pty]:
    made = Pty()
    yield made
    made.close()


@pytest.fixture
def tcp() -> Iterator[Tcp]:
    made = Tcp()
    yield made
    made.close()


def stage(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "terminator": "\r", "crash": ["1ST\r", "2ST\r", "MF\r"], "stop_all": ["AB\r"], **more}


# --- the manager is killed


@pytest.mark.alone("measures from the death to the last byte of the crash action")
def test_kill_9_ends_blocked_workers_and_puts_the_crash_actions_on_the_wire_in_order(
    manage: Callable[..., Manager], pty: Pty, tcp: Tcp
) -> None:
    quiet = {"tcp": tcp.address, "terminator": "\n", "stop_all": ["OUTP OFF\n"]}
    manager = manage(ports={"stage": stage(pty.path), "supply": quiet}, workers=[BLOCKED, STOPPED])
    manager.ready()
    supply = tcp.accept()
    killed_s = manager.kill()
    hear(pty, supply, until=lambda: len(pty.heard) >= len(b"\r1ST\r2ST\rMF\r"))
    assert pty.heard == b"\r1ST\r2ST\rMF\r"
    assert pty.last_s - killed_s < LIMIT_S
    assert all(manager.ended(pid, 0.0) for pid in manager.workers), "the actions came before the workers' end"
    assert manager.ended(manager.watchdog)
    assert monotonic_s() - killed_s < 1.0
    assert supply.heard == b"", "a port without a crash action was written to"
    assert not manager.socket.exists()
    assert [line["port"] for line in manager.logged("crash actions written")] == ["stage"]


@pytest.mark.alone("measures from the death to the last byte of the crash action")
def test_a_port_that_takes_nothing_keeps_no_other_waiting(manage: Callable[..., Manager], pty: Pty, tcp: Tcp) -> None:
    blocked = {"tcp": tcp.address, "terminator": "\n", "crash": ["OUTP OFF\n"], "full": True}
    manager = manage(ports={"blocked": blocked, "stage": stage(pty.path)})
    manager.ready()
    tcp.accept()
    killed_s = manager.kill()
    hear(pty, until=lambda: pty.heard.endswith(b"MF\r"))
    assert pty.last_s - killed_s < 0.2
    assert manager.ended(manager.watchdog)
    assert monotonic_s() - killed_s < 1.0
    assert "took 0 of" in manager.logged("crash actions failed")[0]["error"]


def test_what_fills_a_blocked_tty_is_taken_back_so_that_the_actions_come_first(
    manage: Callable[..., Manager], pty: Pty
) -> None:
    manager = manage(ports={"stage": stage(pty.path, full=True)})
    manager.ready()
    killed_s = manager.kill()
    assert manager.ended(manager.watchdog)  # nobody has read yet: there is room because some was made
    assert monotonic_s() - killed_s < 1.0
    hear(pty, until=lambda: pty.heard.endswith(b"MF\r"))
    assert pty.heard.lstrip(b"x") == b"\r1ST\r2ST\rMF\r"


def test_a_child_that_the_manager_forked_does_not_hide_its_end(manage: Callable[..., Manager], pty: Pty) -> None:
    manager = manage(ports={"stage": stage(pty.path)}, forks=True)
    manager.ready()
    children = Path(f"/proc/{manager.process.pid}/task/{manager.process.pid}/children").read_text().split()
    (forked,) = [int(pid) for pid in children if int(pid) != manager.watchdog]
    manager.watch(forked)
    manager.kill()
    hear(pty, until=lambda: pty.heard.endswith(b"MF\r"))


@pytest.mark.alone("measures from the death to the last byte of the crash action")
def test_a_line_that_was_not_open_is_opened(manage: Callable[..., Manager], pty: Pty, tcp: Tcp) -> None:
    supply = {"tcp": tcp.address, "terminator": "\n", "crash": ["OUTP OFF\n"], "closed": True}
    manager = manage(ports={"stage": stage(pty.path, closed=True), "supply": supply})
    manager.ready()
    before = termios.tcgetattr(pty.slave)
    before[4] = before[5] = termios.B38400
    before[3] |= termios.ECHO | termios.ICANON
    termios.tcsetattr(pty.slave, termios.TCSANOW, before)
    killed_s = manager.kill()
    far = tcp.accept()
    hear(pty, far, until=lambda: pty.heard.endswith(b"MF\r") and far.heard.endswith(b"OFF\n"))
    assert (pty.heard, far.heard) == (b"\r1ST\r2ST\rMF\r", b"\nOUTP OFF\n")
    assert max(pty.last_s, far.last_s) - killed_s < LIMIT_S
    after = termios.tcgetattr(pty.slave)
    assert (after[3], after[4], after[5]) == (0, termios.B9600, termios.B9600)


def test_a_connection_that_turns_out_to_be_dead_is_made_again(manage: Callable[..., Manager], tcp: Tcp) -> None:
    manager = manage(ports={"supply": {"tcp": tcp.address, "terminator": "\n", "crash": ["OUTP OFF\n"]}})
    manager.ready()
    tcp.accept()
    os.kill(manager.process.pid, signal.SIGSTOP)  # so that it does not see the line die
    tcp.connections[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    tcp.connections[0].close()
    manager.kill()
    far = tcp.accept()
    hear(far, until=lambda: far.heard == b"\nOUTP OFF\n")
    assert manager.ended(manager.watchdog)
    assert manager.logged("crash actions written")[0]["reopened"] is True


def test_another_program_that_has_the_line_is_left_alone(manage: Callable[..., Manager], pty: Pty) -> None:
    fcntl.flock(pty.slave, fcntl.LOCK_EX)
    manager = manage(ports={"stage": stage(pty.path, closed=True)})
    manager.ready()
    manager.kill()
    assert manager.ended(manager.watchdog)
    assert "cannot be opened again" in manager.logged("crash actions failed")[0]["error"]
    assert not select.select([pty.descriptor], [], [], 0)[0]


def test_what_comes_back_is_read_and_written_down(manage: Callable[..., Manager], tcp: Tcp) -> None:
    manager = manage(ports={"supply": {"tcp": tcp.address, "terminator": "\n", "crash": ["OUTP OFF;OUTP?\n"]}})
    manager.ready()
    far = tcp.accept()
    manager.kill()
    hear(far, until=lambda: far.heard.endswith(b"OUTP?\n"))
    tcp.connections[0].sendall(b"0\n")
    assert manager.ended(manager.watchdog)
    assert [(line["port"], line["beginning"]) for line in manager.logged("read back")] == [("supply", "0\n")]


@pytest.mark.parametrize("half", ["1VA", "1PA1", "2PR-", ""])
def test_half_a_command_does_no_harm_and_the_axis_stands(manage: Callable[..., Manager], half: str) -> None:
    with sim.launch_table(1) as table, sim.launch("esp300", table=table) as device:
        moving = "1MO;1VA0.5;1PA20\r"
        port = {"path": device.address, "terminator": "\r", "crash": ["ST\r"], "half": moving + half}
        manager = manage(ports={"stage": port})
        manager.ready()
        deadline = Deadline(5)
        while not table.state().moving[1]:
            assert not deadline.passed, "it never moved"
            block(0.01)
        manager.kill()
        assert manager.ended(manager.watchdog)
        deadline = Deadline(1)
        while any(table.state().moving.values()) and not deadline.passed:
            block(0.01)
        stands = table.state()
        block(0.1)
        assert not any(stands.moving.values())
        assert table.state() == stands
        assert read_position(device.address) < 19.0


def read_position(path: str) -> float:
    """Ask the controller itself, over the line that must be free again."""
    import serial

    with serial.Serial(path, 19200, timeout=2, exclusive=True) as line:
        line.write(b"1TP?\r")
        return float(line.read_until(b"\r\n"))


# --- the manager lives


@pytest.mark.alone("a stop-all must be answered within 0.4 s")
def test_the_stop_all_of_a_sleeping_manager_goes_through_the_watchdog(
    manage: Callable[..., Manager], pty: Pty, tcp: Tcp
) -> None:
    blocked = {"tcp": tcp.address, "terminator": "\n", "stop_all": ["OUTP OFF\n"], "full": True}
    closed = {"tcp": "127.0.0.1:1", "terminator": "\n", "stop_all": ["OUTP OFF\n"], "closed": True}
    manager = manage(ports={"stage": stage(pty.path), "blocked": blocked, "closed": closed}, workers=[BLOCKED])
    manager.ready()
    tcp.accept()
    os.kill(manager.process.pid, signal.SIGSTOP)
    asked_ns = utc_ns()
    report = ask_watchdog_to_stop_all(manager.socket, 2.0, by="a test")
    answered_ns = utc_ns()
    hear(pty, until=lambda: pty.heard == b"\rAB\r", limit_s=1.0)
    second = 1_000_000_000
    assert asked_ns - second / 10 < report["ports"]["stage"]["written_ns"] < answered_ns + second / 10
    assert answered_ns - asked_ns < 0.4 * second
    assert "took 0 of" in report["ports"]["blocked"]["error"]
    assert report["ports"]["closed"] == {"error": "it has no line"}
    os.kill(manager.process.pid, signal.SIGCONT)
    assert manager.says()["stopped"] == report
    assert not manager.ended(manager.workers[0], 0.0)
    assert not manager.ended(manager.watchdog, 0.0)


@pytest.mark.alone("measures from the death to the last byte of the crash action")
def test_a_manager_that_dies_during_a_stop_all_still_gets_its_crash_actions(
    manage: Callable[..., Manager], pty: Pty, tcp: Tcp
) -> None:
    blocked = {"tcp": tcp.address, "terminator": "\n", "stop_all": ["OUTP OFF\n"], "full": True}
    manager = manage(ports={"stage": stage(pty.path), "blocked": blocked})
    manager.ready()
    tcp.accept()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(str(manager.socket))
        client.send(b'{"ask": "stop-all"}')
        hear(pty, until=lambda: pty.heard == b"\rAB\r")
        killed_s = manager.kill()
        hear(pty, until=lambda: pty.heard.endswith(b"MF\r"))
    assert pty.last_s - killed_s < 0.14, "it waited for the stop-all of the blocked line"


def test_no_signal_ends_it(manage: Callable[..., Manager], pty: Pty) -> None:
    manager = manage(ports={"stage": stage(pty.path)})
    manager.ready()
    assert os.getsid(manager.watchdog) == manager.watchdog != os.getsid(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGUSR1):
        os.kill(manager.watchdog, number)
    assert "stage" in ask_watchdog_to_stop_all(manager.socket)["ports"]
    assert not manager.ended(manager.watchdog, 0.0)


def test_garbage_and_idle_clients_end_nothing(manage: Callable[..., Manager], pty: Pty) -> None:
    manager = manage(ports={"stage": stage(pty.path)})
    manager.ready()
    idle = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(20)]
    for client in idle:
        client.connect(str(manager.socket))
    for said in (b"\xff\xfe", b"[]", b"{}", b'{"ask": 5}', b'"stop-all"', b"[" * 50_000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(2)
            client.connect(str(manager.socket))
            client.send(said)
            assert "error" in json.loads(client.recv(65536))
    assert ask_watchdog_to_stop_all(manager.socket)["ports"]["stage"]["written_ns"]
    assert pty.heard == b""
    assert len(os.listdir(f"/proc/{manager.watchdog}/fd")) < 20
    for client in idle:
        client.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_turned_away(manage: Callable[..., Manager], pty: Pty) -> None:
    manager = manage(ports={"stage": stage(pty.path)})
    manager.ready()
    assert manager.socket.stat().st_mode & 0o777 == 0o600
    manager.socket.parent.chmod(0o755)
    code = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.settimeout(5); s.connect(sys.argv[1])\n"
        'try:\n s.send(b\'{"ask": "stop-all"}\')\n print(s.recv(1000))\n'
        "except OSError as error: print(error)"
    )

    def ask() -> str:
        command = [sys.executable, "-S", "-c", code, str(manager.socket)]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return asked.stdout + asked.stderr

    assert "Permission denied" in ask()
    manager.socket.chmod(0o666)
    assert "written" not in ask()
    assert "65534" in manager.logged("client refused")[0]["error"]
    assert ask_watchdog_to_stop_all(manager.socket)["ports"]["stage"]["written_ns"]


def test_without_a_watchdog_the_question_says_so(folder: Path) -> None:
    with pytest.raises(LifecycleError, match="no watchdog answers"):
        ask_watchdog_to_stop_all(folder / "nobody.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as deaf:
        deaf.bind(str(folder / "deaf.sock"))
        deaf.listen()
        with pytest.raises(DeliveryError, match=r"did not answer within 0\.1 s"):
            ask_watchdog_to_stop_all(folder / "deaf.sock", 0.1)


# --- the watchdog itself is killed


@pytest.mark.alone("measures from the death to the last byte of the crash action")
def test_a_watchdog_that_was_killed_is_started_again_and_knows_everything(
    manage: Callable[..., Manager], pty: Pty
) -> None:
    manager = manage(ports={"stage": stage(pty.path)}, workers=[STOPPED])
    manager.ready()
    os.kill(manager.watchdog, signal.SIGKILL)
    manager.ended(manager.watchdog)
    again = manager.says()["watchdog"]
    assert again != manager.watchdog
    manager.watchdog = again
    manager.watch(again)
    assert ask_watchdog_to_stop_all(manager.socket)["ports"]["stage"]["written_ns"]
    killed_s = manager.kill()
    hear(pty, until=lambda: pty.heard.endswith(b"MF\r"))
    assert pty.heard == b"\rAB\r\r1ST\r2ST\rMF\r"
    assert pty.last_s - killed_s < LIMIT_S
    assert manager.ended(manager.workers[0], 0.0)


@pytest.mark.alone("measures from the death to the last byte of the crash action")
def test_median_time_from_death_to_last_byte(manage: Callable[..., Manager], pty: Pty) -> None:
    took_ms: list[float] = []
    for _ in range(int(os.environ.get("DUODAQ_WATCHDOG_KILLS", "3"))):
        pty.heard = b""
        manager = manage(ports={"stage": stage(pty.path)}, workers=[STOPPED])
        manager.ready()
        killed_s = manager.kill()
        hear(pty, until=lambda: pty.heard.endswith(b"MF\r"))
        took_ms.append((pty.last_s - killed_s) * 1000)
        assert manager.ended(manager.watchdog)
        manager.process.wait()
    median_ms, worst_ms = statistics.median(took_ms), max(took_ms)
    logging.getLogger(__name__).info("death to last byte: median %.1f ms, worst %.1f ms", median_ms, worst_ms)
    assert worst_ms < LIMIT_S * 1000
