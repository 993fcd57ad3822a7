"""The twelve coexistence tests, on real runtimes and on simulators at real ptys and sockets.

Each is ``async def test_…(bench: Bench)``. One by itself: ``python -m duodaq.testing.coexistence TEST``; all of them:
``pytest tests/integration/test_coexistence.py``, each in every mode. A feature is shown by a marked assertion,
`proves`; the sabotages in `_sabotages` prove that it can fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duodaq._names import names_of

if TYPE_CHECKING:
    from duodaq.testing.coexistence._bench import MODES, Bench, Mode, mode_named, outcome, until
    from duodaq.testing.coexistence._imitation import FlagAndQueue, imitating
    from duodaq.testing.coexistence._proof import FeatureFailure, proves
    from duodaq.testing.coexistence._sabotage import SABOTAGES, Sabotage, load_sabotages, sabotage
    from duodaq.testing.coexistence._twelve import (
        TWELVE,
        test_bidirectional_communication_channel,
        test_concurrent_message_throughput,
        test_data_flow_v2_to_v4,
        test_data_flow_v4_to_v2,
        test_dual_runtime_startup_shutdown,
        test_graceful_shutdown_with_active_ops,
        test_resource_contention,
        test_shutdown_timeout_enforcement,
        test_state_synchronization,
        test_v2_and_v4_actors_concurrent,
        test_v2_error_does_not_crash_v4,
        test_v4_error_does_not_crash_v2,
    )

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
    "load_sabotages",
    "mode_named",
    "outcome",
    "proves",
    "sabotage",
    "test_bidirectional_communication_channel",
    "test_concurrent_message_throughput",
    "test_data_flow_v2_to_v4",
    "test_data_flow_v4_to_v2",
    "test_dual_runtime_startup_shutdown",
    "test_graceful_shutdown_with_active_ops",
    "test_resource_contention",
    "test_shutdown_timeout_enforcement",
    "test_state_synchronization",
    "test_v2_and_v4_actors_concurrent",
    "test_v2_error_does_not_crash_v4",
    "test_v4_error_does_not_crash_v2",
    "until",
]

_HOMES = {
    "Bench": "duodaq.testing.coexistence._bench",
    "FeatureFailure": "duodaq.testing.coexistence._proof",
    "FlagAndQueue": "duodaq.testing.coexistence._imitation",
    "MODES": "duodaq.testing.coexistence._bench",
    "Mode": "duodaq.testing.coexistence._bench",
    "SABOTAGES": "duodaq.testing.coexistence._sabotage",
    "Sabotage": "duodaq.testing.coexistence._sabotage",
    "TWELVE": "duodaq.testing.coexistence._twelve",
    "imitating": "duodaq.testing.coexistence._imitation",
    "load_sabotages": "duodaq.testing.coexistence._sabotage",
    "mode_named": "duodaq.testing.coexistence._bench",
    "outcome": "duodaq.testing.coexistence._bench",
    "proves": "duodaq.testing.coexistence._proof",
    "sabotage": "duodaq.testing.coexistence._sabotage",
    "test_bidirectional_communication_channel": "duodaq.testing.coexistence._twelve",
    "test_concurrent_message_throughput": "duodaq.testing.coexistence._twelve",
    "test_data_flow_v2_to_v4": "duodaq.testing.coexistence._twelve",
    "test_data_flow_v4_to_v2": "duodaq.testing.coexistence._twelve",
    "test_dual_runtime_startup_shutdown": "duodaq.testing.coexistence._twelve",
    "test_graceful_shutdown_with_active_ops": "duodaq.testing.coexistence._twelve",
    "test_resource_contention": "duodaq.testing.coexistence._twelve",
    "test_shutdown_timeout_enforcement": "duodaq.testing.coexistence._twelve",
    "test_state_synchronization": "duodaq.testing.coexistence._twelve",
    "test_v2_and_v4_actors_concurrent": "duodaq.testing.coexistence._twelve",
    "test_v2_error_does_not_crash_v4": "duodaq.testing.coexistence._twelve",
    "test_v4_error_does_not_crash_v2": "duodaq.testing.coexistence._twelve",
    "until": "duodaq.testing.coexistence._bench",
}

__getattr__, __dir__ = names_of(globals(), _HOMES)
