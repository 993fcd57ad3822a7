"""Measurements become rows and come back equal; frames keep their memory."""

import io

import numpy as np
import pyarrow as pa
import pytest

from duodaq import schema
from duodaq.errors import SchemaMismatchError
from duodaq.model import Image, Scalar, Spectrum, Vector

T = 1_790_000_000_123_456_789


def scalars(count: int = 3, **changes) -> list[Scalar]:
    facts = {"instrument": "dmm", "channel": "voltage", "unit": "V", "origin": "v2", **changes}
    return [Scalar(t_ns=T + i, sequence=i, value=0.1 * i, **facts) for i in range(count)]


def test_scalars_survive_the_way_to_arrow_and_back_exactly():
    rows = scalars()
    assert schema.scalars_of(schema.scalar_batch(rows)) == rows


def test_scalar_metadata_travels_with_its_batch():
    rows = scalars(metadata={"range": 10.0, "note": "µ"})
    assert schema.scalars_of(schema.scalar_batch(rows)) == rows


def test_scalars_with_several_units_keep_each_its_own():
    rows = scalars()
    rows[1] = Scalar("dmm", "voltage", "mV", T, 1, 5.0, "v2")
    assert [row.unit for row in schema.scalars_of(schema.scalar_batch(rows))] == ["V", "mV", "V"]


def test_measurements_of_several_kinds_share_no_batch():
    rows = [*scalars(1), Vector("dmm", "voltage", "V", T, 1, np.zeros(2))]
    for mixed in (rows, rows[::-1]):
        with pytest.raises(SchemaMismatchError, match="one kind"):
            schema.measurement_batch(mixed)


def test_more_scalars_than_a_remembered_constant_still_fit():
    rows = scalars(5000)
    assert schema.scalars_of(schema.scalar_batch(rows)) == rows


def test_a_sliced_batch_gives_its_own_rows():
    rows = scalars(10)
    assert schema.scalars_of(schema.scalar_batch(rows).slice(4, 3)) == rows[4:7]


def test_a_batch_says_its_schema_stream_instrument_and_origin():
    batch = schema.scalar_batch(scalars())
    assert schema.schema_name(batch.schema) == "scalar/1"
    assert schema.stream_of(batch) == "dmm.voltage"
    assert (schema.instrument_of(batch), schema.channel_of(batch), schema.origin_of(batch)) == ("dmm", "voltage", "v2")
    assert batch.schema.equals(schema.scalar())
    assert batch.schema.field("timestamp").type == pa.timestamp("ns")


def test_a_batch_without_a_stream_is_refused():
    with pytest.raises(SchemaMismatchError, match="stream"):
        schema.stream_of(pa.record_batch({"a": [1]}))


def test_a_batch_can_be_told_its_origin_without_touching_its_data():
    batch = schema.with_origin(pa.record_batch({"a": [1, 2]}), "v4", "laser", "laser.power")
    assert (schema.stream_of(batch), schema.origin_of(batch), batch.num_rows) == ("laser.power", "v4", 2)
    assert schema.with_origin(schema.scalar(), "v4", "a", "a.b").metadata[b"duodaq.stream"] == b"a.b"


def test_one_batch_holds_one_stream():
    with pytest.raises(SchemaMismatchError, match="one stream"):
        schema.scalar_batch([*scalars(), *scalars(channel="current")])
    with pytest.raises(SchemaMismatchError, match="at least one"):
        schema.scalar_batch([])


def test_vectors_and_spectra_survive_the_way_and_back():
    vectors = [Vector("scope", "trace", "V", T + i, i, np.arange(i + 2.0), "v2", {"n": i}) for i in range(3)]
    spectra = [Spectrum("osa", "s", "dBm", T, i, np.arange(4.0), np.arange(4.0) + 9, "nm", "v4") for i in range(2)]
    for kinds, back in (
        (vectors, schema.vectors_of(schema.measurement_batch(vectors))),
        (spectra, schema.spectra_of(schema.measurement_batch(spectra))),
    ):
        for one, other in zip(kinds, back, strict=True):
            for field in one.__struct_fields__:
                np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_an_image_crosses_without_a_copy(dtype):
    pixels = np.arange(12).reshape(3, 4).astype(dtype)
    image = Image("cam", "frames", "counts", T, 5, pixels, "v2", {"frame_number": 17})
    batch = schema.measurement_batch([image])
    (back,) = schema.images_of(batch)
    assert np.shares_memory(back.pixels, pixels)
    assert back.pixels.dtype == dtype
    np.testing.assert_array_equal(back.pixels, pixels)
    assert (back.sequence, back.t_ns, back.unit, back.metadata) == (5, T, "counts", {"frame_number": 17})


