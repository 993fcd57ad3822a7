"""What is nobody's but its owner's, by its name."""

from __future__ import annotations

import re

LEFT_OUT = "(left out)"
SECRET_WORDS = r"(?:pass(?:word|wd|phrase)|secret|token|(?:api|access|private|secret)_?key|credentials?)s?"
_SECRET = re.compile(rf"(?:.*[._-])?{SECRET_WORDS}", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether the value of a key, or of a parameter, of that name is a secret by its name."""
    return _SECRET.fullmatch(name) is not None
