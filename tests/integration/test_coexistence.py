"""The twelve, in every mode; one by itself: ``pytest tests/integration/test_coexistence.py -k test_…``."""

from collections.abc import AsyncIterator

import pytest

from duodaq.testing.coexistence import *  # noqa: F403  # the twelve tests are what is run here
from duodaq.testing.coexistence import (
    MODES,
    Bench,
    Mode,
    test_shutdown_timeout_enforcement,
    test_v2_error_does_not_crash_v4,
    test_v4_error_does_not_crash_v2,
)

pytest.mark.alone("0.1 s are left to a budget for stopping")(test_shutdown_timeout_enforcement)
for _isolates in (test_v2_error_does_not_crash_v4, test_v4_error_does_not_crash_v2):
    pytest.mark.alone("compares how quickly one side answers in peace and beside faults of the other")(_isolates)


@pytest.fixture(params=MODES, ids=str)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    mode: Mode = request.param
    async with Bench(mode) as made:
        yield made