def test_an_image_that_is_not_contiguous_is_copied_and_right():
    pixels = np.arange(24, dtype=np.uint16).reshape(4, 6)[::2, ::3]
    (back,) = schema.images_of(schema.image_batch(Image("cam", "frames", "counts", T, 0, pixels)))
    np.testing.assert_array_equal(back.pixels, pixels)


def test_camera_frames_cross_without_a_copy_and_keep_their_numbers():
    pixels = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    batch = schema.frame_batch(
        pixels,
        instrument="cam",
        channel="frames",
        t_ns=[T, T + 1],
        sequence=[7, 8],
        frame_number=[100, 102],
        pixel_format="mono16",
        roi=(8, 16, 8, 6),
        binning=(2, 2),
        exposure_s=0.01,
    )
    assert schema.schema_name(batch.schema) == "camera_frame/1"
    assert np.shares_memory(schema.pixels_of(batch), pixels)
    first, second = schema.frames_of(batch)
    assert np.shares_memory(second.pixels, pixels[1])
    np.testing.assert_array_equal(second.pixels, pixels[1])
    assert (second.instrument, second.channel, second.origin) == ("cam", "frames", "v4")
    assert second.metadata == {
        "frame_number": 102,
        "pixel_format": "mono16",
        "roi": {"x": 8, "y": 16, "width": 8, "height": 6},
        "binning": {"x": 2, "y": 2},
        "exposure_s": 0.01,
    }
    assert [first.sequence, second.sequence] == [7, 8]


def test_a_sliced_frame_batch_gives_the_right_frame():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    batch = schema.frame_batch(pixels, instrument="c", channel="f", t_ns=T, sequence=[0, 1], frame_number=[0, 1])
    np.testing.assert_array_equal(schema.pixels_of(batch.slice(1)), pixels[1:])


def test_the_unit_of_pixels_is_kept_for_each_batch():
    pixels = np.zeros((2, 2), np.uint8)
    common = {"instrument": "c", "channel": "f", "t_ns": T, "sequence": 0, "frame_number": 0}
    units = [schema.frames_of(schema.frame_batch(pixels, unit=unit, **common))[0].unit for unit in ("e-", "counts")]
    assert units == ["e-", "counts"]


def test_a_stage_row_becomes_position_and_velocity():
    batch = schema.stage_batch(
        instrument="stage",
        channel="x",
        t_ns=[T, T + 1],
        sequence=[0, 1],
        axis=["x", "x"],
        position=[1.5, 1.6],
        velocity=[0.2, None],
        state=["Moving", "Idle"],
        unit=["mm", "mm"],
    )
    assert [(s.channel, s.unit, s.value, s.sequence, s.t_ns) for s in schema.stage_scalars(batch)] == [
        ("x.position", "mm", 1.5, 0, T),
        ("x.velocity", "mm/s", 0.2, 0, T),
        ("x.position", "mm", 1.6, 1, T + 1),
    ]


def test_a_user_s_own_batch_gives_a_scalar_for_each_number():
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([T], pa.timestamp("ns")),
            pa.array([4], pa.uint64()),
            pa.array([3], pa.int32()),
            pa.array([0.5]),
            pa.array(["on"]),
        ],
        schema=pa.schema(
            [
                pa.field("timestamp", pa.timestamp("ns")),
                pa.field("sequence", pa.uint64()),
                pa.field("count", pa.int32()),
                pa.field("power", pa.float64(), metadata={"unit": "mW"}),
                pa.field("shutter", pa.string()),
            ]
        ),
    )
    batch = schema.with_origin(batch, "v4", "laser", "laser.head")
    assert [(s.instrument, s.channel, s.unit, s.value, s.t_ns, s.sequence) for s in schema.numeric_scalars(batch)] == [
        ("laser", "head.count", "", 3.0, T, 4),
        ("laser", "head.power", "mW", 0.5, T, 4),
    ]


