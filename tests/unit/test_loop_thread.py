"""The loop of a private lab: whoever would have it wait for itself is told so, and it goes on."""

from __future__ import annotations

import concurrent.futures

from duodaq.app._loop_thread import LoopThread
from duodaq.clock import pause
from duodaq.errors import LifecycleError


async def answer() -> int:
    await pause(0.02)
    return 7


def test_a_callback_of_a_future_that_waits_for_the_lab_is_refused_and_the_lab_goes_on() -> None:
    thread = LoopThread("a lab")
    told: concurrent.futures.Future[LifecycleError] = concurrent.futures.Future()

    def wait_there(_: object) -> None:
        try:
            thread.run(answer())
        except LifecycleError as error:
            told.set_result(error)

    try:
        thread.submit(answer()).add_done_callback(wait_there)
        assert "would wait for itself for ever" in str(told.result(5))
        assert thread.run(answer(), 5) == 7
    finally:
        thread.close()
