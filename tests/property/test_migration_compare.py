"""The comparison of a shadow: what is the same is never found to differ, and what is planted is found by its name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duodaq.drivers import codec
from duodaq.migration import (
    Exchanges,
    Finding,
    Tolerances,
    Value,
    Written,
    compare_orders,
    compare_rate,
    compare_values,
    difference,
    percentiles,
)
from duodaq.migration._tally import OrderTally, ValueTally
from duodaq.model import WireRecord
from duodaq.ports import Deed, deeds_of

T = Tolerances()
QUICK = settings(max_examples=30)
_NUMBERS = st.floats(1e-9, 1e6).map(lambda x: float(f"{x:.6g}"))


@QUICK
@given(_NUMBERS, st.sampled_from(["{:.6f}", "{:g}", "{:.9g}", "{!r}"]))
def test_a_number_written_otherwise_is_the_same(value: float, form: str) -> None:
    assert difference(value, float(f"{value:.9g}"), T) == ""
    if value > 1:
        assert difference(value, float(form.format(value)), T) == ""


@QUICK
@given(st.floats(1.0, 1e6), st.sampled_from([1e3, 1e-3, 1e6, 25.4]))
def test_a_wrong_unit_is_called_so(value: float, factor: float) -> None:
    assert difference(value, value * factor, T) == "unit"


@QUICK
@given(st.floats(1.0, 1e3), st.integers(1, 2))
def test_rounding_is_called_so(value: float, places: int) -> None:
    rounded = round(value, places)
    kind = difference(value, rounded, T)
    assert kind in ("", "rounding")
    assert kind or abs(value - rounded) <= 1e-5 * max(value, rounded)


@QUICK
@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_whether_two_numbers_differ_does_not_depend_on_their_order(one: float, other: float) -> None:
    assert bool(difference(one, other, T)) == bool(difference(other, one, T))


def test_units_are_compared_before_numbers() -> None:
    found = compare_values(Value("power", 0, 1e-3, "W"), Value("power", 0, 1.0, "mW"), T)
    assert found == Finding("unit", "power", "0.001 W", "1 mW", 0)
    assert compare_values(Value("r", 0, 5.0, "Ohm"), Value("r", 0, 5.0, "Ω"), T) is None


_ORDERS = st.lists(
    st.builds(
        lambda axis, verb, value: Deed(f"axis {axis}: {verb}", str(value)),
        st.integers(1, 3), st.sampled_from(["move to", "speed", "home"]), st.integers(1, 50),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


def at_times(orders: list[Deed], shift_s: float = 0.0) -> list[Written]:
    return [Written(int((n * 10 + shift_s) * 1e9), deed) for n, deed in enumerate(orders)]


@QUICK
@given(_ORDERS, st.floats(-4.0, 4.0))
def test_the_same_orders_within_the_window_all_match(orders: list[Deed], shift_s: float) -> None:
    matched, findings = compare_orders(at_times(orders), at_times(orders, shift_s), T)
    assert (len(matched), findings) == (len(orders), [])


@QUICK
@given(_ORDERS, st.data())
def test_one_order_left_out_is_missing_and_one_put_in_is_extra(orders: list[Deed], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(orders) - 1))
    all_of_them = at_times(orders)
    fewer = [*all_of_them[:place], *all_of_them[place + 1 :]]
    assert [f.kind for f in compare_orders(all_of_them, fewer, T)[1]] == ["missing"]
    assert [f.kind for f in compare_orders(fewer, all_of_them, T)[1]] == ["extra"]


@QUICK
@given(_ORDERS, st.data())
def test_an_order_to_another_axis_is_called_so(orders: list[Deed], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(orders) - 1))
    swapped = list(orders)
    axis, _, rest = orders[place].subject.partition(": ")
    swapped[place] = Deed(f"axis {int(axis[5:]) % 3 + 1}: {rest}", orders[place].value)
    assert [f.kind for f in compare_orders(at_times(orders), at_times(swapped), T)[1]] == ["axis"]


@QUICK
@given(_ORDERS, st.data())
def test_an_order_with_another_value_is_found(orders: list[Deed], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(orders) - 1))
    other = list(orders)
    other[place] = orders[place]._replace(value=str(float(orders[place].value) + 0.5))
    found = compare_orders(at_times(orders), at_times(other), T)[1]
    assert [f.kind for f in found] in (["value"], ["rounding"])


@pytest.mark.parametrize(("v2", "v4", "found"), [(40, 40, False), (40, 30, False), (40, 18, True), (5, 1, False),
                                                 (40, 0, False), (40, 80, False)])  # fmt: skip
def test_a_rate_is_found_to_be_lower_once_there_is_enough_to_see(v2: int, v4: int, found: bool) -> None:
    assert (compare_rate("reading", v2, v4, 2.0, T) is not None) is found


def test_values_are_paired_by_the_reply_that_they_were_made_of() -> None:
    v2 = [Value("power", n, float(n), "W", frozenset({n})) for n in range(5)]
    v4 = [Value("power", 99, 3.0, "W", frozenset({3, 40})), Value("other", 99, 3.0, "W", frozenset({3}))]
    tally = ValueTally(T)
    for one in v2:
        tally.add_v2(one)
    for one in v4:
        tally.add_v4(one)
    assert (tally.compared, tally.same, tally.paired) == (1, 1, {"power"})


@QUICK
@given(st.lists(st.floats(0, 1), min_size=1))
def test_percentiles_are_values_that_were_observed_and_rise(values: list[float]) -> None:
    found = [*percentiles(values).values()]
    assert found == sorted(found)
    assert set(found) <= set(values)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [("esp300", b"1TP\r", b"1TP?\r\n"), ("esp300", b"1PA5.000\r", b"1PA5\r"), ("newport1830c", b"D?\n", b"d?\r\n"),
     ("scpi", b":READ?\n", b"read?\n")],
)  # fmt: skip
def test_what_means_the_same_has_the_same_subject(name: str, one: bytes, other: bytes) -> None:
    first, second = deeds_of(codec(name), one), deeds_of(codec(name), other)
    assert [d.subject for d in first] == [d.subject for d in second]
    assert compare_orders([Written(0, first[0])], [Written(0, second[0])], T)[1] == []


@QUICK
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 4))
def test_exchanges_are_put_together_from_any_pieces(cuts: list[int], questions: int) -> None:
    written = b";".join(b"%dTP" % (n + 1) for n in range(questions)) + b"\r"
    reply = b"".join(b"%d.5\r\n" % n for n in range(questions))
    pieces: list[bytes] = []
    for cut in [*cuts, len(reply)]:
        pieces, reply = [*pieces, reply[:cut]], reply[cut:]
    made = Exchanges(codec("esp300"), "stage")
    records = [WireRecord(5, "p", ">", written, "v2.stage@2", 9)]
    records += [WireRecord(6 + n, "p", "<", piece, "v2.stage@2", 9) for n, piece in enumerate(pieces) if piece]
    found = [seen for record in records if (seen := made.take(record)) is not None]
    assert [seen.answers for seen in found] == [[b"%d.5\r\n" % n for n in range(questions)]]
    assert found[0].ended_ns == records[-1].t_ns


def test_what_others_write_is_left_out() -> None:
    made = Exchanges(codec("newport1830c"), "meter")
    for holder in ("v4.meter", "v2.other", "broker", "stop meter"):
        assert made.take(WireRecord(1, "p", ">", b"W0633\n", holder, 1)) is None
    assert made.take(WireRecord(1, "p", ">", b"W0633\n", "v2.meter", 1)) is not None


def order(t_s: float, value: str, subject: str = "wavelength") -> Written:
    return Written(int(t_s * 1e9), Deed(subject, value, False))


@pytest.mark.parametrize("late_s", [0.0, 0.01, 4.0])
def test_orders_that_match_are_counted_and_nothing_of_them_is_kept(late_s: float) -> None:
    tally = OrderTally(T)
    for n in range(2000):
        tally.add("v2", order(10.0 * n, str(n)))
        tally.add("v4", order(10.0 * n + late_s, str(n)))
    assert tally.waiting == {"v2": [], "v4": []}
    assert tally.so_far(int(30_000e9)) == ({"matched": 2000, "missing": 0, "extra": 0}, [])


@pytest.mark.parametrize(("side", "kind"), [("v2", "missing"), ("v4", "extra")])
def test_orders_of_one_side_are_counted_however_many_there_are_and_few_are_kept(side: str, kind: str) -> None:
    tally = OrderTally(T)
    for n in range(1000):
        tally.add(side, order(0.01 * n, str(n)))
        assert len(tally.waiting[side]) <= 130
    counts, found = tally.so_far(int(100e9))
    assert counts == {"matched": 0, "missing": 0, "extra": 0} | {kind: 1000}
    assert [(one.kind, count) for one, count in found] == [(kind, 1000)]


@QUICK
@given(st.lists(st.floats(0.0, 60.0), min_size=1, max_size=30), st.lists(st.floats(0.0, 80.0), max_size=8))
def test_what_a_report_says_does_not_depend_on_when_it_was_asked_for(times: list[float], asked: list[float]) -> None:
    tally, events = OrderTally(T), [(t, "order") for t in times] + [(t, "ask") for t in asked]
    for t_s, what in sorted(events):
        if what == "ask":
            tally.so_far(int(t_s * 1e9))
            continue
        tally.add("v2", order(t_s, "777"))
        tally.add("v4", order(t_s + 1e-4, "780"))
    counts, found = tally.so_far(int(200e9))
    assert counts == {"matched": len(times), "missing": 0, "extra": 0}
    assert sum(count for _, count in found) == len(times)


def test_measurements_of_the_same_reply_are_compared_whichever_comes_first() -> None:
    tally = ValueTally(T)
    for n in range(5000):
        one, other = (
            Value("power", n, 1.0, "W", frozenset({n})),
            Value("power", n, 1.0 + n % 2, "W", frozenset({n, -n})),
        )
        for add, value in ((tally.add_v2, one), (tally.add_v4, other))[:: 1 if n % 3 else -1]:
            add(value)
    assert (tally.compared, tally.same) == (5000, 2500)
    assert sum(count for _, count in tally.found.rows()) == 2500
