"""Moving one instrument from V2 to V4 on a running lab, and back: conversion, shadow, cutover, checklist."""

from duodaq.migration._convert import Conversion, convert_back, convert_lab
from duodaq.migration._cutover import Handed, Hands, Limits, Passage, cut_over, nothing_handed, same_value
from duodaq.migration._equivalents import (
    Equivalents,
    command_in_v4,
    equivalents_between,
    equivalents_of,
    handed_over,
)
from duodaq.migration._single_writer import Violation, violations

__all__ = [
    "Conversion",
    "Equivalents",
    "Handed",
    "Hands",
    "Limits",
    "Passage",
    "Violation",
    "command_in_v4",
    "convert_back",
    "convert_lab",
    "cut_over",
    "equivalents_between",
    "equivalents_of",
    "handed_over",
    "nothing_handed",
    "same_value",
    "violations",
]
