"""From V2 stanzas to V4 ones and back: what is said, what cannot be, and that nothing is lost on the way."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from duodaq.config import load_text
from duodaq.config._tables import InstrumentTable
from duodaq.errors import ConfigError
from duodaq.migration import Equivalents, convert_back, convert_lab, equivalents_of
from duodaq.migration._convert import HEADLINE
from duodaq.migration._stanza import KEPT, to_v4

LAB = """\
# a lab with a past
[lab]
name = "old"

[ports.meter]  # beside the door
serial = { path = "/dev/ttyS1", baud = 9600 }
codec = "newport1830c"

[ports.stage]
tcp = "127.0.0.1:5001"
codec = "esp300"

[ports.bare]
tcp = "127.0.0.1:5002"
idle_ms = 20

[instruments.meter]
# the one with the cracked window
runtime = "v2"   # since the first day
driver = "duodaq.cli.demo.power_meter:PowerMeter"
port = "meter"
passive = true
settings = { wavelength = 780, gain = 3 }
poll.power = { call = "read_power", unit = "W", every = "200 ms" }  # fast enough
poll.noise = { call = "noise", unit = "W" }
deadline = { default = "3 s", read_power = "1 s" }

# the stage
[instruments.stage]
runtime = "v2"
driver = "pymeasure.instruments.newport:ESP300"
port = "stage"
required = true
safe = { shutdown = "stop" }

[instruments.stage.poll.place]
read = "x.position"
unit = "mm"
every = "100 ms"

[instruments.bare]
runtime = "v2"
driver = "duodaq.cli.demo.shutter:Shutter"
port = "bare"

