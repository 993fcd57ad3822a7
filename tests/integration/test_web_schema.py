"""The HTTP API keeps its own schema, whatever it is asked: no failure of the server, no answer that is not told of."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from duodaq.app import in_lab, open_lab
from duodaq.cli.demo._table import set_up
from duodaq.model import WebDefinition

schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")
PageServer: Any = pytest.importorskip("duodaq.web").PageServer
for _package in ("pymeasure", "pyvcam", "serial"):
    pytest.importorskip(_package)

pytestmark = pytest.mark.serial
SLOW = pytest.mark.leaks_fd("its HTTP client's connections, which the server closes when they were idle for 5 s")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the API over the demonstration's instruments."""
    folder = tmp_path_factory.mktemp("schema")

    async def itself(lab: Any) -> Any:
        return lab

    with set_up(folder, "fuzzed", 1) as bench, open_lab(bench.lab_file) as lab:
        server = PageServer(in_lab(lab, itself), WebDefinition(port=0), requests_per_s=1e6)
        in_lab(lab, lambda _: server.start())
        try:
            yield server.address
        finally:
            in_lab(lab, lambda _: server.aclose())


@pytest.fixture
def api(served: str) -> Any:
    return schemathesis.openapi.from_url(f"{served}api/openapi.json")


schema = schemathesis.pytest.from_fixture("api")
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


@SLOW
@schema.parametrize()
@hypothesis.settings(
    max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
def test_api_keeps_its_schema(case: Any) -> None:
    quick(case).call_and_validate(checks=CHECKS)


@SLOW
@pytest.mark.soak
@schema.parametrize()
@hypothesis.settings(max_examples=1000, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_api_keeps_its_schema_for_long(case: Any) -> None:
    quick(case).call_and_validate(checks=CHECKS)