def test_scpi_events_name_command_response_and_error():
    batch = schema.scpi_event_batch(
        instrument="dmm",
        t_ns=[T],
        sequence=[0],
        command=["MEAS?"],
        response=["1.0"],
        success=[True],
        error=[None],
    )
    assert schema.stream_of(batch) == "dmm.events"
    assert batch.to_pylist()[0]["command"] == "MEAS?"
    with pytest.raises(SchemaMismatchError, match="numeric"):
        schema.numeric_scalars(batch)


def test_every_schema_is_written_and_read_by_plain_pyarrow():
    pixels = np.zeros((2, 3), np.uint16)
    batches = [
        schema.scalar_batch(scalars()),
        schema.image_batch(Image("c", "f", "counts", T, 0, pixels)),
        schema.frame_batch(pixels, instrument="c", channel="f", t_ns=T, sequence=0, frame_number=0),
    ]
    for batch in batches:
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        table = pa.ipc.open_stream(sink.getvalue()).read_all()
        assert table.num_rows == batch.num_rows
        assert table.schema.metadata == batch.schema.metadata


FACTS = {"instrument": "cam", "channel": "frames"}


def test_frames_one_after_another_keep_each_its_own_numbers_settings_and_memory():
    stacks = [np.full((3, 4), number, np.uint16) for number in range(3)]
    settings = [{"roi": [1, 2, 4, 3], "exposure_s": 0.5}, {"binning": [2, 2]}, {"unit": "e-", "pixel_format": "Mono12"}]
    made = [
        schema.frame_batch(stacks[i], t_ns=T + i, sequence=i, frame_number=10 + i, **FACTS, **settings[i])
        for i in range(3)
    ]
    images = [schema.frames_of(batch)[0] for batch in made]
    for i, image in enumerate(images):
        assert (image.t_ns, image.sequence) == (T + i, i)
        assert np.shares_memory(image.pixels, stacks[i])
        assert image.metadata is not None
        assert image.metadata["frame_number"] == 10 + i
    assert [image.unit for image in images] == ["counts", "counts", "e-"]
    assert [image.metadata["roi"]["x"] for image in images if image.metadata] == [1, 0, 0]
    assert [image.metadata["binning"]["y"] for image in images if image.metadata] == [1, 2, 1]
    assert [image.metadata["exposure_s"] for image in images if image.metadata] == [0.5, None, None]
    assert [image.metadata["pixel_format"] for image in images if image.metadata] == ["uint16", "uint16", "Mono12"]


@pytest.mark.parametrize("kind", [int, np.int64, lambda number: [int(number)]])
def test_a_frame_s_numbers_may_be_of_python_or_numpy_or_in_a_list(kind):
    batch = schema.frame_batch(np.zeros((3, 4)), t_ns=kind(T), sequence=kind(2**63 - 1), frame_number=kind(5), **FACTS)
    image = schema.frames_of(batch)[0]
    assert image.metadata is not None
    assert (image.t_ns, image.sequence, image.metadata["frame_number"]) == (T, 2**63 - 1, 5)
    batch.validate(full=True)


def test_a_number_that_is_none_of_a_frame_s_is_refused():
    with pytest.raises(OverflowError):
        schema.frame_batch(np.zeros((3, 4)), t_ns=T, sequence=-1, frame_number=0, **FACTS)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_the_bytes_of_a_picture_are_those_of_its_pixels_and_of_a_slice_its_own(dtype):
    numbers = {name: range(4) for name in ("t_ns", "sequence", "frame_number")}
    stack = np.zeros((4, 300, 200), dtype)
    batch = schema.frame_batch(stack, **numbers, **FACTS)
    assert schema.bytes_of(batch) == stack.nbytes
    assert schema.bytes_of(batch.slice(1, 2)) == stack.nbytes // 2
    few = schema.scalar_batch(scalars())
    assert 0 < few.nbytes <= schema.bytes_of(few) == few.get_total_buffer_size()
    many = schema.scalar_batch(scalars() * 5000)
    assert schema.bytes_of(many.slice(1, 2)) == many.slice(1, 2).nbytes


def test_the_bytes_of_what_only_claims_to_be_a_picture_are_counted_all_the_same():
    for columns in ({"x": [1, 2]}, {"pixels": [1.5, 2.5]}):
        batch = pa.record_batch(columns).replace_schema_metadata({b"duodaq.schema": b"camera_frame/1"})
        assert schema.bytes_of(batch) == batch.nbytes
