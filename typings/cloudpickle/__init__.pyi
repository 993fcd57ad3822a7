# cloudpickle ships no types. These are the functions that we call.
from typing import Any

def dumps(obj: Any, protocol: int | None = None) -> bytes: ...
