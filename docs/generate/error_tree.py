"""The errors: the tree, and of each what it means, what it is besides, its fate, and whether it is worth a retry."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from markup import code, paragraphs
from markup import table as table_of

from duodaq import errors
from duodaq.errors import DeliveryError, DuodaqError


def tree(words: list[str], like: list[list[str]]) -> str:
    """The tree, drawn."""
    return "\n".join(["```text", DuodaqError.__name__, *_drawn(DuodaqError, ""), "```"])


def table(words: list[str], like: list[list[str]]) -> str:
    rows = [
        (
            code(kind.__name__),
            ", ".join(code(base.__name__) for base in kind.__bases__ if base.__module__ == "builtins"),
            kind.default_fate if issubclass(kind, DeliveryError) else "",
            "yes" if kind.retryable else "",
            ", ".join(code(name) for name in _facts(kind)),
            paragraphs(inspect.getdoc(kind) or "").replace("``", "`"),
        )
        for kind in _all(DuodaqError)
    ]
    return table_of(("error", "is a", "fate", "retried", "fields", "meaning"), rows)


def _below(kind: type[DuodaqError]) -> list[type[DuodaqError]]:
    """Those derived from it in `duodaq.errors`, in the order of the source."""
    order = list(vars(errors).values())
    return sorted((one for one in kind.__subclasses__() if one.__module__ == errors.__name__), key=order.index)


def _all(kind: type[DuodaqError]) -> Iterator[type[DuodaqError]]:
    yield kind
    for one in _below(kind):
        yield from _all(one)


def _drawn(kind: type[DuodaqError], indent: str) -> Iterator[str]:
    below = _below(kind)
    for one in below:
        last = one is below[-1]
        yield f"{indent}{'└── ' if last else '├── '}{one.__name__}"
        yield from _drawn(one, indent + ("    " if last else "│   "))


def _facts(kind: type[DuodaqError]) -> list[str]:
    """What it says of itself in fields: those of its own."""
    if "__init__" not in vars(kind):
        return []
    parameters = inspect.signature(kind.__init__).parameters.values()
    return [one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]
