"""The bridge between real hubs: exact, both ways at once, no echo, no copy, every loss counted."""

import asyncio
import threading

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from duodaq import schema
from duodaq.bridge import Bridge
from duodaq.clock import pause
from duodaq.dataplane import Hub, Policy
from duodaq.errors import LifecycleError, SchemaMismatchError
from duodaq.model import Image, Measurement, Outcome, Scalar, Spectrum, Vector

T = 1_790_000_000_123_456_789


class Lab:
    """Two hubs, a bridge, and one reader on either side."""

    def __init__(self, **options) -> None:
        self.v2: Hub[Measurement] = Hub("v2")
        self.v4: Hub[pa.RecordBatch] = Hub("v4", key=schema.stream_of, weigh=lambda batch: batch.num_rows)
        self.bridge = Bridge(self.v2, self.v4, **options)
        self.on_v2 = self.v2.subscribe("reader", capacity=1_000_000)
        self.on_v4 = self.v4.subscribe("reader", capacity=1_000_000)

    async def __aenter__(self) -> "Lab":
        await self.bridge.start()
        return self

    async def __aexit__(self, *_) -> None:
        await self.bridge.stop()
        assert self.v2.ledger().balanced
        assert self.v4.ledger().balanced
        for ledger in self.bridge.ledgers().values():
            assert ledger.balanced
            assert all(row.in_flight == 0 for row in ledger.entries)


def scalar(sequence: int = 0, value: float = 1.25, channel: str = "voltage", origin: str = "v2") -> Scalar:
    return Scalar("dmm", channel, "V", T + sequence, sequence, value, origin)


def frame(sequence: int = 0, pixels=None) -> pa.RecordBatch:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4) if pixels is None else pixels
    return schema.frame_batch(
        pixels, instrument="cam", channel="frames", t_ns=T, sequence=sequence, frame_number=100 + sequence
    )


async def test_a_v2_scalar_arrives_at_v4_with_equal_value_unit_channel_time_and_sequence():
    async with Lab() as lab:
        lab.v2.publish(scalar(7, 0.1 + 0.2))
        batch = await lab.on_v4.get(5)
    assert schema.stream_of(batch) == "dmm.voltage"
    assert schema.origin_of(batch) == "v2"
    assert schema.scalars_of(batch) == [scalar(7, 0.1 + 0.2)]


async def test_a_v4_scalar_arrives_at_v2_with_equal_value_unit_channel_time_and_sequence():
    rows = [scalar(n, n / 3, origin="v4") for n in range(5)]
    async with Lab() as lab:
        lab.v4.publish(schema.scalar_batch(rows))
        arrived = [await lab.on_v2.get(5) for _ in rows]
    assert arrived == rows


async def test_both_directions_run_at_once_and_nothing_is_echoed():
    async with Lab() as lab:
        for number in range(200):
            lab.v2.publish(scalar(number))
            lab.v4.publish(schema.scalar_batch([Scalar("laser", "power", "W", T, number, 1.0, "v4")]))
        while lab.on_v2.offered < 400 or lab.on_v4.offered < 400:
            await pause(0.005)
    v2, v4 = lab.v2.ledger(), lab.v4.ledger()
    for ledger in (v2, v4):
        assert ledger.produced_of("dmm.voltage") == 200
        assert ledger.produced_of("laser.power") == 200
    assert v2.row("laser.power", "bridge").skipped == 200
    assert v4.row("dmm.voltage", "bridge").skipped == 200


async def test_measurements_without_an_origin_are_taken_as_the_hub_s_own():
    async with Lab() as lab:
        lab.v2.publish(scalar(origin=""))
        assert schema.origin_of(await lab.on_v4.get(5)) == "v2"
        lab.on_v2.get_nowait()
        lab.v4.publish(schema.scalar_batch([scalar(origin="")]))
        lab.on_v4.take_missed()
        assert (await lab.on_v2.get(5)).origin == "v4"


async def test_a_camera_frame_reaches_v2_without_a_copy_and_with_its_number():
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    async with Lab() as lab:
        lab.v4.publish(frame(5, pixels))
        image = await lab.on_v2.get(5)
    assert isinstance(image, Image)
    assert np.shares_memory(image.pixels, pixels)
    assert (image.instrument, image.channel, image.sequence, image.t_ns) == ("cam", "frames", 5, T)
    assert image.metadata is not None
    assert image.metadata["frame_number"] == 105


