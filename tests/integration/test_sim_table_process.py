"""The optical table as a process: the same promise as the one in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from duodaq.errors import PortLostError
from duodaq.sim import LocalTable, TableClient, TableProcess, launch_table
from duodaq.sim.table import move_to, rest

SEED = 11
pytestmark = pytest.mark.usefixtures("simulators_from_the_start")


@pytest.fixture(scope="module")
def process(simulators_from_the_start: None) -> Iterator[TableProcess]:
    with launch_table(SEED) as process:
        yield process


@pytest.fixture
def client(process: TableProcess) -> Iterator[TableClient]:
    with process.client() as client:
        client.set_shutter(True)
        client.set_laser(True)
        client.set_motion(1, rest(25.0))
        yield client


def test_the_truth_and_the_picture_are_those_of_the_same_seed_in_this_process(client: TableClient):
    local = LocalTable(SEED, shutter_open=True)
    local.set_motion(1, rest(25.0))
    assert client.truth() == local.truth()
    assert client.scene() == local.scene()
    roi = (900, 900, 64, 32)
    assert (client.picture((2048, 2048), roi, (2, 2)) == local.picture((2048, 2048), roi, (2, 2))).all()
    assert (client.image(roi=roi, frame_no=5) == local.image(roi=roi, frame_no=5)).all()


def test_what_one_client_does_every_client_sees(process: TableProcess, client: TableClient):
    with process.client() as other:
        other.set_shutter(False)
        other.set_laser(False, 1e-3)
        profile = move_to(3.0, 0.0, 0.0, time.monotonic(), 1.0, 5.0, 5.0)
        other.set_motion(2, profile)
        state = client.state()
        assert (state.shutter_open, state.laser_on, state.laser_power_w) == (False, False, 1e-3)
        assert state.moving[2]
        assert client.motion(2) == profile
        other.tally("meter", {"produced": {"D": 3}})
        assert client.counts()["meter"] == {"produced": {"D": 3}}
        other.set_laser(True, process.truth().power_w)


def test_readings_come_with_noise(client: TableClient):
    readings = [client.power_w() for _ in range(200)]
    assert np.mean(readings) == pytest.approx(client.truth().power_w, rel=2e-3)
    assert len(set(readings)) == 200
    assert client.power_w(16) == pytest.approx(client.truth().power_w, rel=0.01)
    assert client.photodiode_v() == pytest.approx(client.truth().power_w * 1e3, rel=0.01)


def test_a_wrong_request_is_refused_and_the_connection_goes_on(client: TableClient):
    with pytest.raises(ValueError, match="no operation"):
        client._call("explode")
    with pytest.raises(ValueError, match="power_w"):
        client._call("power_w", 1, 2, 3)
    assert client.state().laser_on


def test_a_table_that_is_not_there_is_named():
    with pytest.raises(PortLostError, match="/nowhere/table"):
        TableClient("/nowhere/table")


def test_a_client_of_a_dead_table_learns_it():
    process = launch_table(1)
    with process.client() as client:
        process.kill()
        with pytest.raises(PortLostError):
            client.state()
        with pytest.raises(PortLostError):
            client.state()
