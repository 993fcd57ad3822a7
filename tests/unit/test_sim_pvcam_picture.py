"""Parameter numbers and pictures of the simulated cameras, without PyVCAM's Camera."""

from __future__ import annotations

import numpy as np
import pytest

from duodaq.errors import LifecycleError
from duodaq.sim import LocalTable, pvcam
from duodaq.sim.pvcam import PROFILES
from duodaq.sim.pvcam._ids import Param
from duodaq.sim.pvcam._picture import FrameRenderer
from duodaq.sim.table import Scene, rest

FULL = (0, 2047, 1, 0, 2047, 1)


def renderer(seed: int = 1, region: tuple[int, int, int, int, int, int] = FULL) -> FrameRenderer:
    return FrameRenderer(PROFILES["prime-bsi"], LocalTable(3, shutter_open=True), seed, region, 4095)


def draw(painter: FrameRenderer, scene: Scene, number: int = 1) -> np.ndarray:
    out = np.empty(painter.shape, dtype=np.uint16)
    painter.draw(out, scene, 0.02, 0.1, number)
    return out


def lit_scene() -> Scene:
    table = LocalTable(3, shutter_open=True)
    table.set_motion(1, rest(25.0))
    return table.scene()


def test_every_parameter_number_is_the_sdks_own() -> None:
    constants = pytest.importorskip("pyvcam.constants")
    for param in Param:
        assert int(param) == getattr(constants, f"PARAM_{param.name}"), param.name


def test_the_seam_has_exactly_the_functions_of_the_c_module() -> None:
    source = pytest.importorskip("importlib.util").find_spec("pyvcam")
    assert source is not None
    assert source.submodule_search_locations is not None
    with open(f"{source.submodule_search_locations[0]}/pvcmodule.cpp", encoding="utf-8") as file:
        text = file.read()
    names = {part.split(",")[0].strip() for part in text.split("PVC_ADD_METHOD_(")[2:]}
    assert names == set(pvcam.FUNCTIONS)
    assert len(pvcam.FUNCTIONS) == 27


def test_the_same_frame_of_the_same_scene_is_the_same() -> None:
    scene = lit_scene()
    assert np.array_equal(draw(renderer(), scene, 5), draw(renderer(), scene, 5))
    assert not np.array_equal(draw(renderer(), scene, 5), draw(renderer(), scene, 6))
    assert not np.array_equal(draw(renderer(1), scene, 5), draw(renderer(2), scene, 5))


def test_light_has_shot_noise() -> None:
    painter = renderer(region=(1000, 1063, 1, 1000, 1063, 1))
    scene = lit_scene()
    difference = draw(painter, scene, 1).astype(float) - draw(painter, scene, 2)
    light = draw(painter, scene, 1).mean() - 103.6
    assert difference.var() / 2 == pytest.approx(0.25 * light + 1.4**2, rel=0.15)


def test_dark_frames_have_offset_and_read_noise() -> None:
    frame = draw(renderer(), Scene(0.0, 0.0, 3))
    assert frame.mean() == pytest.approx(103.6, abs=0.05)
    assert frame.std() == pytest.approx(1.43, abs=0.05)


def test_the_edge_column_is_partly_lit() -> None:
    painter = renderer()
    scene = lit_scene()
    lit, cut = (draw(painter, scene._replace(edge_px=edge)) for edge in (1100.0, 1024.5))
    assert lit[:, :1024].mean() == pytest.approx(cut[:, :1024].mean(), rel=1e-3)
    assert cut[:, 1025:].max() < 115
    half = (cut[:, 1024].mean() - 103.6) / (lit[:, 1024].mean() - 103.6)
    assert half == pytest.approx(0.5, abs=0.02)


def test_reports_without_an_installation_say_so() -> None:
    pvcam.uninstall()
    with pytest.raises(LifecycleError, match="not installed"):
        pvcam.camera_report()


def test_unknown_models_and_knobs_are_refused() -> None:
    with pytest.raises(ValueError, match="prime-bsi-express"):
        pvcam.install(model="iris")
    with pytest.raises(TypeError, match="no_such_knob"):
        pvcam.install(no_such_knob=1)
    assert not pvcam.installed()
