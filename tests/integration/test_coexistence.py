"""The twelve, in every mode; one by itself: ``pytest tests/integration/test_coexistence.py -k test_…``."""

from collections.abc import AsyncIterator

import pytest

from duodaq.testing.coexistence import *  # noqa: F403  # the twelve tests are what is run here
from duodaq.testing.coexistence import MODES, Bench, Mode


@pytest.fixture(params=MODES, ids=str)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    mode: Mode = request.param
    async with Bench(mode) as made:
        yield made
