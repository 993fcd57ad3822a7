"""The twelve coexistence tests, on real runtimes and on simulators at real ptys and sockets.

Each is ``async def test_…(bench: Bench)``. One by itself: ``python -m duodaq.testing.coexistence TEST``; all of them:
``pytest tests/integration/test_coexistence.py``, each in every mode. A feature is shown by a marked assertion,
`proves`; the sabotages in `_sabotages` prove that it can fail.
"""

from duodaq.testing.coexistence._bench import MODES, Bench, Mode, outcome, until
from duodaq.testing.coexistence._imitation import FlagAndQueue, imitating
from duodaq.testing.coexistence._proof import FeatureFailure, proves
from duodaq.testing.coexistence._sabotage import SABOTAGES, Sabotage, load_sabotages, sabotage
from duodaq.testing.coexistence._twelve import TWELVE

__all__ = [
    "MODES",
    "SABOTAGES",
    "TWELVE",
    "Bench",
    "FeatureFailure",
    "FlagAndQueue",
    "Mode",
    "Sabotage",
    "imitating",
    "load_sabotages",
    "outcome",
    "proves",
    "sabotage",
    "until",
]