[instruments.own]
runtime = "v2"
driver = "duodaq.cli.demo.shutter:Shutter"
args = { device = "/dev/ttyUSB9" }
"""


_METER_PORT = '[ports.m]\ntcp = "h:1"\ncodec = "newport1830c"\n'


def test_a_stanza_is_turned_with_its_settings_polls_and_deadlines() -> None:
    stanza = tomllib.loads(convert_lab(LAB).text)["instruments"]["meter"]
    assert stanza == {
        "runtime": "v4",
        "driver": "duodaq:Newport1830C",
        "port": "meter",
        "args": {"rate_hz": 5.0},
        "settings": {"wavelength_nm": 780},
        "deadline": {"default": "3 s", "power": "1 s"},
        "options": {"acquire": True},
    }


def test_a_stage_gets_the_axes_that_it_was_polled_by() -> None:
    stanza = tomllib.loads(convert_lab(LAB).text)["instruments"]["stage"]
    assert stanza["axes"] == {"x": {"number": 1, "unit": "mm"}}
    assert stanza["poll"] == {"place": {"read": "x.position", "unit": "mm", "every": "100 ms"}}
    assert stanza["required"] is True
    assert stanza["safe"] == {"shutdown": "stop"}


def test_limits_go_over_under_the_names_of_v4_and_those_that_do_not_are_told() -> None:
    text = LAB.replace("passive = true", "passive = true\nlimits = { wavelength = [400, 1100], gain = [1, 5] }")
    done = convert_lab(text, {"meter"})
    stanza = tomllib.loads(done.text)["instruments"]["meter"]
    assert stanza["limits"] == {"wavelength_nm": [400, 1100]}
    told = [line for line in done.unsaid["meter"] if line.startswith("limits: ")]
    assert told == ["limits: gain: duodaq:Newport1830C has nothing of that name; nothing keeps to these limits in V4"]
    assert convert_back(done.text).text == text


def test_limits_of_a_position_become_those_of_the_axis() -> None:
    text = LAB.replace('safe = { shutdown = "stop" }', 'limits = { "x.position" = [0, 25], "x.velocity" = [0, 2] }')
    done = convert_lab(text, {"stage"})
    stanza = tomllib.loads(done.text)["instruments"]["stage"]
    assert stanza["axes"]["x"] == {"number": 1, "unit": "mm", "limits": [0, 25]}
    assert stanza["limits"] == {"x.velocity": [0, 2]}
    assert done.unsaid["stage"] == []


def test_limits_of_an_axis_that_has_its_own_stay_beside_them() -> None:
    axes = 'axes.x = { number = 1, unit = "mm", limits = [1, 2] }\nlimits = { "x.position" = [0, 25] }'
    stanza = tomllib.loads(convert_lab(LAB.replace('safe = { shutdown = "stop" }', axes)).text)["instruments"]["stage"]
    assert stanza["axes"]["x"]["limits"] == [1, 2]
    assert stanza["limits"] == {"x.position": [0, 25]}, "these are kept to as well, as in V2"


def test_there_is_no_key_of_a_stanza_that_is_dropped_without_a_word() -> None:
    values = {name: "?" for name in InstrumentTable.model_fields if name not in KEPT}
    tables = ("args", "limits", "poll", "safe", "options", "deadline")
    values |= {key: {"odd": {"call": "odd"}} for key in tables}
    values |= {"settings": ["odd"], "axes": {}, "runtime": "v2", "driver": "x:Y"}
    made = to_v4(values, Equivalents("x:Z"))
    said = {line.partition(": ")[0].partition(".")[0] for line in made.unsaid + made.needless} | made.stanza.keys()
    assert said | {"axes"} >= values.keys()


def test_what_is_turned_is_a_lab_file_that_loads(tmp_path: Path) -> None:
    lab = load_text(convert_lab(LAB).text, tmp_path / "lab.toml")
    assert {one.id: one.runtime for one in lab.instruments} == {
        "meter": "v4", "stage": "v4", "bare": "v2", "own": "v2",
    }  # fmt: skip


def test_it_says_what_it_could_not_turn_and_why() -> None:
    done = convert_lab(LAB)
    assert done.converted == ["meter", "stage"]
    assert "no codec" in done.left["bare"]
    assert "opens its device itself" in done.left["own"]
    said = "\n".join(done.unsaid["meter"])
    assert "gain" in said
    assert "poll.noise" in said
    assert "passive" not in said
    assert done.needless["meter"] == ["passive: an actor's handlers say themselves what moves"]
    assert "limits" in "\n".join(done.unsaid["stage"])


def test_comments_and_order_are_kept() -> None:
    text = convert_lab(LAB).text
    assert '# the one with the cracked window\nruntime = "v4"   # since the first day\n' in text
    assert text.index("# the stage\n[instruments.stage]") > text.index("[instruments.meter]")
    untouched = LAB[: LAB.index("[instruments.meter]")]
    assert text.startswith(untouched)
    assert text.endswith(LAB[LAB.index("[instruments.bare]") :])


def test_the_diff_shows_both_sides() -> None:
    diff = convert_lab(LAB, {"meter"}).diff("lab.toml")
    assert '-runtime = "v2"   # since the first day\n' in diff
    assert '+runtime = "v4"   # since the first day\n' in diff
    assert "ESP300" not in diff


@pytest.mark.parametrize(
    "text", [LAB, LAB.rstrip("\n"), LAB.replace("\n", "\r\n"), LAB[: LAB.index("\n[instruments.bare]")]]
)
@pytest.mark.parametrize("only", [None, {"meter"}, {"stage"}])
def test_turned_and_turned_back_it_is_the_same_to_the_byte(text: str, only: set[str] | None) -> None:
    turned = convert_lab(text, only)
    assert turned.text != text
    assert convert_back(turned.text).text == text


def test_what_was_changed_elsewhere_meanwhile_stays_when_it_is_turned_back() -> None:
    turned = convert_lab(LAB).text.replace('name = "old"', 'name = "new"')
    assert convert_back(turned).text == LAB.replace('name = "old"', 'name = "new"')


def test_a_stanza_that_is_not_a_table_of_its_own_is_left_alone() -> None:
    text = f'{_METER_PORT}[instruments]\nm = {{ runtime = "v2", driver = "a:B", port = "m" }}\n'
    done = convert_lab(text)
    assert done.text == text
    assert "not one piece" in done.left["m"]


def test_keys_like_headers_inside_a_text_are_no_headers() -> None:
    text = LAB.replace(
        'port = "meter"\npassive', 'port = "meter"\nargs = { note = """\n[instruments.meter]\n""" }\npassive'
    )
    turned = convert_lab(text, {"meter"})
    assert turned.converted == ["meter"]
    assert convert_back(turned.text).text == text


def test_another_driver_can_be_named() -> None:
    stanza = tomllib.loads(convert_lab(LAB, {"bare"}, {"bare": "./mine.py:Shutter4"}).text)["instruments"]["bare"]
    assert stanza["driver"] == "./mine.py:Shutter4"


def test_an_instrument_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="metre"):
        convert_lab(LAB, {"metre"})


_NAMES = st.sampled_from(["wavelength", "filter", "range", "unit", "gain", "x.position", "read_power", "noise"])
_VALUES = st.one_of(st.integers(-5, 5), st.booleans(), st.sampled_from(['"a"', '"# no comment"', "'[x]'", "1.5"]))
_LINES = st.one_of(
    st.builds(lambda n: f'poll.p{n} = {{ read = "power", every = "1 s" }}', st.integers(0, 3)),
    st.builds(lambda n: f'options.o{n} = """\n[instruments.m]\n"""', st.integers(0, 2)),
    st.builds(lambda n, v: f"settings.s{n} = {str(v).lower()}", st.integers(0, 3), _VALUES),
    st.builds(lambda text: f"# {text}", st.text('ab# [="]', max_size=12)),
    st.builds(lambda n, m: f'args.a{n} = {{ "{m}" = [1, 2,\n  3] }}', st.integers(0, 3), _NAMES),
    st.sampled_from(["", "   ", "required = true", 'kill_after = "3 s"  # why', "passive = [\n'a', # b\n]"]),
)


@settings(max_examples=50)
@given(
    lines=st.lists(_LINES, max_size=8),
    end=st.sampled_from(["", "\n", "\n\n# end\n", "\n[lab]\n", "\n# a\n[lab]\nname = 'x'"]),
)
def test_any_stanza_that_is_toml_comes_back_as_it_was(lines: list[str], end: str) -> None:
    body = "\n".join(lines)
    text = f'{_METER_PORT}[instruments.m]\nruntime = "v2"\ndriver = "a:B"\nport = "m"\n{body}{end}'
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)
    turned = convert_lab(text)
    assert turned.converted == ["m"]
    assert tomllib.loads(turned.text)["instruments"]["m"]["runtime"] == "v4"
    assert convert_back(turned.text).text == text


@pytest.mark.parametrize("own", ["#v2 was bought in 2019\n", "#v2 \\\n", f"{HEADLINE}\n", f"{HEADLINE}\n#v2 of old\n"])
def test_a_comment_that_looks_like_ours_goes_there_and_back(own: str) -> None:
    before = (
        '[ports.meter]\ntcp = "127.0.0.1:5001"\ncodec = "newport1830c"\n\n'
        f'[instruments.meter]\nruntime = "v2"\ndriver = "x:PowerMeter"\nport = "meter"\n{own}'
    )
    turned = convert_lab(before)
    assert turned.converted == ["meter"]
    assert convert_back(turned.text).text == before


LUX = """\
[ports.lux]
tcp = "127.0.0.1:5001"
idle_ms = 50