async def test_pictures_cross_only_while_somebody_is_subscribed_on_the_other_side():
    picture = Image("eye", "picture", "counts", T, 0, np.zeros((3, 4)), "v2")
    async with Lab() as lab:
        lab.on_v2.close()
        lab.on_v4.close()
        for number in range(3):
            lab.v4.publish(frame(number))
            lab.v2.publish(msgspec.structs.replace(picture, sequence=number))
        late_v2, late_v4 = lab.v2.subscribe("late"), lab.v4.subscribe("late")
        lab.v4.publish(frame(3))
        lab.v2.publish(msgspec.structs.replace(picture, sequence=3))
        assert {(await late_v2.get(5)).sequence for _ in range(2)} == {3}
        assert {(await late_v4.get(5)).column("sequence").to_pylist()[0] for _ in range(2)} == {3}
        assert not late_v2.occupancy
        for hub, other, stream in ((lab.v4, lab.v2, "cam.frames"), (lab.v2, lab.v4, "eye.picture")):
            row = hub.ledger().row(stream, "bridge")
            assert (row.produced, row.skipped, row.offered) == (4, 3, 1)
            assert other.ledger().produced_of(stream) == 1


async def test_what_is_no_picture_crosses_whether_somebody_is_subscribed_or_not():
    async with Lab() as lab:
        lab.on_v2.close()
        lab.on_v4.close()
        lab.v4.publish(schema.scalar_batch([scalar(1, origin="v4")]))
        lab.v2.publish(scalar(1, channel="current"))
    assert lab.v2.ledger().produced_of("dmm.voltage") == 1
    assert lab.v4.ledger().produced_of("dmm.current") == 1


async def test_an_image_reaches_v4_without_a_copy():
    pixels = np.arange(12, dtype=np.float64).reshape(3, 4)
    async with Lab() as lab:
        lab.v2.publish(Image("webcam", "picture", "counts", T, 3, pixels, "v2", {"gain": 2}))
        batch = await lab.on_v4.get(5)
    assert np.shares_memory(schema.pixels_of(batch), pixels)
    assert schema.stream_of(batch) == "webcam.picture"
    assert schema.images_of(batch)[0].metadata == {"gain": 2}


async def test_vectors_and_spectra_cross_both_ways():
    trace = Vector("scope", "trace", "V", T, 1, np.arange(5.0), "v2")
    line = Spectrum("osa", "line", "dBm", T, 2, np.arange(4.0), np.arange(4.0) + 800, "nm", "v4")
    async with Lab() as lab:
        lab.v2.publish(trace)
        (there,) = schema.vectors_of(await lab.on_v4.get(5))
        lab.on_v2.get_nowait()
        lab.v4.publish(schema.spectrum_batch([line]))
        here = await lab.on_v2.get(5)
    np.testing.assert_array_equal(there.values, trace.values)
    assert isinstance(here, Spectrum)
    np.testing.assert_array_equal(here.axis, line.axis)
    assert (here.axis_unit, here.unit, here.sequence) == ("nm", "dBm", 2)


async def test_a_stage_row_reaches_v2_as_position_and_velocity():
    batch = schema.stage_batch(
        instrument="stage",
        channel="x",
        t_ns=[T],
        sequence=[3],
        axis=["x"],
        position=[12.5],
        velocity=[0.4],
        state=["Moving"],
        unit=["mm"],
    )
    async with Lab() as lab:
        lab.v4.publish(batch)
        arrived = [await lab.on_v2.get(5), await lab.on_v2.get(5)]
    assert arrived == [
        Scalar("stage", "x.position", "mm", T, 3, 12.5, "v4"),
        Scalar("stage", "x.velocity", "mm/s", T, 3, 0.4, "v4"),
    ]


async def test_a_batch_is_made_as_soon_as_enough_rows_wait():
    async with Lab(rows=10, age_ms=60_000) as lab:
        for number in range(10):
            lab.v2.publish(scalar(number))
        assert (await lab.on_v4.get(5)).num_rows == 10


async def test_a_batch_is_made_when_its_first_row_is_old_enough():
    async with Lab(rows=1000, age_ms=10) as lab:
        for number in range(3):
            lab.v2.publish(scalar(number))
        assert (await lab.on_v4.get(5)).num_rows == 3


