from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

_WITNESSES: list[dict[str, int]] = []


class FeatureFailure(AssertionError):  # noqa: N818 - it is a verdict on a feature, and read as one
    """A feature that a coexistence test is there to show was not seen. `feature` names it."""

    def __init__(self, feature: str, what: str) -> None:
        super().__init__(f"[{feature}] {what}")
        self.feature = feature


def proves(feature: str, seen: bool, what: str, /, **facts: Any) -> None:
    """The marked assertion of a feature: a sabotage of that feature must fail here, and nowhere else.

    Raises:
        FeatureFailure: It was not seen; `what` says what was seen instead, with `facts`.
    """
    if not seen:
        details = ", ".join(f"{name}={value!r}" for name, value in facts.items())
        raise FeatureFailure(feature, f"{what} ({details})" if details else what)
    for counts in _WITNESSES:
        counts[feature] = counts.get(feature, 0) + 1


@contextmanager
def proofs_counted(counts: dict[str, int]) -> Generator[None]:
    """While inside, count in `counts` the marked assertions of each feature that hold."""
    _WITNESSES.append(counts)
    try:
        yield
    finally:
        _WITNESSES[:] = [one for one in _WITNESSES if one is not counts]