[instruments.lux]
runtime = "v2"
driver = "./lux.py:Lux7"
port = "lux"
passive = true
settings = ["wavelength", "averages"]
limits = { wavelength = [400, 1100], gate = [1, 2] }
deadline = { wavelength = "2 s" }
poll.power = { call = "power", unit = "W", every = "200 ms" }
poll.beat = { call = "heart", every = "1 s" }
"""
LUX4 = """\
from duodaq.model import PollDefinition
from duodaq.v4.instruments import InstrumentActor, Newport1830C, Parameter
import nothing_that_is_installed

LAMP = Parameter(read, write, "", True)
MORE = {"averages": Parameter(read, write)}

class Root(InstrumentActor):
    parameters = {"power": Parameter(read, unit="W"), "wavelength": Parameter(read, write, emits=False)}

class Lux4(Root):
    parameters = {**Root.parameters, **MORE, "lamp": LAMP, "laser": Parameter(read, write, emits=True)}
    channels = (PollDefinition("power", 0.2, "W", read="power"), PollDefinition("beat", every_s=1.0, call="tick"))
    operations = {"zero": Zero}

class Kin(Newport1830C):
    pass

class Late(InstrumentActor):
    parameters = made()
"""


def test_what_an_own_actor_declares_goes_over_and_no_line_of_it_is_run(tmp_path: Path) -> None:
    (tmp_path / "lux4.py").write_text(LUX4)
    done = convert_lab(LUX, {"lux"}, {"lux": "./lux4.py:Lux4"}, tmp_path)
    stanza = tomllib.loads(done.text)["instruments"]["lux"]
    assert stanza == {
        "runtime": "v4",
        "driver": "./lux4.py:Lux4",
        "port": "lux",
        "settings": ["wavelength", "averages"],
        "limits": {"wavelength": [400, 1100]},
        "deadline": {"wavelength": "2 s"},
        "poll": {
            "power": {"read": "power", "unit": "W", "every": "200 ms"},
            "beat": {"call": "tick", "every": "1 s"},
        },
        "options": {"acquire": True},
    }
    assert done.unsaid["lux"] == [
        "limits: gate: ./lux4.py:Lux4 has nothing of that name; nothing keeps to these limits in V4"
    ]
    assert convert_back(done.text).text == LUX


def test_what_an_own_actor_would_move_or_emit_is_known_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "lux4.py").write_text(LUX4)
    same = equivalents_of("x:Y", None, "./lux4.py:Lux4", tmp_path)
    assert same is not None
    assert {name for name in same.known if same.moves(name)} == {"lamp", "laser"}
    assert dict(same.calls) == {"zero": "zero"}
    kin = equivalents_of("x:Y", None, "./lux4.py:Kin", tmp_path)
    assert kin is not None
    assert kin.parameter("wavelength") == "wavelength_nm", "it has what it inherits"


def test_what_cannot_be_read_from_a_file_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "lux4.py").write_text(LUX4)
    said = convert_lab(LUX, {"lux"}, {"lux": "./lux4.py:Late"}, tmp_path).unsaid["lux"]
    assert "settings: wavelength: what ./lux4.py:Late has cannot be read from its file" in said
    assert "poll.power: what ./lux4.py:Late has cannot be read from its file" in said