async def test_several_channels_come_in_batches_of_one_stream_each_in_order():
    async with Lab() as lab:
        for number in range(50):
            for channel in ("a", "b", "c"):
                lab.v2.publish(scalar(number, channel=channel))
    seen: dict[str, list[int]] = {}
    while lab.on_v4.occupancy:
        batch = lab.on_v4.get_nowait()
        seen.setdefault(schema.stream_of(batch), []).extend(batch.column("sequence").to_pylist())
    assert seen == {f"dmm.{channel}": list(range(50)) for channel in ("a", "b", "c")}


async def test_scpi_events_are_not_measurements_and_stay_in_v4():
    async with Lab() as lab:
        lab.v4.publish(
            schema.scpi_event_batch(
                instrument="dmm",
                t_ns=[T],
                sequence=[0],
                command=["*RST"],
                response=[None],
                success=[True],
                error=[None],
            )
        )
    assert lab.v4.ledger().row("dmm.events", "bridge").skipped == 1
    assert lab.v2.ledger().produced == {"v2": {}}


async def test_what_cannot_be_translated_is_dropped_alone_and_counted():
    bad = Image("cam", "picture", "counts", T, 0, np.zeros((2, 2, 2)), "v2")
    wrong = scalar(1, value="not a number")
    async with Lab() as lab:
        for one in (scalar(0), wrong, bad, scalar(2)):
            lab.v2.publish(one)
        lab.v4.publish(schema.with_origin(pa.record_batch({"name": ["x"]}), "v4", "odd", "odd.names"))
    books = lab.bridge.ledgers()
    sequences: list[int] = []
    while lab.on_v4.occupancy:
        batch = lab.on_v4.get_nowait()
        if schema.stream_of(batch) == "dmm.voltage":
            sequences += batch.column("sequence").to_pylist()
    assert sequences == [0, 2]
    assert books["v2→v4"].row("dmm.voltage", "v4").dropped == {"untranslatable": 1}
    assert books["v2→v4"].row("cam.picture", "v4").dropped == {"untranslatable": 1}
    assert books["v4→v2"].row("odd.names", "v2").dropped == {"untranslatable": 1}


async def test_a_destination_that_refuses_a_batch_costs_only_that_batch():
    class Strict(Hub[pa.RecordBatch]):
        def publish(self, item: pa.RecordBatch) -> None:
            if schema.stream_of(item) == "dmm.current":
                raise SchemaMismatchError("not this one")
            super().publish(item)

    v2: Hub[Measurement] = Hub("v2")
    v4 = Strict("v4", key=schema.stream_of, weigh=lambda batch: batch.num_rows)
    bridge, reader = Bridge(v2, v4), v4.subscribe("reader")
    await bridge.start()
    v2.publish(scalar(channel="current"))
    v2.publish(scalar())
    assert schema.stream_of(await reader.get(5)) == "dmm.voltage"
    assert bridge.running
    await bridge.stop()
    assert bridge.ledgers()["v2→v4"].row("dmm.current", "v4").dropped == {"refused": 1}


async def test_back_pressure_ends_in_exact_drop_counts_at_the_bridge_s_own_queue():
    async with Lab(capacity=100, rows=10, age_ms=1) as lab:
        slow = lab.v4.subscribe("slow", capacity=2, policy=Policy.BLOCK)
        for number in range(1000):
            lab.v2.publish(scalar(number))
            if number % 50 == 0:
                await pause(0)
        rows = 0
        while (
            rows < lab.bridge.ledgers()["v2→v4"].row("dmm.voltage", "v4").produced
            or lab.v2.ledger().row("dmm.voltage", "bridge").in_flight
        ):
            rows += (await slow.get(5)).num_rows
        row = lab.v2.ledger().row("dmm.voltage", "bridge")
        assert row.produced == 1000
        assert row.dropped["drop-oldest"] > 0
        assert row.delivered == rows == 1000 - row.dropped["drop-oldest"]
        assert lab.on_v4.delivered + lab.on_v4.in_flight == rows
        slow.close()


