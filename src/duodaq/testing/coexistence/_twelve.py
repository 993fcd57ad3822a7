from __future__ import annotations

from collections.abc import Awaitable, Callable

from duodaq.testing.coexistence._bench import Bench
from duodaq.testing.coexistence._communication import test_bidirectional_communication_channel
from duodaq.testing.coexistence._contention import test_resource_contention
from duodaq.testing.coexistence._data import test_data_flow_v2_to_v4, test_data_flow_v4_to_v2
from duodaq.testing.coexistence._graceful import test_graceful_shutdown_with_active_ops
from duodaq.testing.coexistence._isolation import test_v2_error_does_not_crash_v4, test_v4_error_does_not_crash_v2
from duodaq.testing.coexistence._lifecycle import (
    test_dual_runtime_startup_shutdown,
    test_shutdown_timeout_enforcement,
    test_v2_and_v4_actors_concurrent,
)
from duodaq.testing.coexistence._state import test_state_synchronization
from duodaq.testing.coexistence._throughput import test_concurrent_message_throughput

TWELVE: tuple[Callable[[Bench], Awaitable[None]], ...] = (
    test_dual_runtime_startup_shutdown,
    test_shutdown_timeout_enforcement,
    test_v2_and_v4_actors_concurrent,
    test_data_flow_v2_to_v4,
    test_data_flow_v4_to_v2,
    test_state_synchronization,
    test_v2_error_does_not_crash_v4,
    test_v4_error_does_not_crash_v2,
    test_concurrent_message_throughput,
    test_resource_contention,
    test_graceful_shutdown_with_active_ops,
    test_bidirectional_communication_channel,
)

CATEGORIES: dict[str, tuple[Callable[[Bench], Awaitable[None]], ...]] = {
    "lifecycle": (
        test_dual_runtime_startup_shutdown,
        test_shutdown_timeout_enforcement,
        test_graceful_shutdown_with_active_ops,
    ),
    "data": (test_data_flow_v2_to_v4, test_data_flow_v4_to_v2, test_state_synchronization),
    "isolation": (test_v2_error_does_not_crash_v4, test_v4_error_does_not_crash_v2),
    "concurrency": (
        test_v2_and_v4_actors_concurrent,
        test_concurrent_message_throughput,
        test_resource_contention,
    ),
    "communication": (test_bidirectional_communication_channel,),
}
"""What the twelve are about: three of lifecycle, three of data, two of isolation, three of concurrency, one of
communication.
"""
