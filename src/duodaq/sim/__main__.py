"""``python -m duodaq.sim NAME``: one simulated instrument as a process."""

import gc
import sys

from duodaq.sim._process import main

gc.freeze()  # what is loaded stays: to search it at the end takes a sixth of all that a simulator takes
sys.exit(main())
