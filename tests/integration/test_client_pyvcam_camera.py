"""PyVCAM's own, unmodified Camera over the simulated seam."""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duodaq import sim
from duodaq.clock import block
from duodaq.sim import LocalTable, pvcam
from duodaq.sim.table import rest

pytest.importorskip("pyvcam.constants")

TIMEOUT = "Frame timeout. Verify the timeout exceeds the exposure time. If applicable, check external trigger source."


class Stand:
    """A camera on its stand: the table before it, and PyVCAM's objects."""

    def __init__(self, **options: Any) -> None:
        self.table = LocalTable(3, shutter_open=True)
        self.table.set_motion(1, rest(25.0))
        pvcam.install(self.table, seed=3, **options)
        from pyvcam import constants, pvc
        from pyvcam.camera import Camera

        self.constants, self.pvc, self.kind = constants, pvc, Camera
        pvc.init_pvcam()
        self.camera = next(Camera.detect_camera())
        self.camera.open()

    def close(self) -> None:
        if sys.modules.get("pyvcam.pvc") is not self.pvc:
            return
        if self.camera.is_open:
            self.camera.finish()
            self.camera.close()
        self.pvc.uninit_pvcam()
        pvcam.uninstall()

    def report(self) -> dict[str, Any]:
        return pvcam.camera_report()[self.camera.name]

    def books_balance(self) -> bool:
        report = self.report()
        gone = report["read"] + report["dropped"] + report["discarded"] + report["in_ring"]
        return report["produced"]["frame"] == gone


@pytest.fixture
def stand() -> Iterator[Stand]:
    found = Stand()
    yield found
    found.close()


