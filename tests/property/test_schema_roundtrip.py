"""Any measurements, mixed in any way, come out of Arrow as they went in: batching loses and reorders nothing."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from duodaq.bridge import batches_of, measurements_of
from duodaq.model import Image, Scalar, Spectrum, Vector

names = st.sampled_from(["a", "b", "µ-Ω", "x.y"])
units = st.sampled_from(["V", "mm", "", "°C"])
times = st.integers(0, 2**62)
counts = st.integers(0, 2**63)
values = st.floats(allow_nan=False, width=64)
facts = st.none() | st.dictionaries(st.text(max_size=3), st.integers(-5, 5) | st.text(max_size=3), max_size=2)
arrays = st.lists(values, max_size=5).map(lambda numbers: np.array(numbers, dtype=np.float64))
pixels = st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from(["u1", "u2", "f8"])).map(
    lambda s: np.arange(s[0] * s[1]).reshape(s[0], s[1]).astype(s[2])
)
origin = st.just("v2")
measurements = st.one_of(
    st.builds(Scalar, names, names, units, times, counts, values, origin, facts),
    st.builds(Vector, names, names, units, times, counts, arrays, origin, facts),
    st.builds(Spectrum, names, names, units, times, counts, arrays, arrays, units, origin, facts),
    st.builds(Image, names, names, units, times, counts, pixels, origin, facts),
)


def plain(measurement) -> tuple:
    fields = [getattr(measurement, name) for name in measurement.__struct_fields__]
    return type(measurement), *(
        (value.dtype.str, value.tolist()) if isinstance(value, np.ndarray) else value for value in fields
    )


def by_stream(items) -> dict[tuple[str, str], list[tuple]]:
    streams: dict[tuple[str, str], list[tuple]] = {}
    for one in items:
        streams.setdefault((one.instrument, one.channel), []).append(plain(one))
    return streams


@settings(max_examples=150, deadline=None)
@given(st.lists(measurements, max_size=30))
def test_batches_give_back_the_same_measurements_in_each_stream_s_order(given_measurements):
    back = [one for batch in batches_of(given_measurements) for one in measurements_of(batch)]
    assert by_stream(back) == by_stream(given_measurements)
