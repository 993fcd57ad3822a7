from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Awaitable, Callable

from duodaq.testing.coexistence._bench import Bench

_WHERE = {
    "_lifecycle": (
        "test_dual_runtime_startup_shutdown",
        "test_shutdown_timeout_enforcement",
        "test_v2_and_v4_actors_concurrent",
    ),
    "_data": ("test_data_flow_v2_to_v4", "test_data_flow_v4_to_v2", "test_state_synchronization"),
    "_isolation": ("test_v2_error_does_not_crash_v4", "test_v4_error_does_not_crash_v2"),
    "_concurrency": (
        "test_concurrent_message_throughput",
        "test_resource_contention",
        "test_graceful_shutdown_with_active_ops",
    ),
    "_communication": ("test_bidirectional_communication_channel",),
}


def _found() -> tuple[Callable[[Bench], Awaitable[None]], ...]:
    tests: list[Callable[[Bench], Awaitable[None]]] = []
    for module, names in _WHERE.items():
        where = f"{__package__}.{module}"
        if importlib.util.find_spec(where) is None:
            continue
        there = importlib.import_module(where)
        tests.extend(getattr(there, name) for name in names if hasattr(there, name))
    return tuple(tests)


TWELVE = _found()