async def test_a_blocking_reader_that_never_reads_costs_rows_with_a_reason_not_the_bridge():
    async with Lab(patience_s=0.02) as lab:
        stuck = lab.v4.subscribe("stuck", capacity=1, policy=Policy.BLOCK)
        lab.v2.publish(scalar(0))
        await lab.on_v4.get(5)
        lab.v2.publish(scalar(1))
        while not lab.bridge.ledgers()["v2→v4"].row("dmm.voltage", "v4").lost:
            await pause(0.01)
        stuck.close()
        lab.v2.publish(scalar(2))
        assert (await lab.on_v4.get(5)).column("sequence").to_pylist() == [2]
        assert lab.bridge.ledgers()["v2→v4"].row("dmm.voltage", "v4").dropped == {"no room": 1}


async def test_stop_carries_what_waits_and_reports_clean():
    lab = Lab(rows=1000, age_ms=60_000)
    await lab.bridge.start()
    for number in range(300):
        lab.v2.publish(scalar(number))
        lab.v4.publish(schema.scalar_batch([Scalar("laser", "power", "W", T, number, 1.0, "v4")]))
    report = await lab.bridge.stop(5)
    assert report.outcome is Outcome.CLEAN
    assert await lab.bridge.stop(5) is report
    assert lab.on_v4.offered == lab.on_v2.offered == 600
    assert not lab.bridge.running


async def test_stop_within_its_budget_counts_what_could_not_be_carried():
    lab = Lab(patience_s=60)
    await lab.bridge.start()
    lab.v4.subscribe("stuck", capacity=1, policy=Policy.BLOCK)
    lab.v2.publish(scalar(0))
    await lab.on_v4.get(5)
    lab.v2.publish(scalar(1))
    while lab.v2.ledger().row("dmm.voltage", "bridge").in_flight:
        await pause(0.01)
    lab.v2.publish(scalar(2))
    report = await lab.bridge.stop(0.05)
    assert report.outcome is Outcome.FORCED
    assert "v2→v4" in report.why
    assert lab.bridge.ledgers()["v2→v4"].row("dmm.voltage", "v4").dropped == {"bridge stopped": 1}
    row = lab.v2.ledger().row("dmm.voltage", "bridge")
    assert (row.delivered, row.dropped, row.in_flight) == (2, {"closed": 1}, 0)


async def test_a_bridge_starts_once_and_leaves_nothing_behind_when_it_cannot():
    async with Lab() as lab:
        with pytest.raises(LifecycleError):
            await lab.bridge.start()
    other = Lab()
    other.v4.subscribe("bridge")
    with pytest.raises(ValueError, match="already has"):
        await other.bridge.start()
    assert [one.name for one in other.v2.subscriptions()] == ["reader"]
    assert (await other.bridge.stop()).outcome is Outcome.CLEAN


async def test_a_hub_that_closes_first_is_named_as_the_reason():
    lab = Lab()
    await lab.bridge.start()
    lab.v4.close()
    lab.v2.publish(scalar())
    await lab.bridge.stop()
    assert lab.bridge.ledgers()["v2→v4"].row("dmm.voltage", "v4").dropped == {"destination closed": 1}


async def test_many_threads_on_both_sides_lose_nothing_and_keep_each_sender_s_order():
    async with Lab() as lab:

        def classic(who: int) -> None:
            for number in range(2000):
                lab.v2.publish(Scalar(f"old{who}", "x", "V", T, number, float(number), "v2"))

        def actor(who: int) -> None:
            for number in range(0, 2000, 20):
                rows = [Scalar(f"new{who}", "x", "V", T, n, float(n), "v4") for n in range(number, number + 20)]
                lab.v4.publish(schema.scalar_batch(rows))

        threads = [threading.Thread(target=work, args=(who,)) for who in range(2) for work in (classic, actor)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await lab.bridge.stop(10)
        arrived: dict[str, list[int]] = {}
        for one in await lab.on_v2.get_many(100_000):
            arrived.setdefault(f"v2 {one.instrument}", []).append(one.sequence)
        for batch in await lab.on_v4.get_many(100_000):
            arrived.setdefault(f"v4 {schema.instrument_of(batch)}", []).extend(batch.column("sequence").to_pylist())
        expected = {f"{side} {kind}{who}" for side in ("v2", "v4") for kind in ("old", "new") for who in (0, 1)}
        assert arrived == {key: list(range(2000)) for key in expected}
