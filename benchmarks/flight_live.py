"""How long a live row takes from the lab's hub to a reader over Arrow Flight, at 100,000 rows a second.

Three processes, as in a laboratory: the lab, which publishes 1,000 batches of 100 rows a second; the service, as
``duodaq serve --flight`` runs it; and the reader, here. Each batch holds the time at which it was published; the delay
is from then until the reader has the batch as Arrow. The clock is the machine's monotonic one, which all share.

Beside it, in alternation: a *bare socket*, over which a program sends the same batches, serialised, from process to
process at the same pace; and a *bare exchange* of Flight, whose handler makes the batches itself and sends them with
neither lab, nor queue, nor credits. These are the floor for one and for the other hop.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from _harness import Goal, parser, report
from pyarrow import flight, ipc

from duodaq import schema
from duodaq.model import Scalar

ROWS = 100
EVERY_S = 0.001
MODEL = schema.scalar_batch([Scalar("meter", "power", "W", 0, 0, 0.0, "v4")] * ROWS)


def batch_of(number: int) -> pa.RecordBatch:
    """A batch whose rows were all measured now, on the monotonic clock."""
    sequence = np.arange(number * ROWS, (number + 1) * ROWS, dtype=np.uint64)
    new = {
        "timestamp": pa.array(np.full(ROWS, time.monotonic_ns())).cast(pa.timestamp("ns")),
        "sequence": pa.array(sequence),
        "value": pa.array(np.sin(sequence / 7.0)),
    }
    columns = [new.get(field.name, MODEL.column(i)) for i, field in enumerate(MODEL.schema)]
    return pa.RecordBatch.from_arrays(columns, schema=MODEL.schema)


def paced(send: Callable[[pa.RecordBatch], Any], going: Callable[[], bool]) -> None:
    """Make and send a batch each millisecond; what was late is made up for."""
    due, number = time.monotonic(), 0
    while going():
        due += EVERY_S
        time.sleep(max(0.0, due - time.monotonic()))
        send(batch_of(number))
        number += 1


def lab(path: str) -> None:
    """The lab's process: a hub with its tap."""
    import asyncio

    from duodaq.clock import new_loop, pause
    from duodaq.tap import TapServer
    from duodaq.v4 import DataPublisher

    async def publish() -> None:
        hub = DataPublisher("v4")
        TapServer(Path(path), hub).start()
        print("ready", flush=True)
        due, number = time.monotonic(), 0
        while os.getppid() != 1:
            due += EVERY_S
            await pause(max(0.0, due - time.monotonic()))
            hub.publish(batch_of(number))
            number += 1

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(publish())


def bare_socket(path: str) -> None:
    """The process that sends the same over a socket: an Arrow stream."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(1)
        print("ready", flush=True)
        end, _ = listener.accept()
        with end, end.makefile("wb", 262144) as file, ipc.new_stream(file, MODEL.schema) as writer:

            def send(batch: pa.RecordBatch) -> None:
                writer.write_batch(batch)
                file.flush()

            paced(send, lambda: os.getppid() != 1)


class _Bare(flight.FlightServerBase):
    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        writer.begin(MODEL.schema)
        paced(writer.write_batch, lambda: not context.is_cancelled())


def bare_exchange(_: str) -> None:
    """The process that sends the same over Flight, and nothing else."""
    server = _Bare("grpc://127.0.0.1:0")
    print(f"grpc://127.0.0.1:{server.port}", flush=True)
    threading.Event().wait()


ROLES = {"lab": lab, "bare_socket": bare_socket, "bare_exchange": bare_exchange}


@contextmanager
def program(*command: str) -> Iterator[str]:
    """A process until the end of this context; the line that it says when it is ready."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            yield running.stdout.readline().strip()
        finally:
            running.kill()


def age_ms(batch: pa.RecordBatch) -> float:
    """How long ago a batch was made."""
    return (time.monotonic_ns() - batch.column(0)[0].value) / 1e6


def of_socket(path: str, count: int) -> list[float]:
    """Delays over the bare socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.connect(path)
        with end.makefile("rb", 262144) as file, ipc.open_stream(file) as reader:
            return [age_ms(reader.read_next_batch()) for _ in range(count)]


def of_exchange(address: str, count: int) -> list[float]:
    """Delays over the bare exchange."""
    with flight.FlightClient(address) as client:
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b""))
        delays = [age_ms(reader.read_chunk().data) for _ in range(count)]
        reader.cancel()
        with suppress(pa.ArrowException):
            writer.close()
        return delays


def of_lab(address: str, count: int) -> tuple[list[float], int]:
    """Delays from the lab's hub, and rows that were dropped on the way."""
    from duodaq.flight import connect

    with connect(address) as client, client.live("meter.power", credits=64) as live:
        return [age_ms(next(live).batch) for _ in range(count)], live.dropped


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] in ROLES:
        ROLES[sys.argv[1]](sys.argv[2])
        return
    quick = parser(__doc__).parse_args().quick
    count, rounds = (50, 1) if quick else (3000, 5)
    found: dict[str, list[list[float]]] = {"live": [], "bare socket": [], "bare exchange": []}
    dropped = 0
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            path = f"{folder}/{len(found['live'])}"
            with program(__file__, "bare_socket", f"{path}.bare"):
                found["bare socket"].append(of_socket(f"{path}.bare", count))
            with program(__file__, "bare_exchange", path) as address:
                found["bare exchange"].append(of_exchange(address, count))
            serve = ("-m", "duodaq.cli", "serve", "--flight", "--json", "--port", "0", "--lab", f"{path}.sock")
            with program(__file__, "lab", f"{path}.tap"), program(*serve) as said:
                delays, lost = of_lab(said.split('"')[3], count)
                found["live"].append(delays)
                dropped += lost
    goals: list[Goal] = []
    for name, taken in found.items():
        for part in (50, 95):
            value = median(float(np.percentile(one[len(one) // 10 :], part)) for one in taken)
            asked = {"relation": "≤", "limit": 2} if (name, part) == ("live", 95) else {}
            goals.append(Goal(f"{name}: p{part} at 100,000 rows/s", value, **asked, unit="ms"))
    goals.append(Goal("live: rows dropped", dropped, "≤", 0, "rows"))
    report(goals, quick=quick)


if __name__ == "__main__":
    sys.exit(main())
