"""The twelve coexistence tests, on real runtimes and on simulators at real ptys and sockets.

Each is ``async def test_…(bench: Bench)``. One by itself: ``python -m duodaq.testing.coexistence TEST``; all of them:
``pytest tests/integration/test_coexistence.py``, each in every mode. A feature is shown by a marked assertion,
`proves`; the sabotages in `_sabotages` prove that it can fail.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Awaitable, Callable

from duodaq.testing.coexistence._bench import MODES, Bench, Mode, outcome, until
from duodaq.testing.coexistence._imitation import FlagAndQueue, imitating
from duodaq.testing.coexistence._proof import FeatureFailure, proves
from duodaq.testing.coexistence._sabotage import SABOTAGES, Sabotage, sabotage

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
        if importlib.util.find_spec(f"{__name__}.{module}") is None:
            continue
        there = importlib.import_module(f"{__name__}.{module}")
        tests.extend(getattr(there, name) for name in names if hasattr(there, name))
    return tuple(tests)


TWELVE = _found()
globals().update({test.__name__: test for test in TWELVE})

__all__ = [
    "MODES",
    "SABOTAGES",
    "TWELVE",
    "Bench",
    "FeatureFailure",
    "FlagAndQueue",
    "Mode",
    "Sabotage",
    "imitating",
    "outcome",
    "proves",
    "sabotage",
    "until",
]
