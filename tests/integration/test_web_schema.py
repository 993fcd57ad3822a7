"""The HTTP API keeps its own schema, whatever it is asked: no failure of the server, no answer that is not told of."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duodaq.app import in_lab, open_lab
from duodaq.cli.demo._table import set_up
from duodaq.clock import Deadline
from duodaq.model import WebDefinition

schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")
PageServer: Any = pytest.importorskip("duodaq.web").PageServer
for _package in ("pymeasure", "pyvcam", "serial"):
    pytest.importorskip(_package)

pytestmark = pytest.mark.serial
SOAK_S = 600.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of the API over the demonstration's instruments."""

    async def itself(lab: Any) -> Any:
        return lab

    with set_up(tmp_path, "fuzzed", 1) as bench, open_lab(bench.lab_file) as lab:
        server = PageServer(in_lab(lab, itself), WebDefinition(port=0), requests_per_s=1e6)
        in_lab(lab, lambda _: server.start())
        try:
            yield server.address
        finally:
            in_lab(lab, lambda _: server.aclose())


_checks = importlib.import_module("schemathesis.checks")
CHECKS = [
    getattr(_checks, name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    )
]


def quick(case: Any) -> Any:
    """The same case, but for what takes its own good time: it is not the instruments that are tried here."""
    if isinstance(case.body, dict) and "deadline_s" in case.body:
        case.body["deadline_s"] = 0.2
    if isinstance(case.query, dict) and "timeout_s" in case.query:
        case.query["timeout_s"] = 0.01
    return case


def tried(served: str, examples: int, **settings: Any) -> tuple[int, int]:
    """Ask every operation so many right and so many wrong things; how many operations there are, and were asked."""
    asked = 0
    operations = [
        one.ok() for one in schemathesis.openapi.from_url(f"{served}api/openapi.json", timeout=60).get_all_operations()
    ]
    every = list(hypothesis.HealthCheck)
    for operation in operations:
        for mode in schemathesis.GenerationMode:

            @hypothesis.settings(max_examples=examples, deadline=None, suppress_health_check=every, **settings)
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def keeps_its_schema(case: Any) -> None:
                nonlocal asked
                asked += 1
                quick(case).call_and_validate(checks=CHECKS)

            with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing wrong can be asked of it
                keeps_its_schema()
    return len(operations), asked


def test_api_keeps_its_schema(served: str) -> None:
    operations, asked = tried(served, 2, derandomize=True, database=None)
    assert asked > operations > 20


@pytest.mark.soak
def test_api_keeps_its_schema_for_long(served: str) -> None:
    deadline, rounds, requests = Deadline(SOAK_S), 0, 0
    while not deadline.passed:  # every operation in each round: one by one, ten minutes came to a few of them
        operations, asked = tried(served, 10, database=None)
        rounds, requests = rounds + 1, requests + asked
        took_s = SOAK_S - deadline.left_s
        print(f"{requests} requests of {operations} operations, {rounds} rounds, {took_s:.0f} s")  # noqa: T201 - a soak tells its figures
        assert asked > operations > 20
