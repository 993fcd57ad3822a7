"""The house rules that a program can check: sizes, names, words, exemptions, and nothing of anybody's machine."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
MODULES = sorted(SRC.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PYTHON = [*MODULES, *TESTS, *sorted((ROOT / "benchmarks").rglob("*.py")), *sorted((ROOT / "examples").rglob("*.py"))]
GENERATED = {".venv", ".git", "__pycache__", ".ruff_cache", ".pytest_cache", ".hypothesis", "build", "dist", "runs"}

PUBLIC_MODULES = {"errors", "clock", "markup", "units"}  # small enough to be one file each
USER_FILES = SRC / "duodaq" / "cli" / "demo"  # holds driver files as a user writes them, named by path in a lab file
WEAK_NAMES = {"util", "utils", "common", "helper", "helpers", "base", "misc", "core"}


def named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=[str(path.relative_to(ROOT)) for path in paths])


def lines_with(pattern: str, paths: list[Path], flags: int = 0) -> list[str]:
    """``file:line: text`` of each line of `paths` in which `pattern` occurs."""
    regex = re.compile(pattern, flags)
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if regex.search(line)
    ]


def none_of(found: Iterable[str]) -> bool:
    """True if nothing was found; else fails with all of it, a line each."""
    if listed := list(found):
        pytest.fail("\n".join(listed), pytrace=False)
    return True


def test_no_file_is_longer_than_600_lines() -> None:
    assert {str(p): n for p in MODULES if (n := len(p.read_text(encoding="utf-8").splitlines())) > 600} == {}


def test_nothing_sleeps_but_simulators_the_clock_and_fault_tests() -> None:
    allowed = (SRC / "duodaq" / "sim", SRC / "duodaq" / "clock.py", ROOT / "tests" / "faults", Path(__file__))
    elsewhere = [path for path in (*MODULES, *TESTS) if not any(path.is_relative_to(place) for place in allowed)]
    assert none_of(lines_with(r"\bsleep\(", elsewhere))


def test_source_holds_no_stand_ins_and_no_promises() -> None:
    words = r"(?<![a-z])(mock|todo|fixme|xxx|(?<!plan_)stubs?)(?![a-z])|unittest"
    assert none_of(lines_with(words, MODULES, re.IGNORECASE))


def test_loggers_are_made_in_one_place() -> None:
    """One that is made elsewhere writes to stdout, and neither log file, page, counter nor flight recorder hears it."""
    elsewhere = [path for path in MODULES if not path.is_relative_to(SRC / "duodaq" / "telemetry")]
    assert none_of(lines_with(r"^\s*(import structlog|from structlog)\b|structlog\.get_logger", elsewhere))


def test_modules_are_private_nouns() -> None:
    public = [
        str(path.relative_to(SRC))
        for path in MODULES
        if not path.stem.startswith("_")
        and not (path.parent == SRC / "duodaq" and path.stem in PUBLIC_MODULES)
        and path.parent != USER_FILES
    ]
    assert none_of(public)


def test_no_module_has_a_name_that_says_nothing() -> None:
    parts = {part.strip("_") for path in MODULES for part in path.relative_to(SRC).with_suffix("").parts}
    assert parts & WEAK_NAMES == set()


_LAZY = ("", "app", "link", "storage/export", "storage/reading", "testing", "testing/coexistence")
LAZY = tuple(SRC / "duodaq" / part for part in _LAZY)
"""They resolve names when these are first used, so that a small program loads little; see `test_imports.py`."""
PACKAGES = [path for path in MODULES if path.name == "__init__.py" and path.parent not in LAZY]


@named(PACKAGES)
def test_package_init_is_a_docstring_imports_and_all(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "no docstring"
    strange = [ast.unparse(node).splitlines()[0] for node in tree.body[1:] if not _is_import_or_all(node)]
    assert none_of(strange)


def _is_import_or_all(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets] == ["__all__"]
    return isinstance(node, ast.Import | ast.ImportFrom)


def test_every_folder_of_source_is_a_package() -> None:
    folders = {path.parent for path in MODULES}
    assert none_of(str(f) for f in folders if f != SRC and not (f / "__init__.py").exists())


EXEMPTION = re.compile(
    r"#\s*(noqa|type:\s*ignore|pyright:\s*ignore)\b(?::?\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*|\[[^]]*\])?"
)
FILE_EXEMPTION = re.compile(r"^#\s*(pyright:\s*(\w+=|basic)|ruff:\s*noqa)")


def test_every_exemption_bears_a_reason() -> None:
    assert none_of(place for path in PYTHON for place in _bare_exemptions(path))


def _bare_exemptions(path: Path) -> Iterator[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        place = f"{path.relative_to(ROOT)}:{number + 1}: {line.strip()}"
        match = EXEMPTION.search(line)
        if match and path in TESTS and match[1].startswith("type"):
            continue  # nothing checks types in the tests
        if match and not re.search(r"\w{3}", EXEMPTION.sub("", line[match.start() :])):
            yield place
        if FILE_EXEMPTION.match(line) and not any(map(_is_plain_comment, lines[max(0, number - 2) : number + 3])):
            yield place


def _is_plain_comment(line: str) -> bool:
    return line.startswith("# ") and not FILE_EXEMPTION.match(line)


def tracked_texts() -> Iterator[tuple[Path, str]]:
    for path in sorted(ROOT.rglob("*")):
        if GENERATED.isdisjoint(path.relative_to(ROOT).parts) and path.is_file() and path.stat().st_size < 1_000_000:
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def test_tree_holds_no_path_of_anybodys_machine_and_no_registry() -> None:
    machine = re.compile(r"/(?:home|Users|root|work|workspace|mnt)/\w|/opt/(?:pypi|wheels)|file:///")
    registry = re.compile(r"index-url|find-links|trusted-host|https?://[\w.]*(?:pypi|registry|npmjs|artifactory)")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path, text in tracked_texts()
        if path != Path(__file__) and ".egg-info" not in str(path)
        for match in [machine.search(text) or registry.search(text)]
        if match
    ]
    assert none_of(found)


def test_constraints_are_names_and_versions_only() -> None:
    line = re.compile(r"[A-Za-z0-9._-]+==[0-9][\w.+!]*(?: ; [^@:]+)?")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [text for text in lines if not line.fullmatch(text)] == []
    assert len({text.split("==")[0].lower() for text in lines}) == len(lines)


def test_every_dependency_is_pinned() -> None:
    pinned = {_plain(text) for text in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [text for group in project["optional-dependencies"].values() for text in group]
    wanted = {_plain(text) for text in [*project["dependencies"], *extras]} - {"duodaq"}
    assert wanted - pinned == set()


def _plain(requirement: str) -> str:
    return re.split(r"[=<>!~\[; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_test_files_have_unique_names_and_no_packages() -> None:
    files = [path for path in TESTS if path.name.startswith("test_")]
    assert [name for name, count in Counter(path.name for path in files).items() if count > 1] == []
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_names_of_tests_say_what_is_and_not_what_ought_to_be() -> None:
    assert none_of(lines_with(r"def test_\w*should", TESTS))


def test_versions_in_the_tree_are_v2_and_v4_only() -> None:
    old = re.compile(r"(?<![a-z0-9])v[0-9]+(?![0-9a-z])|_old$|_new$|legacy|enhanced", re.IGNORECASE)
    names = {part for path in MODULES for part in path.relative_to(SRC).with_suffix("").parts if old.search(part)}
    assert names <= {"v2", "v4"}


def test_ignored_files_are_not_in_the_repository() -> None:
    if not (ROOT / ".git").exists():
        return
    listed = subprocess.run(
        ["git", "ls-files", "-ci", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert listed.stdout == ""
