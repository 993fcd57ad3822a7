from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, NoReturn

from duodaq.errors import RefusedError


def step(owner: Any, part: str, name: str) -> Any:
    """The public attribute `part` of `owner`, on the way to `name`.

    Raises:
        RefusedError: `part` is private, or no name. Nothing was asked.
        AttributeError: There is none.
    """
    if not part.isidentifier() or part.startswith("_"):
        raise RefusedError(f"{name!r} is not the name of a public attribute", command=name)
    return getattr(owner, part)


def refuse_missing(driver: Any, name: str, part: str, known: Iterable[str]) -> NoReturn:
    """Raise RefusedError: the driver has no `name`, because there is no `part`; the nearest of those `known` is."""
    close = difflib.get_close_matches(part, [one for one in known if not one.startswith("_")], n=1)
    hint = f"; did you mean {name.replace(part, close[0], 1)!r}?" if close else ""
    raise RefusedError(f"{type(driver).__name__} has no {name!r}{hint}", command=name)
