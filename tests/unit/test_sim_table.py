"""The optical table: what its detectors see, what it draws from a seed, what it knows about the stage."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.special import erf

from duodaq.sim import LocalTable
from duodaq.sim.table import move_to, rest


def knife_edge(x_mm, power_w, centre_mm, radius_mm, offset_w):
    return 0.5 * power_w * (1 + erf(np.sqrt(2) * (x_mm - centre_mm) / radius_mm)) + offset_w


def scanned_width_mm(table: LocalTable, points: int) -> float:
    positions = np.linspace(0, 10, points)
    powers = []
    for position in positions:
        table.set_motion(1, rest(float(position)))
        powers.append(table.power_w())
    found, _ = curve_fit(knife_edge, positions, powers, p0=[max(powers), 5.0, 1.0, 0.0])
    return abs(found[2])


def test_a_scan_of_41_points_finds_the_width_within_two_percent_on_every_seed():
    errors = []
    for seed in range(40):
        table = LocalTable(seed, shutter_open=True)
        errors.append(scanned_width_mm(table, 41) / table.truth().radius_mm - 1)
    assert max(map(abs, errors)) < 0.02
    assert np.std(errors) < 0.005  # comfortably: two percent is four standard deviations


def test_beams_differ_from_seed_to_seed_and_are_the_same_for_the_same_seed():
    radii = {LocalTable(seed).truth().radius_mm for seed in range(20)}
    assert len(radii) == 20
    assert LocalTable(7).truth() == LocalTable(7).truth()


def test_noise_comes_from_the_seed():
    first, second = (LocalTable(3, shutter_open=True) for _ in range(2))
    first.set_motion(1, rest(5.0))
    second.set_motion(1, rest(5.0))
    readings = [first.power_w() for _ in range(5)]
    assert readings == [second.power_w() for _ in range(5)]
    assert len(set(readings)) == 5


def test_noise_of_the_meter_is_as_stated():
    table = LocalTable(5, shutter_open=True)
    table.set_motion(1, rest(25.0))
    truth = table.truth()
    readings = np.array([table.power_w() for _ in range(2000)])
    expected = np.hypot(truth.sigma_relative * truth.power_w, truth.sigma_absolute_w)
    assert readings.std() == pytest.approx(expected, rel=0.1)
    assert readings.mean() == pytest.approx(truth.power_w, rel=1e-3)


def test_averaging_sixteen_samples_makes_the_noise_four_times_smaller():
    table = LocalTable(5, shutter_open=True)
    table.set_motion(1, rest(25.0))
    single, averaged = (np.std([table.power_w(samples) for _ in range(1000)]) for samples in (1, 16))
    assert single / averaged == pytest.approx(4, rel=0.15)


def test_a_table_starts_with_the_laser_on_and_the_shutter_closed():
    table = LocalTable(1)
    state = table.state()
    assert state.laser_on
    assert not state.shutter_open
    table.set_motion(1, rest(25.0))
    assert abs(table.power_w()) < 1e-5


def test_no_detector_sees_light_through_a_closed_shutter_or_without_the_laser():
    table = LocalTable(1, shutter_open=True)
    table.set_motion(1, rest(25.0))
    assert table.power_w() > 1e-3
    for darken in (lambda: table.set_shutter(False), lambda: table.set_laser(False)):
        darken()
        assert abs(table.power_w()) < 1e-5
        assert abs(table.photodiode_v()) < 1e-3
        assert table.scene().peak_counts_per_s == 0
        table.set_shutter(True)
        table.set_laser(True)


def test_the_photodiode_is_before_the_knife_edge():
    table = LocalTable(2, shutter_open=True)
    table.set_motion(1, rest(-20.0))
    assert table.photodiode_v() == pytest.approx(table.truth().power_w * 1e3, rel=5e-3)


def test_a_weaker_laser_gives_a_weaker_reading():
    table = LocalTable(2, shutter_open=True)
    table.set_motion(1, rest(25.0))
    table.set_laser(True, 1e-4)
    assert table.power_w() == pytest.approx(1e-4, rel=0.1)
    assert table.state().laser_power_w == 1e-4


def test_the_camera_sees_a_gaussian_of_the_true_width():
    table = LocalTable(4, shutter_open=True)
    table.set_motion(1, rest(25.0))
    image = table.image().astype(float) - 103.6
    columns = np.clip(image, 0, None).sum(axis=0)
    x_mm = np.arange(columns.size) * 0.0065
    found, _ = curve_fit(
        lambda x, a, c, w, b: a * np.exp(-2 * ((x - c) / w) ** 2) + b, x_mm, columns, p0=[columns.max(), 6.6, 1.0, 0.0]
    )
    assert abs(found[2]) == pytest.approx(table.truth().radius_mm, rel=0.02)


def test_the_knife_edge_cuts_the_picture_where_the_stage_stands():
    table = LocalTable(4, shutter_open=True)
    table.set_motion(1, rest(table.truth().centre_mm))
    image = table.image().astype(float) - 103.6
    lit = image.sum(axis=0) > image.sum(axis=0).max() / 2
    edge = int(table.scene().edge_px)
    assert lit[edge - 10]
    assert not lit[edge + 2 :].any()
    table.set_motion(1, rest(-25.0))
    assert table.image().max() < 120


def test_region_binning_and_frame_number_shape_the_image():
    table = LocalTable(4, shutter_open=True)
    table.set_motion(1, rest(25.0))
    image = table.image(roi=(896, 960, 256, 128), binning=(4, 2), exposure_s=0.001, frame_no=3)
    assert image.shape == (64, 64)
    assert image.dtype == np.uint16
    again = table.image(roi=(896, 960, 256, 128), binning=(4, 2), exposure_s=0.001, frame_no=3)
    other = table.image(roi=(896, 960, 256, 128), binning=(4, 2), exposure_s=0.001, frame_no=4)
    assert (image == again).all()
    assert not (image == other).all()


def test_the_state_follows_a_motion_profile_through_time():
    table = LocalTable(0)
    now_s = time.monotonic()
    table.set_motion(1, move_to(20.0, 0.0, 0.0, now_s, 1.0, 10.0, 10.0))
    state = table.state()
    assert state.moving == {1: True, 2: False, 3: False}
    assert 0 <= state.positions[1] < 20
    table.set_motion(1, move_to(20.0, 0.0, 0.0, now_s - 60, 1.0, 10.0, 10.0))
    state = table.state()
    assert not state.moving[1]
    assert state.positions[1] == 20.0
    assert state.velocities[1] == 0


def test_the_table_keeps_the_counts_that_instruments_deposit():
    table = LocalTable(0)
    table.tally("meter", {"produced": {"D": 3}})
    table.tally("meter", {"produced": {"D": 5}})
    assert table.counts() == {"meter": {"produced": {"D": 5}}}
