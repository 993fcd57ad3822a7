"""What the log of a wire takes, in memory and not in bytes of the wire."""

from __future__ import annotations

import tracemalloc

from duodaq.model import WireRecord
from duodaq.ports import WireLog


def test_a_wire_log_of_many_short_exchanges_keeps_to_its_memory_too() -> None:
    log = WireLog(max_bytes=2**20)
    tracemalloc.start()
    try:
        for number in range(20_000):  # as the broker makes them: nothing of one record is shared with the next
            record = WireRecord(
                10**18 + number, "p", "<", b"TB?%d" % number, f"v2.dmm {number}", number, f"{number:032x}"
            )
            log.add(record)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.3 * 2**20
    assert log.pushed_out > 10_000
    assert log.records()[-1].exchange == 19_999
