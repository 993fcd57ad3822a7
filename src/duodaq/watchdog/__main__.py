from __future__ import annotations

import sys

from duodaq.watchdog._process import main

main(sys.argv[1:])
