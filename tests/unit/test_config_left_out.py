"""What of a lab file is left out of what others see."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from duodaq.app._recording import _plain
from duodaq.config import load_text, plan_change, shown, shown_text
from duodaq.config._left_out import shown_value
from duodaq.errors import ConfigError
from duodaq.model import ParameterEntry

FILE = """\
web = { token = "SECRET-in-a-table", "viewer_token"='SECRET-quoted' }
# token = "SECRET-of-last-year"
mail.password_env = "MAIL_PASSWORD"
[telemetry]
otlp = "http://me:SECRET@127.0.0.1:4318"
[alarms.hot]
webhook = "https://hooks.example.org/services/SECRET?key=SECRET"
note = "a token = is asked for"
[instruments.one.args]
password = "SECRET"
api_key = 12345678
tokens = ["SECRET-in-a-list", "SECRET-2"]
address = "tcp://me:SECRET@192.168.1.20:5025"
"""


def test_every_secret_is_left_out_of_the_text_and_all_else_is_kept() -> None:
    told = shown_text(FILE.replace('tokens = ["SECRET-in-a-list", "SECRET-2"]\n', ""), {}) or ""
    assert "SECRET" not in told
    assert "12345678" not in told
    for kept in ("https://hooks.example.org/(left out)", "127.0.0.1:4318", "@192.168.1.20:5025", "MAIL_PASSWORD"):
        assert kept in told
    assert 'note = "a token = is asked for"' in told


@pytest.mark.parametrize(
    "line",
    [
        'token = "\\u0053ECRET-escaped-by-its-author"',
        'token = """SECRET-of-several-lines"""',
        'token = """\\\n  SECRET-\\\n  of-several-lines"""',
        'tokens = ["SECRET-in-a-list", "SECRET-2"]',
        'token = "SECRET-that-does-not-end',
        "token = SECRET-without-quotes",
        "token = '''SECRET-of-several\nSECRET-lines'''",
        'token = { viewer = "SECRET-in-a-table", other = "SECRET" }',
        '"x-api-key" = "SECRET-of-a-header"',
        'headers = { Authorization = "Bearer SECRET" }',
        'viewerToken = "SECRET"',
        'pwd = "SECRET"',
        'auth = "SECRET"',
        'token2 = "SECRET"',
        'password_2 = "SECRET"',
        'proxy-auth = "SECRET"',
        'url = "http://127.0.0.1:8000/api?name=x&token=SECRET#there"',
        '# url = "http://127.0.0.1:8000/api?api_key=SECRET"',
    ],
)
def test_however_a_secret_is_written_it_is_left_out(line: str) -> None:
    told = shown_text(f"[web]\n{line}\n", {})
    assert told is None or "SECRET" not in told
    assert told is None or "SECRET" not in str(tomllib.loads(told))


@pytest.mark.parametrize("key", ["args.token.viewer", "headers.x-api-key", "args.viewerToken", "args.credentials.me"])
def test_a_plan_tells_no_secret_however_deep_it_stands(key: str) -> None:
    assert "SECRET" not in shown_value(key, '"SECRET"')
    *tables, last = key.split(".")
    nested: object = {last: "SECRET"}
    for table in reversed(tables):
        nested = {table: nested}
    assert "SECRET" not in str(shown("", nested))


@pytest.mark.parametrize(
    "line",
    [
        'monkey = "x"',
        'low_pass = "x"',
        'pin = "x"',
        'author = "x"',
        'token_2d = "x"',
        'tokenize = "x"',
        'url = "http://h/a?page=2&key=3"',
    ],
)
def test_what_is_no_secret_is_kept(line: str) -> None:
    assert shown_text(line, {}) == line


def test_what_the_lab_knows_is_left_out_wherever_it_stands() -> None:
    told = shown_text('# it was "A-TOKEN-of-yesterday"\nname = "x"\n', {"web": {"token": "A-TOKEN-of-yesterday"}})
    assert told == '# it was "(left out)"\nname = "x"\n'


def test_plain_values_are_shown_without_secrets() -> None:
    told = shown("", tomllib.loads(FILE))
    assert "SECRET" not in str(told)
    assert told["mail"] == {"password_env": "MAIL_PASSWORD"}
    assert told["instruments"]["one"]["args"]["tokens"] == ["(left out)", "(left out)"]
    assert shown("", told) == told


LAB = """\
[instruments.one]
runtime = "v2"
driver = "./one.py:One"
args = { password = "SECRET-1", table = { secret = "SECRET-1" }, host = "lab-1" }
poll.value = { call = "value", every = "1 s" }

[alarms.hot]
channel = "one.value"
high = 1.0
webhook = "https://hooks.example.org/SECRET-1"
"""


def test_a_plan_shows_that_a_secret_changes_and_not_which_it_is(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("class One:\n    def __init__(self, **_): ...\n    def value(self): return 1\n")
    labs = [load_text(LAB.replace("-1", f"-{n}"), tmp_path / "lab.toml") for n in (1, 2, 3)]
    plans = [plan_change(labs[0], lab) for lab in labs[1:]]
    told = plans[0].to_dict()
    assert "SECRET" not in str(told)
    assert {change["key"] for change in told["units"][0][0]["keys"]} == {"args.password", "args.table", "args.host"}
    assert told["alarms"][0]["keys"][0]["after"] == '"https://hooks.example.org/(left out)"'
    assert tuple(told["units"][0][0]["keys"][2][when].strip('"') for when in ("before", "after")) == ("lab-1", "lab-2")
    assert plans[0].digest != plans[1].digest


@pytest.mark.parametrize(
    "text",
    [
        '[web]\ntoken = "SECRET-that-does-not-end\n',
        "[web]\ntoken = SECRET-without-quotes\n",
        '[web]\ntoken = "SECRET" x\n',
        '[telemetry]\notlp = "htp://me:SECRET@127.0.0.1:4318/"\n',
        '[telemetry]\notlp = "hooks.example.org/SECRET"\n',
        '[alarms.hot]\nchannel = "one.value"\nhigh = 1.0\nwebhook = "htps://hooks.example.org/SECRET?SECRET"\n',
        '[web]\ntoken = "SECRET"\n',
    ],
)
def test_no_complaint_repeats_a_secret(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_text(text, tmp_path / "lab.toml")
    assert "SECRET" not in str(refused.value)


def test_a_parameter_that_is_a_secret_by_its_name_is_in_no_recording() -> None:
    entry = ParameterEntry("one", "wifi.password", "SECRET", "", 0, 1, "v2")
    assert _plain(entry)["value"] == "(left out)"
    assert _plain(ParameterEntry("one", "gain", 2.0, "", 0, 1, "v2"))["value"] == 2.0
