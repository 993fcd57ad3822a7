from __future__ import annotations

from duodaq.dataplane import Hub
from duodaq.model import Measurement


class DataDistributor(Hub[Measurement]):
    """V2's lossy broadcast: one bounded queue (1024) for each subscriber, each of which loses values alone.

    A slow one is told how many it missed and never slows a fast one. Per subscriber it knows sent, dropped, drop rate,
    occupancy and capacity (`figures`), and warns at 1 % dropped within 10 s and at 90 % occupancy, once a window. A
    recorder subscribes with the policy "block" and is never lossy.
    """

    def __init__(self, name: str = "v2") -> None:
        super().__init__(name)
