"""What is nobody's but its owner's, by its name."""

from __future__ import annotations

import re

LEFT_OUT = "(left out)"
SECRET_WORDS = (
    r"(?:(?:pass(?:word|wd|phrase|code)|pwd|secret|token|(?:api|access|private|secret)[_-]?key|credential)s?"
    r"|auth(?:orization)?)(?:[_-]?[0-9]+)?"
)
"""Not ``pin``, which is a connector's, nor ``pass``, which is a filter's: what was set must be found in a recording."""
BEFORE_SECRET = r"(?:[._-]|(?-i:[a-z0-9](?=[A-Z])))"
"""What ends the part of a name before such a word: ``viewer_token``, ``x-api-key``, ``viewerToken``."""
_SECRET = re.compile(rf"(?:.*{BEFORE_SECRET})?{SECRET_WORDS}", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether the value of a key, or of a parameter, of that name is a secret by its name."""
    return _SECRET.fullmatch(name) is not None
