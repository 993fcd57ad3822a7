"""The lab file: one TOML file in, a `LabDefinition` or one clear error out."""

from duodaq.config._lines import in_file, line_of
from duodaq.config._load import load_lab, load_text
from duodaq.config._notes import describe
from duodaq.config._outline import Offer, offers_of
from duodaq.config._positions import KeyPath, Positions
from duodaq.config._where import worker_of

__all__ = [
    "KeyPath",
    "Offer",
    "Positions",
    "describe",
    "in_file",
    "line_of",
    "load_lab",
    "load_text",
    "offers_of",
    "worker_of",
]
