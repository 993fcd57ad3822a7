"""The pages in docs/coexistence are those of a run, and say of the tests what the test kit says of them now."""

from __future__ import annotations

from pathlib import Path

import msgspec

from duodaq.testing.coexistence._suite import inventory
from duodaq.verify import differences, read_pages, results_from_tests
from duodaq.verify._results import ALL_MODES, Entry

FOLDER = Path(__file__).parents[2] / "docs" / "coexistence"
INDEX = msgspec.convert(msgspec.to_builtins(inventory()), list[Entry])


def test_every_page_is_what_its_results_give() -> None:
    assert read_pages(FOLDER)[1] == []


def test_the_index_is_that_of_the_tests_as_they_are() -> None:
    kept, _ = read_pages(FOLDER)
    assert differences(kept, msgspec.structs.replace(kept, index=INDEX)) == []


def test_every_test_has_passed_in_every_mode() -> None:
    kept, _ = read_pages(FOLDER)
    assert [(test.test, test.mode, test.error) for test in kept.failed] == []
    ran = {(test.test, test.mode) for test in kept.tests}
    assert ran == {(entry.test, mode) for entry in INDEX for mode in ALL_MODES}


def test_what_pytest_leaves_is_put_together_in_the_order_of_the_index(tmp_path: Path) -> None:
    kept, _ = read_pages(FOLDER)
    for number, test in enumerate(reversed(kept.tests)):
        (tmp_path / f"{number}.json").write_bytes(msgspec.json.encode(test))
    assert differences(kept, results_from_tests(tmp_path, INDEX)) == []
    (tmp_path / "0.json").unlink()
    assert len(differences(kept, results_from_tests(tmp_path, INDEX))) == 1
