"""The command line: ``duodaq demo | run | check | status | stop-all | sim | replay``."""

from duodaq.cli._main import main

__all__ = ["main"]
