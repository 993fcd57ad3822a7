from __future__ import annotations

import os
import sys

from duodaq.watchdog._process import main

code = main(sys.argv[1:])
# Not by way of the interpreter's end: that would wait for a thread that hangs in opening a device.
os._exit(code)
