"""Moving one instrument from V2 to V4 on a running lab, and back: conversion, shadow, cutover, checklist."""

from duodaq.migration._beside import Beside, follow
from duodaq.migration._budget import Budget, Spending, counts, diverged, is_lost
from duodaq.migration._checklist import TICKABLE, Facts, Item, checklist, unmet
from duodaq.migration._compare import (
    Finding,
    Tolerances,
    Value,
    Written,
    compare_orders,
    compare_rate,
    compare_values,
    difference,
    percentiles,
)
from duodaq.migration._convert import Conversion, convert_back, convert_lab
from duodaq.migration._cutover import Handed, Hands, Limits, Passage, cut_over, nothing_handed, same_value
from duodaq.migration._equivalents import (
    Equivalents,
    command_in_v4,
    equivalents_between,
    equivalents_of,
    handed_over,
)
from duodaq.migration._exchanges import Exchanges, Seen
from duodaq.migration._recording import shadow_recording
from duodaq.migration._report import ShadowReport
from duodaq.migration._shadow import Shadow
from duodaq.migration._shadow_process import ShadowProcess
from duodaq.migration._single_writer import Violation, violations
from duodaq.migration._stanza import left_unsaid

__all__ = [
    "TICKABLE",
    "Beside",
    "Budget",
    "Conversion",
    "Equivalents",
    "Exchanges",
    "Facts",
    "Finding",
    "Handed",
    "Hands",
    "Item",
    "Limits",
    "Passage",
    "Seen",
    "Shadow",
    "ShadowProcess",
    "ShadowReport",
    "Spending",
    "Tolerances",
    "Value",
    "Violation",
    "Written",
    "checklist",
    "command_in_v4",
    "compare_orders",
    "compare_rate",
    "compare_values",
    "convert_back",
    "convert_lab",
    "counts",
    "cut_over",
    "difference",
    "diverged",
    "equivalents_between",
    "equivalents_of",
    "follow",
    "handed_over",
    "is_lost",
    "left_unsaid",
    "nothing_handed",
    "percentiles",
    "same_value",
    "shadow_recording",
    "unmet",
    "violations",
]
