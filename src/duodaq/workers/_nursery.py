from __future__ import annotations

from collections.abc import Iterable

from duodaq.model import InstrumentDefinition
from duodaq.v2.families import imported_by
from duodaq.workers._child import Child
from duodaq.workers._spares import Spares
from duodaq.workers._starter import Starter, shared_starter

ENTRY = "duodaq.workers._worker_main:run"
REHEARSAL = "duodaq.workers._rehearsal"


class Nursery:
    """Where a lab's worker processes come from: one fork server for the program, and the lab's own spares.

    Belongs to the manager's loop. `start` may be called more than once.
    """

    def __init__(self, starter: Starter | None = None) -> None:
        self._starter = starter or shared_starter()
        self._spares = Spares(self._starter, entry=ENTRY)
        self._started = False

    async def start(self, timeout_s: float) -> None:
        """Have the fork server loaded.

        Raises:
            LifecycleError: It is not ready in time, or cannot load.
        """
        if not self._started:
            await self._starter.start(timeout_s)
            self._started = True
            self._spares.start()

    async def take(self, key: str, definitions: Iterable[InstrumentDefinition], timeout_s: float) -> Child:
        """A process that waits for its first message: one that has loaded these drivers, if there is one."""
        wanted = tuple(definitions)
        rehearsals = dict.fromkeys(f"{REHEARSAL}:{definition.runtime}" for definition in wanted)
        return await self._spares.take(key, modules_of(wanted), tuple(rehearsals), timeout_s=timeout_s)

    @property
    def spares_died(self) -> int:
        """How many of its spares died before anybody needed them."""
        return self._spares.died

    @property
    def servers_died(self) -> int:
        """How often what makes worker processes died, in this program."""
        return self._starter.died

    def drop(self, key: str) -> None:
        """Keep no spare for this worker any more."""
        self._spares.drop(key)

    async def aclose(self) -> None:
        """End every spare. The fork server stays for the next lab of this program. Idempotent."""
        await self._spares.aclose()
        self._started = False


def modules_of(definitions: Iterable[InstrumentDefinition]) -> tuple[str, ...]:
    """The modules that these drivers are in, as far as they can be imported by name; of a file, what it imports."""
    found: list[str] = []
    for definition in definitions:
        driver = definition.driver
        module = driver.rpartition(":")[0] if isinstance(driver, str) else getattr(driver, "__module__", "")
        if module and not module.endswith(".py") and "/" not in module and module not in ("__main__", "duodaq"):
            found.append(module)
        found.extend(imported_by(definition))
    return tuple(dict.fromkeys(found))
