"""The demonstration: a knife-edge scan on a simulated table, through both runtimes, without hardware."""

from duodaq.cli.demo._demo import run_demo

__all__ = ["run_demo"]
