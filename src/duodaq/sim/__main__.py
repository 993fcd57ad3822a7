"""``python -m duodaq.sim NAME``: one simulated instrument as a process."""

import sys

from duodaq.sim._process import main

sys.exit(main())