@pytest.fixture
def make_stand() -> Iterator[Callable[..., Stand]]:
    made: list[Stand] = []

    def make(**options: Any) -> Stand:
        made.append(Stand(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def small(camera: Any, side: int = 64) -> None:
    camera.set_roi(992, 992, side, side)


def test_the_camera_says_what_a_prime_bsi_says(stand: Stand) -> None:
    camera = stand.camera
    assert (camera.name, camera.chip_name, camera.serial_no) == ("pvcamUSB_0", "GS2020", "A19G204008")
    assert camera.sensor_size == (2048, 2048)
    assert (camera.temp, camera.temp_setpoint) == (-19.76, -20.0)
    assert camera.fan_speeds == {"High": 0, "Medium": 1, "Low": 2}
    assert camera.exp_modes == {"Internal Trigger": 1792, "Edge Trigger": 2304, "Trigger First": 2048}
    assert camera.exp_out_modes == {"First Row": 0, "Any Row": 2, "Rolling Shutter": 3}
    assert camera.clear_modes == {"Auto": 2}
    assert camera.readout_ports == {"Sensitivity": 0}
    assert camera.binnings == [(1, 1), (2, 2), (4, 4)]
    table = camera.port_speed_gain_table["Sensitivity"]
    assert [table[f"Speed_{index}"]["pixel_time"] for index in (0, 1)] == [5, 10]
    assert table["Speed_0"]["gain_range"] == [1, 2, 3]
    assert {"Full well", "Balanced", "Sensitivity"} <= set(table["Speed_1"])
    assert not camera.check_param(stand.constants.PARAM_SPDTAB_NAME)
    assert {feature["ENABLED"]["feature_id"] for feature in camera.post_processing_table.values()} == {
        13, 8, 9, 15, 14, 3,
    }  # fmt: skip


ABSENT = ("prog_scan_mode", "prog_scan_dir", "prog_scan_dir_reset", "prog_scan_line_delay")
ABSENT += ("prog_scan_line_time", "prog_scan_width", "scan_line_time", "live_roi")


def test_every_property_answers_or_says_that_this_camera_has_none(stand: Stand) -> None:
    names = [name for name, member in vars(stand.kind).items() if isinstance(member, property)]
    assert len(names) > 50
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in names:
            if name in ABSENT:
                with pytest.raises(AttributeError, match="is not available"):
                    getattr(stand.camera, name)
            else:
                getattr(stand.camera, name)


def test_what_is_set_is_read_back(stand: Stand) -> None:
    camera = stand.camera
    for name, value in (
        ("speed", 1),
        ("gain", 3),
        ("exp_res", 1),
        ("exp_mode", "Edge Trigger"),
        ("exp_out_mode", "Any Row"),
        ("fan_speed", "Low"),
        ("temp_setpoint", -10.0),
        ("metadata_enabled", True),
        ("smart_stream_mode_enabled", True),
        ("smart_stream_exp_params", [10, 20, 30]),
        ("exp_time", 500),
        ("vtm_exp_time", 7),
        ("centroids_mode", "Blob"),
    ):
        setattr(camera, name, value)
        wanted = (
            {"Edge Trigger": 2304, "Any Row": 2, "Low": 2, "Blob": 2}.get(value, value)
            if isinstance(value, str)
            else value
        )
        assert getattr(camera, name) == wanted
    assert camera.bit_depth == 16


def test_what_it_does_not_have_is_refused_in_the_documented_way(stand: Stand) -> None:
    camera, constants = stand.camera, stand.constants
    refused: tuple[tuple[str, Any], ...] = (
        ("exp_mode", "No Such Mode"), ("fan_speed", 9), ("gain", 4), ("speed", 2), ("binning", 3),
        ("exp_time", 10_001), ("temp_setpoint", -40.0), ("clear_mode", 0), ("readout_port", 5),
    )  # fmt: skip
    for name, value in refused:
        with pytest.raises(ValueError, match=r"\w"):
            setattr(camera, name, value)
    with pytest.raises(AttributeError, match="0x060300FF is not available"):
        camera.get_param(constants.PARAM_SCAN_WIDTH)
    with pytest.raises(RuntimeError, match="read only"):
        camera.set_param(constants.PARAM_SER_SIZE, 1)
    with pytest.raises(ValueError, match="limits of sensor"):
        camera.set_roi(2000, 0, 100, 10)
    with pytest.raises(KeyError, match="Invalid camera handle"):
        stand.pvc.get_frame(7, camera.rois, 4, 0, True)
    with pytest.raises(RuntimeError, match="handle"):
        stand.pvc.get_param(7, constants.PARAM_TEMP, constants.ATTR_CURRENT)
    with pytest.raises(RuntimeError, match="Failed to open"):
        stand.kind("pvcamUSB_0").open()


def test_post_processing_is_set_read_and_reset(stand: Stand) -> None:
    camera = stand.camera
    camera.set_post_processing_param("DENOISING", "ENABLED", 1)
    camera.set_post_processing_param("QUANTVIEW", "ENABLED", 1)
    assert camera.get_post_processing_param("DENOISING", "ENABLED") == 1
    camera.reset_pp()
    assert camera.get_post_processing_param("DENOISING", "ENABLED") == 0
    with pytest.raises(AttributeError, match="out of range"):
        camera.set_post_processing_param("DENOISING", "ENABLED", 2)


def test_a_single_frame_shows_beam_and_dark(stand: Stand) -> None:
    frame = stand.camera.get_frame(exp_time=10, timeout_ms=5000)
    assert (frame.shape, frame.dtype) == ((2048, 2048), np.uint16)
    assert frame[:50].mean() == pytest.approx(103.6, abs=0.3)
    assert frame[:50].std() == pytest.approx(1.4, abs=0.2)
    assert frame.max() > 400


def test_the_knife_edge_cuts_the_picture_and_the_shutter_darkens_it(stand: Stand) -> None:
    light = stand.camera.get_frame(exp_time=10, timeout_ms=5000)
    stand.table.set_motion(1, rest(stand.table.truth().centre_mm))
    half = stand.camera.get_frame(exp_time=10, timeout_ms=5000)
    stand.table.set_shutter(False)
    dark = stand.camera.get_frame(exp_time=10, timeout_ms=5000)
    full_light, half_light = (float(frame.mean() - dark.mean()) for frame in (light, half))
    assert half_light == pytest.approx(full_light / 2, rel=0.02)
    assert dark.max() < 115


def test_too_much_light_saturates_at_the_bit_depth(stand: Stand) -> None:
    small(stand.camera)
    for speed, top in ((0, 4095), (1, 65535)):
        stand.camera.speed = speed
        stand.camera.gain = 3
        assert stand.camera.get_frame(exp_time=2000 if speed else 100, timeout_ms=9000).max() == top


def test_live_frames_are_numbered_without_a_gap(stand: Stand) -> None:
    camera = stand.camera
    small(camera)
    camera.metadata_enabled = True
    camera.start_live(exp_time=5, buffer_frame_count=512)
    frames = [camera.poll_frame(timeout_ms=5000) for _ in range(12)]
    numbers = [frame["meta_data"]["frame_header"]["frameNr"] for frame, _, _ in frames]
    assert numbers == list(range(1, 13))
    assert [count for _, _, count in frames] == numbers
    assert frames[-1][1] > 1
    camera.finish()
    assert camera.check_frame_status() == "READOUT_NOT_ACTIVE"
    assert stand.books_balance()


def test_a_slow_reader_loses_the_oldest_frames_and_they_are_counted(stand: Stand) -> None:
    camera = stand.camera
    small(camera)
    camera.metadata_enabled = True
    pvcam.configure(speed_up=4.0)
    camera.start_live(exp_time=5, buffer_frame_count=4)
    numbers: list[int] = []
    for _ in range(6):
        block(0.05)
        frame, _, _ = camera.poll_frame(timeout_ms=5000)
        numbers.append(frame["meta_data"]["frame_header"]["frameNr"])
    assert stand.books_balance()
    report = stand.report()
    gaps = numbers[-1] - len(numbers)
    assert gaps > 0
    assert report["read"] == 6
    assert gaps <= report["dropped"] <= gaps + 200
    camera.finish()
    report = stand.report()
    assert stand.books_balance()
    assert report["in_ring"] == 0
    assert report["produced"]["frame"] == report["read"] + report["dropped"] + report["discarded"]
    assert stand.table.counts()["pvcamUSB_0"] == report


def test_the_gap_in_frame_numbers_is_the_number_of_dropped_frames(make_stand: Callable[..., Stand]) -> None:
    stand = make_stand(speed_up=10.0, stall_after=40)
    camera = stand.camera
    small(camera)
    camera.metadata_enabled = True
    camera.start_live(exp_time=5, buffer_frame_count=8)
    deadline = time.monotonic() + 20
    while stand.report()["produced"]["frame"] < 40 and time.monotonic() < deadline:
        block(0.01)
    report = stand.report()
    assert (report["produced"]["frame"], report["dropped"], report["in_ring"]) == (40, 32, 8)


def test_the_newest_frame_can_be_looked_at_without_taking_it(stand: Stand) -> None:
    camera = stand.camera
    small(camera)
    camera.start_seq(exp_time=1, num_frames=3)
    while camera.check_frame_status() != "READOUT_COMPLETE":
        block(0.005)
    assert camera.poll_frame(timeout_ms=1000, oldestFrame=False)[2] == 3
    assert [camera.poll_frame(timeout_ms=1000)[2] for _ in range(3)] == [1, 2, 3]


def test_a_sequence_delivers_its_frames_and_then_nothing(stand: Stand) -> None:
    camera = stand.camera
    small(camera)
    camera.start_seq(exp_time=2, num_frames=5)
    assert [camera.poll_frame(timeout_ms=5000)[2] for _ in range(5)] == [1, 2, 3, 4, 5]
    with pytest.raises(RuntimeError) as caught:
        camera.poll_frame(timeout_ms=50)
    assert str(caught.value) == TIMEOUT
    camera.finish()
    assert camera.get_sequence(3, exp_time=1, timeout_ms=5000).shape == (3, 64, 64)


def test_the_frame_counter_goes_on_until_it_is_reset(stand: Stand) -> None:
    camera = stand.camera
    small(camera)
    counts: list[int] = []
    for reset in (False, False, True):
        camera.start_seq(exp_time=1, num_frames=1, reset_frame_counter=reset)
        counts.append(camera.poll_frame(timeout_ms=5000)[2])
        camera.finish()
    assert counts == [1, 2, 1]


@pytest.mark.parametrize("model", ["prime-bsi", "prime-bsi-express"])
def test_variable_exposures_are_emulated_or_native(make_stand: Callable[..., Stand], model: str) -> None:
    stand = make_stand(model=model)
    camera = stand.camera
    small(camera)
    camera.metadata_enabled = False
    if model == "prime-bsi-express":
        camera.exp_mode = "Variable Timed"
    stack = camera.get_vtm_sequence([1, 20], 0, 4, timeout_ms=5000)
    means = stack.mean(axis=(1, 2)) - 103.6
    assert means[1] / means[0] == pytest.approx(20, rel=0.1)
    assert means[3] / means[2] == pytest.approx(20, rel=0.1)


def test_binning_adds_pixels_up(stand: Stand) -> None:
    camera = stand.camera
    camera.set_roi(960, 960, 128, 128)
    one = camera.get_frame(exp_time=5, timeout_ms=5000)
    camera.binning = (4, 4)
    four = camera.get_frame(exp_time=5, timeout_ms=5000)
    assert (one.shape, four.shape) == ((128, 128), (32, 32))
    assert (four.mean() - 103.6) / (one.mean() - 103.6) == pytest.approx(16, rel=0.1)


def test_a_region_is_the_same_part_of_the_picture(stand: Stand) -> None:
    camera = stand.camera
    full = camera.get_frame(exp_time=5, timeout_ms=5000).astype(float)
    camera.set_roi(1000, 900, 200, 100)
    part = camera.get_frame(exp_time=5, timeout_ms=5000).astype(float)
    assert part.shape == (100, 200)
    assert part.mean() == pytest.approx(full[900:1000, 1000:1200].mean(), rel=0.01)


def test_several_regions_come_as_a_list_with_their_headers(stand: Stand) -> None:
    camera = stand.camera
    camera.metadata_enabled = True
    camera.set_roi(0, 0, 32, 16)
    camera.set_roi(1000, 1000, 64, 48)
    with pytest.raises(ValueError, match="overlaps"):
        camera.set_roi(1010, 1010, 10, 10)
    camera.start_seq(exp_time=2)
    frame, _, _ = camera.poll_frame(timeout_ms=5000)
    assert [pixels.shape for pixels in frame["pixel_data"]] == [(16, 32), (48, 64)]
    assert frame["pixel_data"][0].mean() < frame["pixel_data"][1].mean()
    headers = frame["meta_data"]["roi_headers"]
    assert [header["roiNr"] for header in headers] == [1, 2]
    assert headers[1]["roi"] == {"s1": 1000, "s2": 1063, "sbin": 1, "p1": 1000, "p2": 1047, "pbin": 1}


def test_frame_headers_carry_number_time_and_exposure(stand: Stand) -> None:
    camera = stand.camera
    small(camera)
    camera.metadata_enabled = True
    camera.exp_res = 1
    camera.start_live(exp_time=3000, buffer_frame_count=512)
    first, second = (camera.poll_frame(timeout_ms=5000)[0]["meta_data"]["frame_header"] for _ in range(2))
    camera.finish()
    assert set(first) == {
        "signature", "version", "frameNr", "roiCount", "timestampBofPs", "timestampEofPs", "exposureTimePs",
        "bitDepth", "colorMask", "flags", "extendedMdSize", "imageFormat", "imageCompression",
    }  # fmt: skip
    assert (first["signature"], first["frameNr"], second["frameNr"]) == ("PVCM", 1, 2)
    assert first["exposureTimePs"] == 3_000_000_000
    assert first["timestampEofPs"] - first["timestampBofPs"] == pytest.approx(3e9, rel=0.01)
    assert second["timestampBofPs"] > first["timestampBofPs"]


def test_a_frame_that_does_not_come_is_a_timeout_in_pyvcams_words(stand: Stand) -> None:
    camera = stand.camera
    small(camera)
    camera.exp_mode = "Edge Trigger"
    camera.start_live(exp_time=1)
    with pytest.raises(RuntimeError) as caught:
        camera.poll_frame(timeout_ms=50)
    assert str(caught.value) == TIMEOUT
    assert camera.check_frame_status() == "EXPOSURE_IN_PROGRESS"
    assert pvcam.external_trigger()
    camera.poll_frame(timeout_ms=5000)
    assert camera.check_frame_status() == "FRAME_AVAILABLE"


def test_polling_without_an_acquisition_is_not_active(stand: Stand) -> None:
    with pytest.raises(RuntimeError, match=r"^Acquisition not active\.$"):
        stand.camera.poll_frame(timeout_ms=50)


def test_finishing_wakes_whoever_waits(stand: Stand) -> None:
    camera = stand.camera
    small(camera)
    camera.exp_mode = "Edge Trigger"
    camera.start_live(exp_time=1)
    said: list[str] = []

    def wait() -> None:
        try:
            camera.poll_frame(timeout_ms=20_000)
        except RuntimeError as exc:
            said.append(str(exc))

    waiter = threading.Thread(target=wait)
    waiter.start()
    block(0.05)
    camera.finish()
    waiter.join(10)
    assert said == ["Acquisition aborted."]


def test_software_triggers_work_where_the_mode_takes_them(make_stand: Callable[..., Stand]) -> None:
    stand = make_stand(model="prime-bsi-express")
    camera = stand.camera
    small(camera)
    with pytest.raises(ValueError, match="software trigger"):
        camera.sw_trigger()
    camera.exp_mode = "Software Trigger Edge"
    camera.start_live(exp_time=1)
    for count in (1, 2):
        camera.sw_trigger()
        assert camera.poll_frame(timeout_ms=5000)[2] == count
    assert camera.speed_name == "Speed"


def test_smart_streaming_goes_round_its_exposures(stand: Stand) -> None:
    camera = stand.camera
    small(camera)
    camera.metadata_enabled = True
    camera.smart_stream_mode_enabled = True
    camera.smart_stream_exp_params = [1, 5]
    camera.start_live(exp_time=1, buffer_frame_count=512)
    times = [camera.poll_frame(timeout_ms=5000)[0]["meta_data"]["frame_header"]["exposureTimePs"] for _ in range(4)]
    assert times == [10**9, 5 * 10**9, 10**9, 5 * 10**9]


def test_the_stream_on_disk_is_the_frames(stand: Stand, tmp_path: Path) -> None:
    camera = stand.camera
    small(camera)
    path = tmp_path / "frames.bin"
    camera.start_live(exp_time=200, buffer_frame_count=4, stream_to_disk_path=str(path))
    frames = [camera.poll_frame(timeout_ms=5000)[0]["pixel_data"] for _ in range(3)]
    camera.finish()
    data = path.read_bytes()
    assert len(data) % 4096 == 0
    assert data.startswith(b"".join(frame.tobytes() for frame in frames))


def test_a_buffer_beyond_four_gigabytes_is_refused(stand: Stand) -> None:
    with pytest.raises(MemoryError, match="Unable to allocate acquisition buffer for 600 frame 8388608 bytes each"):
        stand.camera.start_live(exp_time=1, buffer_frame_count=600)


def test_no_frames_at_all_cannot_be_acquired(stand: Stand) -> None:
    with pytest.raises(RuntimeError):
        stand.camera.start_live(exp_time=1, buffer_frame_count=0)
    with pytest.raises(RuntimeError):
        stand.camera.start_seq(exp_time=1, num_frames=0)


def test_negative_numbers_are_the_large_ones_that_the_wrapper_makes_of_them(stand: Stand) -> None:
    with pytest.raises(MemoryError, match="4294967293 frame 8388608 bytes each"):
        stand.camera.start_live(exp_time=1, buffer_frame_count=-3)
    with pytest.raises(MemoryError, match="65535 frame 8388608 bytes each"):
        stand.camera.start_seq(exp_time=1, num_frames=-1)
    stand.camera.start_live(exp_time=-5)
    with pytest.raises(RuntimeError, match="Frame timeout"):
        stand.camera.poll_frame(timeout_ms=50)
    assert stand.camera.check_frame_status() == "EXPOSURE_IN_PROGRESS"


def test_views_stay_on_the_ring_until_they_are_dropped(stand: Stand) -> None:
    camera = stand.camera
    small(camera)
    camera.start_live(exp_time=1)
    frame, _, _ = camera.poll_frame(timeout_ms=5000, copyData=False)
    assert frame["pixel_data"].base is not None
    camera.finish()
    assert frame["pixel_data"].mean() > 100


def test_a_stalled_camera_goes_silent_and_inactive(make_stand: Callable[..., Stand]) -> None:
    stand = make_stand(stall_after=3, speed_up=5.0)
    camera = stand.camera
    small(camera)
    camera.start_live(exp_time=5)
    deadline = time.monotonic() + 10
    while camera.check_frame_status() != "READOUT_NOT_ACTIVE" and time.monotonic() < deadline:
        block(0.005)
    assert (stand.report()["produced"]["frame"], stand.report()["in_ring"]) == (3, 3)
    with pytest.raises(RuntimeError, match=r"^Acquisition not active\.$"):
        camera.poll_frame(timeout_ms=1000)
    assert stand.books_balance()


def test_a_stuck_camera_comes_free_when_it_is_opened_again(make_stand: Callable[..., Stand]) -> None:
    stand = make_stand(stuck_exposure=True)
    camera = stand.camera
    small(camera)
    camera.start_live(exp_time=1)
    with pytest.raises(RuntimeError) as caught:
        camera.poll_frame(timeout_ms=100)
    assert str(caught.value) == TIMEOUT
    assert camera.check_frame_status() == "EXPOSURE_IN_PROGRESS"
    camera.finish()
    camera.close()
    camera.open()
    small(camera)
    assert camera.get_frame(exp_time=1, timeout_ms=5000).shape == (64, 64)


def test_the_other_failures_say_what_pyvcam_says(make_stand: Callable[..., Stand]) -> None:
    stand = make_stand(start_error=185)
    camera = stand.camera
    small(camera)
    with pytest.raises(RuntimeError, match="185"):
        camera.start_live(exp_time=1)
    pvcam.configure(start_error=None, fail_after=2)
    camera.start_live(exp_time=1)
    while camera.check_frame_status() != "READOUT_FAILED":
        block(0.005)
    with pytest.raises(RuntimeError, match=r"^Frame readout failed\.$"):
        camera.poll_frame(timeout_ms=5000)
    camera.finish()
    pvcam.configure(fail_after=None, metadata_timeout=True)
    camera.metadata_enabled = True
    camera.start_live(exp_time=1)
    with pytest.raises(RuntimeError, match="Frame timeout"):
        camera.poll_frame(timeout_ms=100)


def test_frames_lost_in_the_camera_leave_a_gap_in_its_numbers(make_stand: Callable[..., Stand]) -> None:
    stand = make_stand(lose_frames=frozenset({2, 4}))
    camera = stand.camera
    small(camera)
    camera.metadata_enabled = True
    camera.start_live(exp_time=1, buffer_frame_count=512)
    frames = [camera.poll_frame(timeout_ms=5000)[0] for _ in range(3)]
    assert [frame["meta_data"]["frame_header"]["frameNr"] for frame in frames] == [1, 3, 5]
    assert stand.report()["lost_in_camera"] >= 2


def test_two_cameras_have_two_names_and_run_side_by_side(make_stand: Callable[..., Stand]) -> None:
    stand = make_stand(cameras=2)
    assert stand.kind.get_available_camera_names() == ["pvcamUSB_0", "pvcamUSB_1"]
    other = stand.kind.select_camera("pvcamUSB_1")
    other.open()
    for camera in (stand.camera, other):
        small(camera)
        camera.start_live(exp_time=2)
    one, two = (camera.poll_frame(timeout_ms=5000)[0]["pixel_data"] for camera in (stand.camera, other))
    assert not np.array_equal(one, two)
    other.finish()
    other.close()
    assert pvcam.camera_report()["pvcamUSB_1"]["read"] == 1


def test_the_camera_sees_the_table_of_another_process_and_leaves_its_counts_there() -> None:
    with sim.launch_table(seed=4, shutter_open=True) as table:
        with table.client() as client:
            client.set_motion(1, rest(25.0))
        pvcam.install(table.address, seed=4)
        try:
            from pyvcam import pvc
            from pyvcam.camera import Camera

            pvc.init_pvcam()
            camera = next(Camera.detect_camera())
            camera.open()
            small(camera)
            camera.start_live(exp_time=5)
            bright = camera.poll_frame(timeout_ms=5000)[0]["pixel_data"].mean()
            table.set_shutter(False)
            for _ in range(12):
                dark = camera.poll_frame(timeout_ms=5000)[0]["pixel_data"].mean()
            assert table.counts()["pvcamUSB_0"]["produced"]["frame"] > 0
            camera.finish()
            assert bright > dark + 100
            assert table.counts()["pvcamUSB_0"] == pvcam.camera_report()["pvcamUSB_0"]
            camera.close()
            pvc.uninit_pvcam()
        finally:
            pvcam.uninstall()


def test_uninstalling_puts_back_what_was_there(make_stand: Callable[..., Stand]) -> None:
    before = sys.modules.get("pyvcam.pvc")
    stand = make_stand()
    assert sys.modules["pyvcam.pvc"] is stand.pvc
    with pytest.raises(RuntimeError, match="installed already"):
        pvcam.install()
    stand.close()
    assert sys.modules.get("pyvcam.pvc") is before
    assert not pvcam.installed()
    assert make_stand().camera.is_open
