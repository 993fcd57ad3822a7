from __future__ import annotations


class RestartTimes(list[float]):
    """When a worker was replaced, as its policy looks at it; `total` goes on counting when a person has forgiven it."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def append(self, at_s: float, /) -> None:
        """It is replaced now."""
        self.total += 1
        super().append(at_s)
