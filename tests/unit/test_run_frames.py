"""Frames of a run: lazy, checked, in as many shapes as the camera had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pyarrow as pa
import pytest

import duodaq
from duodaq.errors import StorageError, TornFileError
from duodaq.schema import frame_batch
from duodaq.storage.reading import FrameStack, Stream
from duodaq.testing import growing_run, record_run

T0 = 1_780_000_000_000_000_000
SHAPES = [(5, 7, "uint16"), (5, 7, "uint16"), (3, 4, "uint8"), (1, 1, "float32"), (5, 7, "uint16"), (5, 7, "int32")]


def frames(
    number: int, height: int, width: int, dtype: str, count: int = 2
) -> tuple[np.ndarray[Any, Any], pa.RecordBatch]:
    pixels = (np.arange(count * height * width).reshape(count, height, width) + 100 * number).astype(dtype)
    numbers = [number * count + i for i in range(count)]
    times = [T0 + n for n in numbers]
    facts = {"instrument": "camera", "channel": "frames", "t_ns": times, "sequence": numbers, "frame_number": numbers}
    return pixels, frame_batch(pixels, **facts)


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stream, list[np.ndarray[Any, Any]]]:
    made = [frames(n, *shape) for n, shape in enumerate(SHAPES)]
    path = record_run(tmp_path_factory.mktemp("runs") / "run", [batch for _, batch in made])
    return duodaq.open_run(path)["camera.frames"], [pixels for pixels, _ in made]


@pytest.fixture
def stack(tmp_path: Path) -> FrameStack:
    path = record_run(tmp_path / "run", [frames(n, 5, 7, "uint16")[1] for n in range(4)])
    return duodaq.open_run(path)["camera.frames"].frames


def test_frames_are_an_array_that_reads_what_it_is_asked_for(stack: FrameStack) -> None:
    whole = np.concatenate([frames(n, 5, 7, "uint16")[0] for n in range(4)])
    assert (stack.shape, stack.dtype, stack.ndim, len(stack)) == ((8, 5, 7), np.dtype("uint16"), 3, 8)
    assert (stack.size, stack.nbytes) == (280, 560)
    assert np.array_equal(stack[3], whole[3])
    assert np.array_equal(stack[-1], whole[-1])
    assert np.array_equal(stack[2:5], whole[2:5])
    assert np.array_equal(stack[::3, 1:3, ::2], whole[::3, 1:3, ::2])
    assert stack[3, 2, 1] == whole[3, 2, 1]
    assert np.array_equal(stack[..., 1], whole[..., 1])
    assert np.array_equal(stack[[1, 6]], whole[[1, 6]])
    assert np.array_equal(np.asarray(stack), whole)
    assert np.asarray(stack, dtype="float32").dtype == np.float32
    assert np.array_equal(np.stack(list(stack)), whole)
    assert stack[0:0].shape == (0, 5, 7)
    with pytest.raises(IndexError):
        stack[8]
    with pytest.raises(ValueError, match="which is a copy"):
        np.array(stack, copy=False)


def test_frames_are_a_dask_array_and_a_memory_map_too(stack: FrameStack) -> None:
    whole = np.asarray(stack)
    lazy = stack.to_dask()
    assert isinstance(lazy, dask.array.Array)
    assert np.array_equal(lazy[2:4].max(axis=(1, 2)).compute(scheduler="synchronous"), whole[2:4].max(axis=(1, 2)))
    mapped = stack.memmap()
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, whole)
    assert not mapped.flags.writeable


def test_xarray_does_not_read_frames_before_they_are_used(stack: FrameStack, monkeypatch: pytest.MonkeyPatch) -> None:
    data = duodaq.open_run(stack.files()[0][0].parent)["camera.frames"].to_xarray()
    read: list[Any] = []
    take = FrameStack.__getitem__

    def noted(self: FrameStack, key: Any) -> Any:
        read.append(key)
        return take(self, key)

    monkeypatch.setattr(FrameStack, "__getitem__", noted)
    assert data["frames"].dims == ("time", "y", "x")
    assert data["frames"].attrs == {"units": "counts"}
    third = data["frames"].isel(time=3)
    assert read == []
    assert np.array_equal(third.values, take(stack, 3))
    assert len(read) == 1
    assert np.array_equal(data["frames"].isel(time=[1, 5], x=slice(1, 3)).values, take(stack, [1, 5])[:, :, 1:3])


def test_each_shape_and_dtype_is_a_stack_of_its_own_in_order(
    changing: tuple[Stream, list[np.ndarray[Any, Any]]],
) -> None:
    stream, pixels = changing
    found = stream.stacks
    assert [(stack.shape, stack.dtype.name) for stack in found] == [
        ((6, 5, 7), "uint16"),
        ((2, 3, 4), "uint8"),
        ((2, 1, 1), "float32"),
        ((2, 5, 7), "int32"),
    ]
    assert np.array_equal(np.asarray(found[0]), np.concatenate([pixels[0], pixels[1], pixels[4]]))
    assert found[0].rows.tolist() == [0, 1, 2, 3, 8, 9]
    assert np.array_equal(np.asarray(found[2]), pixels[3])
    with pytest.raises(StorageError, match=r"of several kinds .*take `stacks`"):
        _ = stream.frames
    with pytest.raises(StorageError, match="do not lie behind one another"):
        found[0].memmap()


def test_frames_of_several_kinds_are_variables_with_times_of_their_own(
    changing: tuple[Stream, list[np.ndarray[Any, Any]]],
) -> None:
    stream, pixels = changing
    data = stream.to_xarray()
    assert data["frames"].dims == ("frames_time", "frames_y", "frames_x")
    assert data["frames_time"].values.astype(np.int64).tolist() == [T0 + n for n in (0, 1, 2, 3, 8, 9)]
    assert np.array_equal(data["frames_2"].values, pixels[2])
    assert data.sizes["time"] == 12


def test_a_window_of_time_takes_its_frames_too(changing: tuple[Stream, list[np.ndarray[Any, Any]]]) -> None:
    stream, pixels = changing
    some = stream.between(T0 + 1, T0 + 5).stacks
    assert [stack.shape for stack in some] == [(3, 5, 7), (1, 3, 4)]
    assert np.array_equal(some[1][0], pixels[2][0])


def test_frames_of_a_growing_run_are_there_as_soon_as_they_are_written(tmp_path: Path) -> None:
    with growing_run(tmp_path / "run") as journal:
        run = duodaq.open_run(tmp_path / "run")
        for number in range(3):
            pixels, batch = frames(number, 33, 31, "uint16")
            journal.write([batch])
            stack = run["camera.frames"].frames
            assert len(stack) == 2 * (number + 1)
            assert np.array_equal(stack[-2:], pixels)


def test_a_damaged_frame_is_never_returned_and_the_others_are(stack: FrameStack) -> None:
    path, offset, _, _ = stack.files()[0]
    with open(path, "r+b") as file:
        file.seek(offset + 5 * 70 + 11)
        file.write(b"\xff")
    for key in (5, slice(4, 6), slice(None)):
        with pytest.raises(TornFileError, match=r"frame 5 in camera\.frames\.npy is damaged"):
            stack[key]
    assert not stack.is_sound(5)
    assert stack[4].shape == (5, 7)
    assert stack.sound().rows.tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert np.asarray(stack.sound()).shape == (7, 5, 7)


def test_a_stream_without_frames_has_none(tmp_path: Path) -> None:
    from duodaq.testing import knife_edge

    stream = duodaq.open_run(record_run(tmp_path / "run", knife_edge(3)))["meter.power"]
    assert not stream.has_frames
    assert stream.stacks == []
    with pytest.raises(StorageError, match=r"meter\.power has no frames"):
        _ = stream.frames
