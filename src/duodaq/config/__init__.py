"""The lab file: one TOML file in, a `LabDefinition` or one clear error out."""

from duodaq.config._left_out import shown, shown_text
from duodaq.config._lines import in_file, line_of
from duodaq.config._load import load_lab, load_text
from duodaq.config._members import members_of
from duodaq.config._notes import describe
from duodaq.config._outline import Offer, offers_of
from duodaq.config._plan import KeyChange, LabPlan, Refusal, Step, Unit, name_of, plan_change, takes_safe_state
from duodaq.config._positions import KeyPath, Positions
from duodaq.config._where import worker_of
from duodaq.config._words import choose, nearest

__all__ = [
    "KeyChange",
    "KeyPath",
    "LabPlan",
    "Offer",
    "Positions",
    "Refusal",
    "Step",
    "Unit",
    "choose",
    "describe",
    "in_file",
    "line_of",
    "load_lab",
    "load_text",
    "members_of",
    "name_of",
    "nearest",
    "offers_of",
    "plan_change",
    "shown",
    "shown_text",
    "takes_safe_state",
    "worker_of",
]
