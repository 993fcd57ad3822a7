"""The demonstration: a knife-edge scan on a simulated table, through both runtimes, without hardware."""
