from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """What the system calls the user of this program; the number of one that it does not know by name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without an entry
        return str(os.getuid())
