"""Instruments' own languages: for each a codec of pure bytes, and a driver that speaks it over a leased port."""

from duodaq.drivers._codecs import CODECS, codec
from duodaq.drivers._limited_axis import LimitedAxis

__all__ = ["CODECS", "LimitedAxis", "codec"]
