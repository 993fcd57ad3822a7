"""``python -m duodaq.sim.replay WIRELOG``: recorded instruments as a process."""

import sys

from duodaq.sim.replay._serve import main

sys.exit(main())
