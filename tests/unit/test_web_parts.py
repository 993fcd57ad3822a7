"""The pure parts of the page's server: who may come in, what is refused, how pictures and curves are made small."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from duodaq.app import ScanStatus
from duodaq.errors import ConfigError, OutOfRangeError, PortTimeoutError, StoppedError, UnsafeStateError
from duodaq.model import Scalar, Spectrum, Vector, WebDefinition
from duodaq.schema import scalar_batch, spectrum_batch, vector_batch

_access: Any = pytest.importorskip("duodaq.web._access")
_pictures: Any = pytest.importorskip("duodaq.web._pictures")
_refusal: Any = pytest.importorskip("duodaq.web._refusal")
_viewer: Any = pytest.importorskip("duodaq.web._viewer")
shown: Any = pytest.importorskip("duodaq.web._moment").shown
to_json: Any = pytest.importorskip("duodaq.web._plain").to_json
_history: Any = pytest.importorskip("duodaq.web._history")
_traces: Any = pytest.importorskip("duodaq.web._traces")
Jobs: Any = pytest.importorskip("duodaq.web._jobs").Jobs
Rate: Any = pytest.importorskip("duodaq.web._rates").Rate
thinned = _history.thinned
_feed = pytest.importorskip("duodaq.web._feed")
Access, Role = _access.Access, _access.Role
Frame, View, encoded = _pictures.Frame, _pictures.View, _pictures.encoded
Refusal, refusal_of = _refusal.Refusal, _refusal.refusal_of
MOST_ROWS, MOST_TOGETHER, Viewer, Waiting = _viewer.MOST_ROWS, _viewer.MOST_TOGETHER, _viewer.Viewer, _viewer.Waiting

TOKEN, OTHER = "an operator's token", "a viewer's own token"


def access(**fields: Any) -> Any:
    return Access(WebDefinition(**fields), "lab")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "lab.example.org"])
def test_strangers_are_not_let_in_without_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="no token"):
        access(host=host)
    access(host=host, token=TOKEN)


@pytest.mark.parametrize("name", ["127.0.0.1:8400", "localhost:8400", "[::1]:8400", "LOCALHOST", "127.1.2.3:1"])
def test_own_names_are_known(name: str) -> None:
    access().check_name(name)


@pytest.mark.parametrize("name", ["evil.example:8400", "localhost.evil.example", "192.168.1.5:8400", "", None, "[::1"])
def test_other_names_are_refused(name: str | None) -> None:
    with pytest.raises(Refusal) as refused:
        access().check_name(name)
    assert refused.value.status == 403


def test_a_machine_that_lets_others_in_is_called_by_its_addresses_and_its_names() -> None:
    open_to_all = access(host="0.0.0.0", token=TOKEN, names=("lab.example.org",))
    for name in ("192.168.1.5:8400", "lab.example.org", "[fe80::1]:8400"):
        open_to_all.check_name(name)
    with pytest.raises(Refusal):
        open_to_all.check_name("rebound.example:8400")


@pytest.mark.parametrize(
    ("origin", "site", "linked", "let_in"),
    [
        (None, None, False, True),  # a program
        ("http://localhost:8400", "same-origin", False, True),
        ("https://localhost:8400", "same-origin", False, True),  # behind a proxy with TLS
        ("http://localhost:8401", "same-site", False, False),
        ("http://evil.example", "cross-site", True, False),
        ("null", None, False, False),
        ("http://[", None, True, False),
        ("http://[", "same-origin", False, False),
        ("http://localhost:8400\uff0f", None, False, False),
        (None, "cross-site", False, False),
        (None, "cross-site", True, True),  # somebody followed a link to the page
    ],
)
def test_pages_of_other_sites_cannot_act(origin: str | None, site: str | None, linked: bool, let_in: bool) -> None:
    if let_in:
        access().check_origin(origin, "localhost:8400", site, linked=linked)
        return
    with pytest.raises(Refusal) as refused:
        access().check_origin(origin, "localhost:8400", site, linked=linked)
    assert refused.value.status == 403


def test_tokens_give_roles_and_cookies_stand_for_them() -> None:
    guarded = access(token=TOKEN, viewer_token=OTHER)
    assert guarded.role_of(TOKEN, None) is Role.OPERATOR
    assert guarded.role_of(OTHER, None) is Role.VIEWER
    assert guarded.role_of(None, guarded.cookie_of(Role.VIEWER)) is Role.VIEWER
    assert guarded.role_of(None, guarded.cookie_of(Role.OPERATOR)) is Role.OPERATOR
    assert guarded.role_of("wrong", "wrong") is Role.NOBODY
    assert guarded.role_of(None, None) is Role.NOBODY
    assert guarded.role_of("é", "é") is Role.NOBODY
    assert access().role_of(None, None) is Role.OPERATOR


def test_a_cookie_is_good_for_its_lab_and_its_token_alone() -> None:
    cookie = access(token=TOKEN).cookie_of(Role.OPERATOR)
    assert access(token=OTHER).role_of(None, cookie) is Role.NOBODY
    assert Access(WebDefinition(token=TOKEN), "another").role_of(None, cookie) is Role.NOBODY
    assert access(viewer_token=OTHER).role_of(None, access(viewer_token=OTHER).cookie_of(Role.OPERATOR)) is Role.NOBODY


def test_rates_refill_and_forget_who_came_least_lately() -> None:
    now = [0.0]
    rate = Rate(2.0, 3, most=2, now_s=lambda: now[0])
    assert [rate.take("a") for _ in range(4)] == [True, True, True, False]
    now[0] = 0.5
    assert [rate.take("a") for _ in range(2)] == [True, False]
    assert rate.take("b")
    assert rate.take("c")
    assert rate.take("a")


@pytest.mark.parametrize(
    ("error", "status", "fate"),
    [
        (OutOfRangeError("too far"), 422, None),
        (UnsafeStateError("latched"), 409, None),
        (PortTimeoutError("silent"), 424, None),
        (StoppedError("gone"), 424, "not done"),
        (ZeroDivisionError("a driver's own"), 424, None),
    ],
)
def test_errors_become_answers(error: Exception, status: int, fate: str | None) -> None:
    refusal = refusal_of(error)
    assert (refusal.status, refusal.body().get("fate")) == (status, fate)
    assert refusal.body()["detail"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), None),
        ({"a": [float("inf"), 1.5]}, {"a": [None, 1.5]}),
        ("\ud800", "\ud800"),
        (2**70, 2**70),
        (np.float32(1.5), 1.5),
        (np.zeros((100, 100), np.uint8), {"shape": [100, 100], "dtype": "uint8"}),
        (np.arange(3), [0, 1, 2]),
        ({1: object}, {"1": "<class 'object'>"}),
    ],
)
def test_anything_becomes_json(value: object, told: object) -> None:
    assert json.loads(to_json(value)) == told


def picture(data: bytes) -> dict[str, Any]:
    return pa.ipc.open_stream(data).read_all().to_pylist()[0]


def frame(pixels: np.ndarray, full: float = 65535.0) -> Any:
    return Frame("camera.frames", pixels, 1_700_000_000_000_000_000, 7, 9, full)


def test_picture_is_scaled_between_its_limits_and_saturation_stands_out() -> None:
    pixels = np.array([[0, 100, 200], [300, 50, 65535]], np.uint16)
    found = picture(encoded(frame(pixels), View(low=0, high=254)))
    assert list(found["pixels"]) == [0, 100, 200, 254, 50, 255]
    assert (found["width"], found["height"], found["saturated"]) == (3, 2, 1)
    assert (found["darkest"], found["brightest"], sum(found["histogram"])) == (0, 65535, 6)
    assert (found["t_ms"], found["sequence"], found["number"]) == (1_700_000_000_000, 7, 9)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (700, 2100)])
def test_any_picture_can_be_shown(dtype: type, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).uniform(0, 255, shape).astype(dtype)
    full = float("inf") if dtype is np.float64 else float(np.iinfo(dtype).max)
    found = picture(encoded(frame(pixels, full), View(line=(-5, -5, 9999, 9999))))
    assert len(found["pixels"]) == found["width"] * found["height"]
    assert max(found["width"], found["height"]) <= 1024
    assert len(found["line"]) == 256
    assert sum(found["histogram"]) > 0


def test_picture_of_nothing_but_noughts_or_of_no_numbers_is_shown() -> None:
    for pixels in (np.full((4, 4), np.nan), np.zeros((4, 4)), np.full((4, 4), np.inf)):
        assert len(picture(encoded(frame(pixels, float("inf")), View()))["pixels"]) == 16


def test_part_and_line_of_a_picture_are_those_pixels() -> None:
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    found = picture(encoded(frame(pixels, 255), View(low=0, high=254, region=(2, 3, 4, 2), line=(0, 0, 9, 0))))
    assert list(found["pixels"]) == [32, 33, 34, 35, 42, 43, 44, 45]
    assert (found["x"], found["y"]) == (2, 3)
    assert found["line"][0] == 0
    assert found["line"][-1] == 9


@pytest.mark.parametrize("region", [(-5, -5, 3, 3), (50, 50, 10, 10), (0, 0, 0, 0), (9, 9, 99999, 99999)])
def test_a_part_beyond_the_picture_is_what_there_is_of_it(region: tuple[int, int, int, int]) -> None:
    found = picture(encoded(frame(np.zeros((10, 10), np.uint8), 255), View(region=region)))
    assert len(found["pixels"]) >= 1


def test_thinning_keeps_extremes_ends_and_order() -> None:
    t_ns = np.arange(10_000)
    values = np.sin(t_ns / 50)
    values[4321] = 9.0
    values[8765] = -9.0
    fewer_t, fewer = thinned(t_ns, values, 200)
    assert len(fewer) <= 202
    assert {9.0, -9.0, values[-1]} <= set(fewer)
    assert (np.diff(fewer_t) > 0).all()


@pytest.mark.parametrize("rows", [510, 4097, 5001, 100_001])
@pytest.mark.parametrize("most", [40, 400])
def test_thinning_keeps_a_peak_wherever_it_is(rows: int, most: int) -> None:
    for place in (*range(3), *range(rows - 60, rows)):
        values = np.zeros(rows)
        values[place] = 9.0
        fewer_t, fewer = thinned(np.arange(rows), values, most)
        assert fewer_t[fewer.argmax()] == place
        assert len(fewer) <= most


def test_what_is_no_number_hides_no_peak_from_thinning() -> None:
    values = np.full(1000, 5.0)
    values[[2, 3, 6, 7]] = 1.0, np.nan, np.nan, -np.inf
    values[500:600] = np.nan
    fewer_t, fewer = thinned(np.arange(1000), values, 400)
    assert {2, 7} <= set(fewer_t)
    assert np.isnan(fewer[(fewer_t >= 500) & (fewer_t < 600)]).all()


async def test_viewer_without_credit_gets_no_rows_and_loses_the_oldest() -> None:
    viewer = Viewer()
    viewer.streams = frozenset({"a"})
    for number in range(MOST_ROWS + 10):
        viewer.offer_rows(Waiting("a", b"%d" % number, 3))
    viewer.offer_rows(Waiting("unwanted", b"", 3))
    assert viewer.rows_dropped == 30
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(viewer.next(), 0.01)
    viewer.give(2, 0)
    assert await viewer.next() == (None, b"1011")  # together, as far as the credit goes


async def test_rows_that_wait_go_out_together_up_to_a_size_and_each_takes_its_credit() -> None:
    viewer = Viewer()
    viewer.streams = frozenset({"a"})
    big = bytes(MOST_TOGETHER - 1)
    for data in (b"1", b"2", big, b"3", b"4"):
        viewer.offer_rows(Waiting("a", data, 3))
    viewer.give(4, 0)
    assert await viewer.next() == (None, b"12")
    assert await viewer.next() == (None, big + b"3")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(viewer.next(), 0.01)
    viewer.give(1, 0)
    assert await viewer.next() == (None, b"4")
    assert viewer.rows_dropped == 0


async def test_images_have_a_credit_of_their_own_and_newer_ones_take_their_place() -> None:
    viewer = Viewer()
    viewer.views["c"] = View()
    assert not viewer.has_room_for("c")
    viewer.give(0, 1)
    assert viewer.has_room_for("c")
    viewer.offer_image("c", b"old")
    assert not viewer.has_room_for("c")
    viewer.offer_image("c", b"new")
    assert viewer.images_dropped == 1
    viewer.offer_state("now", b"first")
    viewer.offer_state("now", b"second")
    assert await viewer.next() == ("second", None)
    assert await viewer.next() == (None, b"new")
    assert not viewer.has_room_for("c")
    viewer.offer_image("c", b"without credit")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(viewer.next(), 0.01)
    viewer.give(0, 1)
    assert await viewer.next() == (None, b"without credit")


def test_the_past_of_a_stream_is_its_last_points_in_order_and_of_one_unit() -> None:
    history = _history.History()
    assert history.of("a.b") is None
    for first in range(0, 3 * _history.KEPT, 3):
        t_ns = np.arange(first, first + 3)
        history.add("a.b", "V", t_ns, t_ns / 2, 0.05)
        assert len(history.of("a.b").values) == min(first + 3, _history.KEPT)
    past = history.of("a.b")
    assert (past.t_ns == np.arange(2 * _history.KEPT, 3 * _history.KEPT)).all()
    assert (past.values == past.t_ns / 2).all()
    history.add("a.b", "mV", np.array([7]), np.array([7.0]), 0.05)
    assert (history.of("a.b").unit, list(history.of("a.b").values)) == ("mV", [7.0])


def test_the_past_of_a_quick_stream_is_thinned_and_keeps_its_peaks() -> None:
    history = _history.History()
    values = np.zeros(5000)
    values[1234] = 9.0
    history.add("a.b", "V", np.arange(5000), values, 0.05)
    kept = history.of("a.b")
    assert len(kept.values) < 10
    assert kept.values.max() == 9.0


def test_the_past_of_what_comes_seldom_and_many_at_once_is_that_of_all_the_time() -> None:
    history = _history.History()
    for second in range(0, 100, 10):
        t_ns = np.arange(1000) * 10**7 + second * 10**9
        history.add("a.b", "V", t_ns, t_ns / 2, 0.05)
    assert len(history.of("a.b").values) >= 3000


def test_the_past_holds_no_memory_of_what_came() -> None:
    history, values = _history.History(), np.arange(3.0)
    history.add("a.b", "V", np.arange(3), values, 0.05)
    values[:] = 0
    assert list(history.of("a.b").values) == [0, 1, 2]


def test_a_browser_that_changes_its_mind_all_the_time_is_not_told_the_past_each_time() -> None:
    feed, viewer = _feed.Feed(None, None), Viewer()
    names = frozenset(f"a.{number}" for number in range(64))
    for name in names:
        feed._history.add(name, "V", np.array([1]), np.array([1.0]), 0.05)
    told: list[int] = []
    for _ in range(50):
        feed.want_streams(viewer, names)
        told.append(len(viewer._rows) + viewer.rows_dropped)
        feed.want_streams(viewer, frozenset())
    assert told[:2] == [64, 128]
    assert told[-1] <= 300


def test_streams_whose_past_is_kept_are_few_and_the_longest_silent_goes() -> None:
    history = _history.History()
    for number in range(_history.MOST_STREAMS + 1):
        history.add(f"a.{number}", "V", np.array([number if number else 10**6]), np.array([1.0]), 0.05)
    assert history.of("a.0") is not None
    assert history.of("a.1") is None
    assert history.of("a.2") is not None


def test_points_are_a_stream_of_arrows_and_say_how_many_there_were_only_if_some_are_left_out() -> None:
    for rows, said in ((3, None), (400, None), (5000, b"5000")):
        t_ns = np.arange(rows, dtype=np.int64) * 10**6
        table = pa.ipc.open_stream(_feed._message("a.b", "V", t_ns, np.sin(t_ns / 7))).read_all()
        assert table.schema.metadata.get(b"rows") == said
        assert [table.schema.metadata[key] for key in (b"kind", b"stream", b"unit")] == [b"rows", b"a.b", b"V"]
        assert table["t_ms"].to_pylist()[-1] == rows - 1
        assert table.num_rows == rows if said is None else 10 < table.num_rows <= 402


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.float32])
def test_the_range_of_a_picture_is_that_of_nearly_all_its_pixels(dtype: type) -> None:
    pixels = np.arange(10_000).reshape(100, 100) % 200 + 20
    pixels[0, 0], pixels[50, 50] = 0, 255
    found = picture(encoded(frame(pixels.astype(dtype), 255), View()))
    ordered = np.sort(pixels, axis=None)
    assert (found["low"], found["high"]) == (ordered[int(0.005 * 9999)], ordered[int(0.9995 * 9999)])
    assert (found["darkest"], found["brightest"], found["saturated"]) == (0, 255, 1)
    assert list(found["histogram"]) == list(
        np.histogram(pixels, 256, (0, 256 if dtype in (np.uint8, np.uint16) else 255))[0]
    )


def test_a_trace_is_the_last_of_its_batch_over_its_own_axis() -> None:
    axis = np.linspace(800, 780, 5)
    rows = [Spectrum("a", "s", "W", t, t, np.full(5, float(t)), axis, "nm", "v2") for t in (1, 2)]
    trace = _traces.trace_of(spectrum_batch(rows))
    assert (trace.stream, trace.t_ns, trace.sequence, trace.unit, trace.axis_unit) == ("a.s", 2, 2, "W", "nm")
    assert list(trace.values) == [2.0] * 5
    assert list(trace.axis) == list(axis)
    assert _traces.trace_of(scalar_batch([Scalar("a", "b", "V", 1, 1, 1.0, "v2")])) is None


def test_a_long_vector_is_thinned_and_keeps_its_peaks() -> None:
    values = np.zeros(100_000)
    values[54_321] = -3.0
    trace = _traces.trace_of(vector_batch([Vector("a", "v", "V", 1, 1, values, "v4")]))
    assert trace.points == 100_000
    assert len(trace.values) <= _traces.MOST_POINTS + 1
    assert (trace.axis_unit, trace.axis[trace.values.argmin()]) == ("", 54_321)
    table = pa.ipc.open_stream(_traces.trace_bytes(trace)).read_all()
    assert table.schema.metadata[b"points"] == b"100000"
    assert table["value"].to_pylist() == list(trace.values)


CONFUSED = {  # Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB
    "nobody": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab_colour(rgb: Any) -> Any:
    """CIE L*a*b* of linear RGB."""
    mixed = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.clip(mixed @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883], 0.008856, 1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes", CONFUSED)
def test_curves_are_told_apart_by_the_colour_blind_too(eyes: str) -> None:
    css = files("duodaq.web").joinpath("static/page.css").read_text()
    themes = re.findall(r"--c0: .*?--c5: #[0-9a-f]{6}", css)
    assert len(themes) == 3  # light; dark as the system has it, and as chosen
    for theme in themes:
        srgb = [np.array(list(bytes.fromhex(colour))) / 255 for colour in re.findall(r"#([0-9a-f]{6})", theme)]
        seen = [lab_colour(np.array(CONFUSED[eyes]) @ one**2.2) for one in srgb]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 14


@pytest.mark.parametrize("said", ["warning: it is old", "5", "[]", "null"])
async def test_a_job_whose_program_says_something_stray_has_failed(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duodaq.web._jobs.COMMAND", ("-I", "-S", "-c", f"print({said!r})"))
    jobs = Jobs()
    job = jobs.begin("export", "run", "anna")
    await asyncio.wait([*jobs._tasks.values()])
    assert job.state == "failed", job
    assert repr(said) in job.detail
    assert job.ended_ns is not None


async def test_a_job_that_cannot_be_begun_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(arguments: tuple[str, ...]) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("duodaq.web._jobs._started", started)
    jobs = Jobs()
    job = jobs.begin("export", "run", "anna")
    await asyncio.wait([*jobs._tasks.values()])
    assert (job.state, job.detail) == ("failed", "can't start new thread")


def test_a_scan_under_way_is_told_of_however_many_have_ended_since() -> None:
    scans = [ScanStatus(n, ["a.x"], [], 1, "page", True, 0, ended_ns=None if n == 2 else 1) for n in range(1, 10)]
    assert [one.number for one in shown(scans)] == [2, 5, 6, 7, 8, 9]
