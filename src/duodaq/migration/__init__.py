"""Moving one instrument from V2 to V4 on a running lab, and back: conversion, shadow, cutover, checklist."""

from duodaq.migration._convert import Conversion, convert_back, convert_lab
from duodaq.migration._equivalents import (
    Equivalents,
    command_in_v4,
    equivalents_between,
    equivalents_of,
    settings_in_v4,
)

__all__ = [
    "Conversion",
    "Equivalents",
    "command_in_v4",
    "convert_back",
    "convert_lab",
    "equivalents_between",
    "equivalents_of",
    "settings_in_v4",
]
