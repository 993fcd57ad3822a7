"""What a worker process must not load: pandas costs a quarter of a second and 30 MB in each."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import numpy as np
import pyarrow as pa
import duodaq.workers._worker_main
import duodaq.app
from duodaq.bridge import batches_of, measurements_of
from duodaq.model import Scalar, Spectrum, Vector
from duodaq.schema import frame_batch, frames_of, scalar_batch, scpi_event_batch, spectrum_batch, stage_batch
from duodaq.schema import vector_batch
one = {"t_ns": [1, 2], "sequence": [0, 1]}
batches = [
    scalar_batch([Scalar("a", "b", "V", 1, 0, 2.0), Scalar("a", "b", "mV", 1, 1, 2.0)]),
    vector_batch([Vector("a", "b", "V", 1, 0, np.arange(3.0))]),
    spectrum_batch([Spectrum("a", "b", "V", 1, 0, np.arange(3.0), np.arange(3.0), "nm")]),
    frame_batch(np.zeros((5, 6), np.uint16), instrument="c", channel="f", t_ns=1, sequence=0, frame_number=0),
    stage_batch(instrument="s", channel="x", axis=["x", "y"], position=[1.0, 2.0], velocity=[None, 1.0],
                state=["idle", "moving"], unit=["mm", "mm"], **one),
    scpi_event_batch(instrument="d", command=["a", "b"], response=[None, "é"], success=[True, False],
                     error=["x", None], **one),
]
for batch in batches:
    batch.validate(full=True)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    back = pa.ipc.open_stream(sink.getvalue()).read_next_batch()
    assert back.equals(batch) and back.schema.equals(batch.schema)
assert batches[5].column("response").to_pylist() == [None, "é"]
assert batches[5].column("success").to_pylist() == [True, False]
assert batches[4].column("velocity").to_pylist() == [None, 1.0]
frames_of(batches[3])
for batch in batches[:4]:
    measurements_of(batch)
sys.exit("pandas" in sys.modules)
"""


def test_no_worker_loads_pandas_to_make_its_batches() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], timeout=60, check=True)
