"""How a lab is run as a service: systemd reads the unit without a word, and the proxies pass on what is wanted."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from duodaq.config import load_lab
from duodaq.model import WebDefinition
from duodaq.units import parse_duration_s
from duodaq.web._access import Access
from duodaq.web._refusal import Refusal

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "run-as-a-service.md"
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
PROGRAM = "/srv/lab/.venv/bin/duodaq"


class Unit(RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


@pytest.fixture
def service() -> dict[str, str]:
    unit = Unit(strict=False)
    unit.read_string(BLOCKS["ini"])
    return dict(unit["Service"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
@pytest.mark.parametrize(("written", "said"), [("KillMode=process", ""), ("KillMode=proces", "kill mode")])
def test_systemd_takes_the_unit(written: str, said: str, tmp_path: Path) -> None:
    unit = tmp_path / "duodaq.service"
    unit.write_text(BLOCKS["ini"].replace(PROGRAM, "/bin/true").replace("KillMode=process", written), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    words = "".join(line for line in result.stderr.splitlines() if str(unit) in line or "duodaq" in line)
    assert (said in words) if said else (words == "")


def test_the_lab_ends_in_its_own_time_and_way(service: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(BLOCKS["toml"], encoding="utf-8")
    budget_s, limit_s = load_lab(tmp_path / "lab.toml").shutdown_s, parse_duration_s(service["TimeoutStopSec"])
    assert limit_s is not None
    assert limit_s >= 2 * budget_s
    assert service["KillMode"] == "process"  # the workers belong to the lab, and the watchdog outlives it
    assert service["OOMPolicy"] == "continue"
    assert service["RestartPreventExitStatus"] == "2"


def test_the_service_runs_the_lab_file_of_the_document(service: dict[str, str]) -> None:
    commands = [shlex.split(service[key]) for key in ("ExecStartPre", "ExecStart")]
    assert commands == [[PROGRAM, "check", "lab.toml"], [PROGRAM, "run", "lab.toml"]]
    assert "dialout" in service["SupplementaryGroups"]


def test_nginx_is_told_all_that_the_page_wants() -> None:
    lines = [line for line in map(str.strip, BLOCKS["nginx"].splitlines()) if line and not line.startswith("#")]
    assert [line for line in lines if not line.endswith((";", "{", "}"))] == []
    assert sum(line.count("{") - line.count("}") for line in lines) == 0
    told = {tuple(line.rstrip(";").split()) for line in lines}
    assert told >= {
        ("proxy_http_version", "1.1"),
        ("proxy_set_header", "Host", "$http_host"),
        ("proxy_set_header", "Upgrade", "$http_upgrade"),
        ("proxy_set_header", "Connection", "$connection_upgrade"),
        ("proxy_buffering", "off"),
    }


def test_both_proxies_lead_to_the_port_of_the_lab_file(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(BLOCKS["toml"], encoding="utf-8")
    web = load_lab(tmp_path / "lab.toml").web
    assert f"proxy_pass http://127.0.0.1:{web.port};" in BLOCKS["nginx"]
    assert f"reverse_proxy 127.0.0.1:{web.port}\n" in BLOCKS["text"]
    assert all(name in BLOCKS["nginx"] and name in BLOCKS["text"] for name in web.names)


def test_what_a_browser_sends_through_the_proxy_is_let_in() -> None:
    access = Access(WebDefinition(token="t" * 16, names=("lab.example.org",)), "lab")
    for host in ("lab.example.org", "lab.example.org:8443"):
        access.check_name(host)
        access.check_origin(f"https://{host}", host, "same-origin", linked=False)
    with pytest.raises(Refusal):
        access.check_origin("https://lab.example.org", "127.0.0.1:8400", None, linked=False)  # without the Host header
