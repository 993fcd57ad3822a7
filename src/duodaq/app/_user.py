from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path


def user_name() -> str:
    """What the system calls the user of this program; the number of one that it does not know by name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without an entry
        return str(os.getuid())


def this_program() -> dict[str, str]:
    """Who it is that attaches, as others are told."""
    program = Path(sys.argv[0])
    kind = "notebook" if "ipykernel" in sys.modules else program.name or "python"
    kind = program.parent.name if kind == "__main__.py" else kind
    return {"name": user_name(), "kind": kind, "place": f"process {os.getpid()}"}
