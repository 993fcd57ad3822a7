"""The test kit: leak checks, scripted ports, virtual time, contract suites. Nothing that ships imports it."""

from duodaq.testing._leaks import LeakWatch

__all__ = ["LeakWatch"]
