"""What the lab file knows of the runtimes and of the lab's own names is what these really have."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import duodaq
from duodaq.app import InstrumentHandle, LabClient
from duodaq.config._checks import AXIS_NAMES_TAKEN, INSTRUMENT_NAMES_TAKEN
from duodaq.config._driver_lookup import BUILT_IN_CODECS
from duodaq.config._options import OPTIONS, ClassicOptions
from duodaq.drivers import CODECS
from duodaq.model import RuntimeName
from duodaq.workers._after_death import AskPolicy, Remembered


@pytest.mark.parametrize(("runtime", "package"), [("v2", "v2"), ("v4", "v4")])
def test_options_known_here_are_those_that_the_runtime_reads(runtime: RuntimeName, package: str) -> None:
    sources = [*(Path(duodaq.__file__).parent / package).rglob("*.py"), Path(inspect.getfile(Remembered))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    read = set(re.findall(r"definition\.options\.get\(\s*\"(\w+)\"", text))
    table = re.search(r"_POLICY_KEYS = \{(.*?)\}", text)
    read |= set(re.findall(r"\"(\w+)\":", table[1])) if table else set()
    assert read == set(OPTIONS[runtime].model_fields)


@pytest.mark.parametrize("policy", AskPolicy)
def test_policy_for_settings_may_stand_in_a_lab_file(policy: AskPolicy) -> None:
    assert ClassicOptions(on_reconnect=policy.value).on_reconnect == policy


def test_names_taken_are_those_of_the_lab_and_of_its_handles() -> None:
    assert {name for name in vars(LabClient) if not name.startswith("_")} == INSTRUMENT_NAMES_TAKEN
    assert {name for name in vars(InstrumentHandle) if not name.startswith("_")} == AXIS_NAMES_TAKEN


@pytest.mark.parametrize("actor", BUILT_IN_CODECS)
def test_actor_that_a_lab_file_may_name_is_there_with_its_codec(actor: str) -> None:
    assert getattr(duodaq, actor).__name__ == actor
    assert BUILT_IN_CODECS[actor] in {None, *CODECS}
