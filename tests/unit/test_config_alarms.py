"""Alarms in a lab file: what is right is taken whole, what is wrong is said in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from duodaq.config import describe, load_lab
from duodaq.errors import ConfigError
from duodaq.model import AlarmDefinition, MailDefinition

LAB = """\
[instruments.dmm]
runtime = "v2"
driver = "./d.py:D"
poll.voltage = { read = "v", unit = "V" }
"""
RIGHT = """
[alarms.hot]
channel = "dmm.voltage"
unit = "mV"
low = 1
high = 5.5
rate = 2
stale = "10 s"
hysteresis = 0.5
delay = "200 ms"
latch = true
pause_scan = true
stop_all = true
webhook = "https://example.org/hook"
email = ["ada@example.org"]
note = "valve"

[mail]
server = "smtp.example.org:587"
sender = "lab@example.org"
"""


def load(text: str, folder: Path):
    (folder / "d.py").write_text("class D:\n    def __getattr__(self, name): ...\n")
    (folder / "lab.toml").write_text(text)
    return load_lab(folder / "lab.toml")


def test_an_alarm_is_read_whole(tmp_path: Path) -> None:
    lab = load(LAB + RIGHT, tmp_path)
    assert lab.alarms == (
        AlarmDefinition(
            "hot", "dmm", "voltage", unit="mV", low=1.0, high=5.5, rate=2.0, stale_s=10.0, hysteresis=0.5, delay_s=0.2,
            latch=True, pause_scan=True, stop_all=True, webhook="https://example.org/hook", email=("ada@example.org",),
            note="valve",
        ),
    )  # fmt: skip
    assert lab.mail == MailDefinition("smtp.example.org", 587, "lab@example.org")


MISTAKES = {
    "nothing to watch": ("[alarms.a]\nchannel = 'dmm.voltage'\n", "alarms.a: watches nothing"),
    "no channel": ("[alarms.a]\nhigh = 1\n", "alarms.a.channel: is required, and missing. Write for example channel ="),
    "half a channel": ("[alarms.a]\nchannel = 'dmm'\nhigh = 1\n", '"dmm" is no channel, such as "dmm.voltage"'),
    "unknown instrument": (
        "[alarms.a]\nchannel = 'dnm.voltage'\nhigh = 1\n",
        'there is no instrument "dnm". Did you mean "dmm"?',
    ),
    "mistyped channel": (
        "[alarms.a]\nchannel = 'dmm.volatge'\nhigh = 1\n",
        '"volatge" is no channel of dmm. Did you mean "dmm.voltage"?',
    ),
    "another unit": (
        "[alarms.a]\nchannel = 'dmm.voltage'\nunit = 'A'\nhigh = 1\n",
        'alarms.a.unit: "A" cannot be had from dmm.voltage, which is in "V". Write unit = "V"',
    ),
    "limits upside down": (
        "[alarms.a]\nchannel = 'dmm.voltage'\nlow = 2\nhigh = 1\n",
        "low = 2 must be below high = 1",
    ),
    "idle hysteresis": (
        "[alarms.a]\nchannel = 'dmm.voltage'\nrate = 1\nhysteresis = 1\n",
        "hysteresis goes with low or high",
    ),
    "idle delay": ("[alarms.a]\nchannel = 'dmm.voltage'\nstale = 1\ndelay = 1\n", "delay goes with low, high or rate"),
    "too wide": (
        "[alarms.a]\nchannel = 'dmm.voltage'\nlow = 1\nhigh = 2\nhysteresis = 1\n",
        "hysteresis = 1 leaves nothing between low and high",
    ),
    "unknown key": (
        "[alarms.a]\nchannel = 'dmm.voltage'\nhihg = 1\n",
        'alarms.a.hihg: unknown key. Did you mean "high"?',
    ),
    "no server": (
        "[alarms.a]\nchannel = 'dmm.voltage'\nhigh = 1\nemail = ['a@b']\n",
        "alarms.a.email: needs a server for mail, and the lab has none. Add a table: [mail]",
    ),
    "mail for nobody": ('[mail]\nserver = "a:1"\nsender = "a@b"\n', "mail: sends nothing: no alarm has email"),
    "no address": (
        "[alarms.a]\nchannel = 'dmm.voltage'\nhigh = 1\nwebhook = 'ftp://x'\n",
        '"ftp://x" is no address such as "https://example.org/hook"',
    ),
    "a secret in an address": (
        "[alarms.a]\nchannel = 'dmm.voltage'\nhigh = 1\nwebhook = 'https://ada:pw@example.org/'\n",
        "alarms.a.webhook: has a user and a password, which are sent nowhere",
    ),
    "no number": ("[alarms.a]\nchannel = 'dmm.voltage'\nhigh = nan\n", "alarms.a.high: must be a finite number"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_has_its_sentence(mistake: str, tmp_path: Path) -> None:
    text, said = MISTAKES[mistake]
    with pytest.raises(ConfigError) as caught:
        load(f"{LAB}\n{text}", tmp_path)
    assert said in str(caught.value)
    assert caught.value.line is not None


def test_an_alarm_says_nothing_of_an_instrument_that_is_wrong_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(LAB.replace('"v2"', '"v3"') + "[alarms.a]\nchannel = 'dmm.voltage'\nhigh = 1\n", tmp_path)
    assert "alarms" not in str(caught.value)


@pytest.mark.parametrize("alarm", ["", '[alarms.hot]\nchannel = "dmm.voltage"\nunit = "V"\nhigh = 1\n'])
def test_a_misspelt_unit_is_wrong_at_its_own_key_with_an_alarm_or_without(tmp_path: Path, alarm: str) -> None:
    said = r'4: instruments\.dmm\.poll\.voltage\.unit: "Vlots" is no unit; did you mean "V"\?'
    with pytest.raises(ConfigError, match=said) as caught:
        load(LAB.replace('"V"', '"Vlots"') + alarm, tmp_path)
    assert "alarms" not in str(caught.value)


def test_a_unit_of_ones_own_is_taken_and_noted(tmp_path: Path) -> None:
    lab = load(LAB.replace('"V"', '"clicks"'), tmp_path)
    assert lab.instruments[0].polls[0].unit == "clicks"
    assert any('poll.voltage is in "clicks", a unit of its own' in note for note in describe(lab))
