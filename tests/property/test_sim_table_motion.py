"""Motion profiles keep their promises whatever the numbers."""

from __future__ import annotations

from math import inf

from hypothesis import assume, given
from hypothesis import strategies as st

from duodaq.sim.table import Profile, crossing_s, jog, move_to, stop

place = st.floats(-50, 50).map(lambda x: round(x, 4))
speed = st.floats(0.01, 40)
rate = st.floats(0.1, 200)
moment = st.floats(0, 1e5)


def assert_continuous(profile: Profile) -> None:
    for before, after in zip(profile.pieces, profile.pieces[1:], strict=False):
        assert after.t_s >= before.t_s - 1e-9
        x, v = before.at(after.t_s)
        assert abs(x - after.x) < 1e-6
        assert abs(v - after.v) < 1e-6


@given(place, place, st.floats(-40, 40), moment, speed, rate, rate)
def test_a_move_is_continuous_ends_at_its_target_and_stays_there(target, x, v, t_s, top, accel, decel):
    profile = move_to(target, x, v, t_s, top, accel, decel)
    assert_continuous(profile)
    assert profile.at(profile.end_s + 1) == (target, 0.0)
    start_x, start_v = profile.at(t_s)
    assert abs(start_x - x) < 1e-9
    assert abs(start_v - v) < 1e-9


@given(place, place, moment, speed, rate, rate)
def test_a_move_from_rest_keeps_to_speed_and_acceleration_and_never_overshoots(target, x, t_s, top, accel, decel):
    profile = move_to(target, x, 0.0, t_s, top, accel, decel)
    low, high = min(x, target) - 1e-6, max(x, target) + 1e-6
    for piece in profile.pieces:
        assert abs(piece.v) <= top + 1e-6
        assert abs(piece.a) <= max(accel, decel) + 1e-9
        assert low <= piece.x <= high


@given(place, st.floats(-40, 40), moment, rate)
def test_a_stop_decelerates_to_rest_within_its_distance(x, v, t_s, decel):
    profile = stop(x, v, t_s, decel)
    assert_continuous(profile)
    end_x, end_v = profile.at(profile.end_s)
    assert end_v == 0
    assert abs(abs(end_x - x) - v * v / (2 * decel)) < 1e-6


@given(place, st.floats(-40, 40), speed, moment, rate, rate)
def test_a_jog_reaches_its_speed_and_never_ends(x, v, top, t_s, accel, decel):
    profile = jog(top, x, v, t_s, accel, decel)
    assert_continuous(profile)
    assert profile.end_s == inf
    assert profile.at(t_s + 1e4)[1] == top


@given(place, place, speed, rate, rate, st.floats(0.01, 0.99))
def test_a_move_crosses_every_place_on_its_way_at_the_time_it_says(target, x, top, accel, decel, share):
    assume(abs(target - x) > 0.01)
    profile = move_to(target, x, 0.0, 100.0, top, accel, decel)
    between = x + share * (target - x)
    at_s = crossing_s(profile, between)
    assert at_s is not None
    assert abs(profile.at(at_s)[0] - between) < 1e-5
    assert crossing_s(profile, target + (target - x)) is None
