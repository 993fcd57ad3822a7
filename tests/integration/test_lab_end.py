"""What goes on when something does not end as it should: an instrument that is removed, or the lab itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from duodaq.app import Lab
from duodaq.model import Cause, SafeAction
from duodaq.testing import RailActor, logged, rail_lab


async def test_the_watchdog_is_told_also_of_one_that_did_not_go_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Lab(rail_lab(tmp_path)) as lab:
        told: list[set[str]] = []
        monkeypatch.setattr(lab.manager.guard, "tell", lambda those: told.append({one.id for one in those}))
        side: Any = lab.manager._sides["v4"]
        remove = side.remove

        async def remove_and_fail(instrument: str) -> None:
            await remove(instrument)
            raise OSError("it did not end")

        monkeypatch.setattr(side, "remove", remove_and_fail)
        with pytest.raises(OSError, match="did not end"):
            await lab.manager.remove("rail")
        assert told == [{"other"}]
        monkeypatch.undo()


async def test_a_lab_takes_its_safe_states_whatever_does_not_come_to_rest_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        raise RuntimeError("a shadow would not end")

    definition = rail_lab(tmp_path)
    safe = {Cause.SHUTDOWN: SafeAction("call", "move", ("x", 3.0))}
    rails = (replace(definition.instruments[0], safe=safe), definition.instruments[1])
    lab = Lab(replace(definition, instruments=rails))
    await lab.start()
    monkeypatch.setattr("duodaq.app._lab.REST_S", 0.05)
    monkeypatch.setattr(lab.changes, "aclose", never)
    monkeypatch.setattr(lab.migration, "aclose", fails)
    with logged() as lines:
        report = await lab.shutdown()
    assert report.clean, report
    assert RailActor.all["rail"].has["x"] == 3.0
    (line,) = [one for one in lines if one["event"] == "not all came to rest before the end of the lab"]
    assert (line["late"], line["failed"]) == (["changes"], {"migrations": "a shadow would not end"})


async def ends_never(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Lab, asyncio.Future[Any]]:
    """A lab that waits in its end for changes that do not come to rest."""
    lab, resting = Lab(rail_lab(folder)), asyncio.Event()

    async def never() -> None:
        resting.set()
        await asyncio.Event().wait()

    await lab.start()
    monkeypatch.setattr(lab.changes, "aclose", never)
    ending = asyncio.ensure_future(lab.shutdown())
    await resting.wait()
    return lab, ending


async def test_a_lab_whose_end_is_no_longer_waited_for_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, ending = await ends_never(tmp_path, monkeypatch)
    ending.cancel()
    await asyncio.wait({ending})
    assert lab.manager.state == "stopped"


async def test_a_hurry_ends_the_wait_for_what_does_not_come_to_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("duodaq.app._lab.REST_S", 3600.0)
    lab, ending = await ends_never(tmp_path, monkeypatch)
    lab.hurry()
    assert (await ending).clean


async def test_what_the_wait_took_is_missing_from_the_time_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(replace(rail_lab(tmp_path), shutdown_s=0.4))

    async def never() -> None:
        await asyncio.Event().wait()

    await lab.start()
    monkeypatch.setattr(lab.changes, "aclose", never)
    assert (await lab.shutdown()).budget_s <= 0.3
