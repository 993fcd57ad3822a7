"""Live streams and recorded runs over Arrow Flight."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import flight

import duodaq.flight
from duodaq import schema
from duodaq.clock import Deadline, block, monotonic_s, pause
from duodaq.errors import ConfigError, TornFileError
from duodaq.flight import FlightLab, FlightService, LiveBatch, Lost, Serving, _live
from duodaq.link import tap_path
from duodaq.model import Scalar
from duodaq.storage import JournalReader, recover
from duodaq.storage.reading._index import RowsIndex
from duodaq.tap import TapServer
from duodaq.testing import growing_run, knife_edge
from duodaq.v4 import DataPublisher

STREAM = "dmm.voltage"
READER = """\
import json, sys
from pyarrow import flight
client = flight.FlightClient(sys.argv[1])
asked = json.dumps({"stream": "cam.frames", "name": "another program", "capacity": 4}).encode()
writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(asked))
print(reader.read_chunk().app_metadata.to_pybytes().decode(), flush=True)
writer.write_metadata(json.dumps({"credits": 64}).encode())
while True:
    reader.read_chunk()
    print("got", flush=True)
"""


def rows(first: int, count: int = 10, unit: str = "V", metadata: dict[str, Any] | None = None) -> pa.RecordBatch:
    return schema.scalar_batch(
        [Scalar("dmm", "voltage", unit, 1000 + n, n, n / 7, "v4", metadata) for n in range(first, first + count)]
    )


def frame(number: int, height: int = 4, width: int = 6) -> pa.RecordBatch:
    pixels = np.full((height, width), number, np.uint16)
    return schema.frame_batch(
        pixels, instrument="cam", channel="frames", t_ns=number, sequence=number, frame_number=number
    )


class Lab:
    """A hub with a tap, as a running lab has them, and a service beside it."""

    def __init__(self, folder: Path) -> None:
        self.hub = DataPublisher("v4")
        self.socket = folder / "lab.sock"
        self.tap = TapServer(tap_path(self.socket), self.hub, lambda: [STREAM, "cam.frames"])

    async def until(self, condition: Callable[[], Any]) -> None:
        deadline = monotonic_s() + 20
        while not condition():
            assert monotonic_s() < deadline, "it did not come to that"
            await pause(0.005)


class Collected(threading.Thread):
    """Reads a live stream in a thread of its own: `count` batches, or all."""

    def __init__(self, live: Any, count: int | None = None) -> None:
        super().__init__()
        self.live = live
        self.got: list[LiveBatch] = []
        self._count = count
        self.start()

    def run(self) -> None:
        for one in self.live:
            self.got.append(one)
            if len(self.got) == self._count:
                return


@pytest.fixture
def folder() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="flight-"))  # a socket's path must be short
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module", autouse=True)
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """gRPC and Arrow keep a few pipes from their first use on."""
    runs = tmp_path_factory.mktemp("runs")
    with growing_run(runs / "first") as journal:
        journal.write([rows(0)])
        journal.close({"exit_status": "success"})
    with service(None, runs) as served, FlightLab(served.address) as client:
        assert [*client.replay("last", STREAM)]
        plain = flight.FlightClient(served.address)
        (info,) = plain.list_flights()
        plain.do_get(info.endpoints[0].ticket).read_all()
        plain.close()


@asynccontextmanager
async def running_lab(folder: Path) -> AsyncIterator[Lab]:
    lab = Lab(folder)
    lab.tap.start()
    try:
        yield lab
    finally:
        await lab.tap.aclose()


@contextmanager
def service(lab: Lab | None, runs: Path | None = None, serving: Serving | None = None) -> Iterator[FlightService]:
    made = FlightService(serving or Serving(), None if lab is None else lambda: lab.socket, runs)
    try:
        yield made
    finally:
        made.shutdown()


async def in_thread(act: Callable[[], Any]) -> Any:
    """What `act`, which blocks, returns or raises; the loop goes on meanwhile."""
    found: list[Any] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            found.append(act())
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        await pause(0.005)
    if failed:
        raise failed[0]
    return found[0]


async def test_rows_arrive_as_they_were_published_with_numbers_units_and_metadata(folder: Path) -> None:
    async with running_lab(folder) as lab:
        with service(lab) as served, duodaq.flight.connect(served.address) as client:
            live = await in_thread(lambda: client.live(STREAM, credits=4))
            reader = Collected(live)
            sent = [rows(10 * n, unit="V" if n % 3 else "mV") for n in range(9)]
            sent += [rows(90, metadata={"range": 3}), rows(100, metadata={"range": "ä"}), rows(110)]
            for batch in sent:
                lab.hub.publish(batch)
                lab.hub.publish(frame(1))
            await lab.until(lambda: len(reader.got) == len(sent))
            await lab.tap.aclose()
            await lab.until(lambda: not reader.is_alive())
            assert live.ended == "the lab has ended"
            live.close()
    for number, (got, batch) in enumerate(zip(reader.got, sent, strict=True)):
        assert (got.number, got.missed, got.dropped) == (number, 0, 0)
        assert got.batch.equals(batch)
        assert schema.scalars_of(got.batch) == schema.scalars_of(batch)
    row = lab.hub.ledger().row(STREAM, live.subscriber)
    assert (row.delivered, row.lost, row.balanced) == (120, 0, True)


async def test_frames_go_on_when_their_shape_changes(folder: Path) -> None:
    async with running_lab(folder) as lab:
        with service(lab) as served, duodaq.flight.connect(served.address) as client:
            live = await in_thread(lambda: client.live("cam.frames", credits=3))
            reader = Collected(live, 12)
            sent = [frame(n, 4 + n // 3, 6) for n in range(12)]
            for batch in sent:
                lab.hub.publish(batch)
            await lab.until(lambda: not reader.is_alive())
            await in_thread(live.close)
    assert [got.number for got in reader.got] == [*range(12)]
    for got, batch in zip(reader.got, sent, strict=True):
        assert np.array_equal(schema.pixels_of(got.batch), schema.pixels_of(batch))


class LateCredits:
    """The writing end of an exchange, for a reader that gives its next credits when the exchange has ended."""

    def __init__(self, writer: Any, ended: Callable[[], bool]) -> None:
        self._writer = writer
        self._ended = ended

    def write_metadata(self, data: bytes) -> None:
        limit = Deadline(20.0)
        while not self._ended() and not limit.passed:
            block(0.002)
        self._writer.write_metadata(data)

    def close(self) -> None:
        self._writer.close()


async def test_credits_that_are_under_way_when_the_columns_change_cost_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, hear_out = threading.Event(), _live._hear_out
    monkeypatch.setattr(_live, "_hear_out", lambda reader: (over.set(), hear_out(reader)))
    async with running_lab(folder) as lab:
        with service(lab) as served, duodaq.flight.connect(served.address) as client:
            live = await in_thread(lambda: client.live("cam.frames", credits=2))
            live._writer = LateCredits(live._writer, over.is_set)
            lab.hub.publish(frame(0, 4, 6))
            lab.hub.publish(frame(1, 8, 6))
            reader = Collected(live, 2)
            await lab.until(lambda: not reader.is_alive())
            await in_thread(live.close)
    assert [got.number for got in reader.got] == [0, 1]


async def test_a_reader_that_comes_back_too_late_is_told_that_it_has_missed_rows(folder: Path) -> None:
    async with running_lab(folder) as lab:
        with service(lab) as served, duodaq.flight.connect(served.address) as client:
            live = await in_thread(lambda: client.live("cam.frames", credits=4))
            lab.hub.publish(frame(0, 4, 6))
            lab.hub.publish(frame(1, 8, 6))
            assert (await in_thread(lambda: next(live))).number == 0
            await lab.until(lambda: served._live._parked)
            served._live.close()  # as the sweep does, in time
            with pytest.raises(flight.FlightServerError, match="was given up: rows that came since"):
                await in_thread(lambda: next(live))
            assert "open the stream anew" in live.ended
            assert [*live] == []


@pytest.mark.parametrize("token", ["sécret", "two\nlines", " secret"])
def test_a_token_that_no_header_carries_is_refused_at_the_start(token: str) -> None:
    for make in (lambda: FlightService(Serving(token=token), None, None), lambda: FlightLab("grpc://[::1]:1", token)):
        with pytest.raises(ConfigError, match="cannot be shown") as refused:
            make()
        assert token not in str(refused.value)


async def test_what_a_slow_reader_misses_is_told_it_and_in_the_ledger(folder: Path) -> None:
    async with running_lab(folder) as lab:
        with service(lab) as served, duodaq.flight.connect(served.address) as client:
            live = await in_thread(lambda: client.live(STREAM, credits=4, capacity=8))
            subscriber = live.subscriber
            for n in range(4):
                lab.hub.publish(rows(10 * n))
            await lab.until(lambda: lab.hub.ledger().row(STREAM, subscriber).delivered == 40)
            for n in range(4, 100):
                lab.hub.publish(rows(10 * n))
            reader = Collected(live, 12)
            await lab.until(lambda: not reader.is_alive())
            row = lab.hub.ledger().row(STREAM, subscriber)
            await in_thread(live.close)
            await lab.until(lambda: not lab.tap.readers)
    got = reader.got
    assert [one.number for one in got] == [*range(12)]
    assert [one.missed for one in got].count(0) == 11
    assert sum(one.missed for one in got) == live.dropped == row.dropped["drop-oldest"] == 1000 - 120
    numbers = [n for one in got for n in one.batch.column("sequence").to_pylist()]
    assert numbers[:40] == [*range(40)]
    assert numbers[40:] == [*range(920, 1000)]
    assert lab.hub.ledger().balanced


async def test_a_reader_that_stops_or_dies_costs_the_lab_nothing_and_the_service_ends_all_the_same(
    folder: Path, start_program: Callable[..., Any]
) -> None:
    async with running_lab(folder) as lab:
        command = ("-m", "duodaq.cli", "serve", "--flight", "--json", "--port", "0", "--lab", lab.socket)
        served = start_program(*command)
        await in_thread(lambda: served.wait_for("grpc://"))
        address = json.loads(served.said)["address"]
        reader, dying = reading_program(address), reading_program(address)
        try:
            assert reader.stdout is not None
            assert dying.stdout is not None
            begun = json.loads(await in_thread(reader.stdout.readline))["begun"]
            await in_thread(dying.stdout.readline)
            lab.hub.publish(frame(0, 1024, 1024))
            assert await in_thread(reader.stdout.readline) == "got\n"
            os.kill(reader.pid, signal.SIGSTOP)
            dying.kill()
            for n in range(1, 120):
                lab.hub.publish(frame(n, 1024, 1024))
                await pause(0.001)
            await lab.until(lambda: lab.hub.ledger().row("cam.frames", begun).lost > 0)
            await lab.until(lambda: lab.tap.readers == 1)
            row = lab.hub.ledger().row("cam.frames", begun)
            assert row.balanced
            assert row.in_flight <= 4
            served.interrupt(signal.SIGTERM)
            assert await in_thread(served.end) == 0
            await lab.until(lambda: not lab.tap.readers)
        finally:
            for one in (reader, dying):
                one.kill()
                one.communicate()
        begun_s = monotonic_s()
        await lab.tap.aclose()
        assert monotonic_s() - begun_s < 5
    assert lab.hub.ledger().balanced


def test_it_is_not_opened_to_others_without_a_token(duodaq_command: Callable[..., Any], tmp_path: Path) -> None:
    refused = duodaq_command("serve", "--flight", "--recorded", "--host", "0.0.0.0", "--runs", tmp_path)
    assert refused.returncode == 2
    assert "DUODAQ_FLIGHT_TOKEN" in refused.stderr
    with pytest.raises(ConfigError, match="a certificate and its key"):
        FlightService(Serving(certificate=b"PEM"), None, tmp_path)
    served = FlightService(Serving(host="0.0.0.0", token="secret"), None, tmp_path)
    address = served.address.replace("0.0.0.0", "127.0.0.1")
    try:
        for wrong in (None, "", "secre", "secret2"):
            with FlightLab(address, wrong) as client, pytest.raises(flight.FlightUnauthenticatedError):
                client.runs()
        with FlightLab(address, "secret") as client:
            assert client.runs() == []
    finally:
        served.shutdown()


def test_an_address_that_is_taken_is_said_to_be(tmp_path: Path) -> None:
    with service(None, tmp_path) as served:
        taken = int(served.address.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"port {taken} is taken: another program listens at 127.0.0.1:{taken}"):
            FlightService(Serving(port=taken), None, tmp_path)
    with pytest.raises(ConfigError, match=r"cannot listen at 203\.0"):
        FlightService(Serving(host="203.0.113.7", token="t"), None, tmp_path)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_with_a_certificate_it_speaks_tls(tmp_path: Path) -> None:
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2")
    files = ("-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate"))
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    subprocess.run(["openssl", "req", "-x509", *kind, *files, *subject], check=True, capture_output=True)
    certificate, key = (tmp_path / "certificate").read_bytes(), (tmp_path / "key").read_bytes()
    serving = Serving(token="t", certificate=certificate, key=key)
    with service(None, tmp_path, serving) as served:
        assert served.address.startswith("grpc+tls://")
        with FlightLab(served.address, "t", certificate) as client:
            assert client.runs() == []
        with FlightLab(served.address, "t") as stranger, pytest.raises(flight.FlightUnavailableError):
            stranger.runs()


def test_recorded_runs_are_replayed_as_they_were_published(tmp_path: Path) -> None:
    with growing_run(tmp_path / "runs" / "one") as journal:
        journal.write(knife_edge(5))
        journal.write([rows(10 * n, unit="V" if n % 3 else "mV") for n in range(9)])
        journal.write([frame(n, 3 + n // 2, 5) for n in range(4)])
        journal.close({"exit_status": "success"})
    recorded = JournalReader(tmp_path / "runs" / "one")
    with service(None, tmp_path / "runs") as served, FlightLab(served.address) as client:
        (facts,) = client.runs()
        for name in (facts["run"], str(facts["number"]), facts["directory"], "last"):
            assert [*client.replay(name, "meter.power")]
        for stream in recorded.streams:
            replayed, wanted = [*client.replay("last", stream)], [*recorded.batches(stream)]
            assert [b.to_pydict() for b in replayed] == [b.to_pydict() for b in wanted]
        plain = flight.FlightClient(served.address)
        infos = {json.loads(info.descriptor.command)["stream"]: info for info in plain.list_flights()}
        assert {stream: info.total_records for stream, info in infos.items()} == {
            "stage.x": 5,
            "meter.power": 5,
            "camera.frames": 5,
            "cam.frames": 4,
            STREAM: 90,
        }
        assert len(infos["cam.frames"].endpoints) == 2
        assert plain.do_get(infos["meter.power"].endpoints[0].ticket).read_all().num_rows == 5
        plain.close()


def test_a_ticket_is_for_the_run_that_was_the_last_when_it_was_asked_for(tmp_path: Path) -> None:
    for name, count in (("a", 5), ("b", 7)):
        with growing_run(tmp_path / name) as journal:
            journal.write([rows(0, count)])
            journal.close({"exit_status": "success"})
        with service(None, tmp_path) as served:
            plain = flight.FlightClient(served.address)
            if name == "a":
                asked = flight.FlightDescriptor.for_command(json.dumps({"run": "last", "stream": STREAM}))
                ticket = plain.get_flight_info(asked).endpoints[0].ticket
            assert plain.do_get(ticket).read_all().num_rows == 5
            plain.close()


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("where", ["inside", "at the end", "everywhere"])
def test_rows_that_are_damaged_are_told_of_where_they_would_be(tmp_path: Path, where: str, removed: bool) -> None:
    with growing_run(tmp_path / "run") as journal:
        journal.write([rows(10 * n) for n in range(4)])
        journal.write([rows(40, unit="mV"), rows(50)])
        journal.close({"exit_status": "success"})
    file = tmp_path / "run" / f"{STREAM}.arrows"
    data = bytearray(file.read_bytes())
    entries = RowsIndex(tmp_path / "run", JournalReader(tmp_path / "run").segments(STREAM)[0])._entries
    spoiled = {"inside": [3], "at the end": [6], "everywhere": [*range(1, 7)]}[where]
    for number in spoiled:
        data[(int(entries["place"][number]) & 0xFFFFFFFFFFFF) + 300] ^= 1
    file.write_bytes(data)
    if removed:
        recover(tmp_path / "run", finished_too=True)
    with service(None, tmp_path) as served, FlightLab(served.address) as client:
        came: list[int] = []
        replayed = client.replay("last", STREAM)
        with pytest.raises(TornFileError, match=r"dmm\.voltage lacks .*damage in dmm\.voltage\.arrows"):
            came.extend(n for batch in replayed for n in batch.column("sequence").to_pylist())
        assert came == {"inside": [*range(20)], "at the end": [*range(50)], "everywhere": []}[where]
        lost: list[Lost] = []
        numbers = [
            n for b in client.replay("run", STREAM, damaged=lost.append) for n in b.column("sequence").to_pylist()
        ]
        assert numbers == [n for n in range(60) if n // 10 + 1 not in spoiled]
        assert {(one.after, one.before) for one in lost} == {
            "inside": {(19, 30)}, "at the end": {(49, None)}, "everywhere": {(None, None)},
        }[where]  # fmt: skip
        plain = flight.FlightClient(served.address)
        (info,) = plain.list_flights()
        told = json.loads(info.app_metadata)["gaps"]
        assert [(gap["after"], gap["before"], gap["reason"]) for gap in told] == [
            (o.after, o.before, "damage") for o in lost
        ]
        plain.close()


async def test_a_stream_that_there_is_not_is_refused_with_those_that_there_are(folder: Path) -> None:
    async with running_lab(folder) as lab:
        with service(lab) as served, duodaq.flight.connect(served.address) as client:
            for wrong in ("dmm.volts", "dmm", ""):
                with pytest.raises(flight.FlightServerError, match=r"there are cam\.frames, dmm\.voltage"):
                    await in_thread(lambda wrong=wrong: client.live(wrong))
            live = await in_thread(lambda: client.live("new.one", wait=True))
            assert live.subscriber.startswith("flight python")
            await in_thread(live.close)


def test_what_makes_no_sense_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with service(None, tmp_path) as served, FlightLab(served.address) as client:
        with pytest.raises(flight.FlightServerError, match="no run '7'"):
            [*client.replay(7, "dmm.voltage")]
        with pytest.raises(flight.FlightUnavailableError, match="recorded runs only"):
            client.live("dmm.voltage")
        plain = flight.FlightClient(served.address)
        with pytest.raises(flight.FlightServerError, match="for instance"):
            plain.do_get(flight.Ticket(b"meter.power"))
        plain.close()


async def test_readers_ask_for_sensible_credits_and_only_so_many_come(folder: Path) -> None:
    async with running_lab(folder) as lab:
        with service(lab) as served:
            plain = flight.FlightClient(served.address)
            asked = flight.FlightDescriptor.for_command(json.dumps({"stream": STREAM}).encode())

            def exchange() -> tuple[Any, Any, str]:
                writer, reader = plain.do_exchange(asked)
                return writer, reader, json.loads(reader.read_chunk().app_metadata.to_pybytes())["begun"]

            writer, reader, begun = await in_thread(exchange)
            writer.write_metadata(b'{"credits": 2}')
            for n in range(5):
                lab.hub.publish(rows(10 * n))
            await in_thread(reader.read_chunk)
            await in_thread(reader.read_chunk)
            await lab.until(lambda: lab.hub.ledger().row(STREAM, begun).delivered == 20)
            writer.write_metadata(b'{"credits": 0}')
            assert "1 to 65536" in str(await in_thread(lambda: _raised(reader.read_chunk)))
            assert lab.hub.ledger().row(STREAM, begun).delivered == 20
            plain.close()


def reading_program(address: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", READER, address], stdout=subprocess.PIPE, text=True)


def _raised(act: Callable[[], Any]) -> Any:
    try:
        act()
    except flight.FlightError as error:
        return error
    return None
