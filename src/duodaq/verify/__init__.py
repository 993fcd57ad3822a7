"""What ``duodaq verify`` runs and writes: the coexistence suite on the user's own machine, and four pages of it.

The suite runs in processes of its own (``python -m duodaq.testing.coexistence._suite``): nothing here imports the test
kit. Results are plain values, kept as ``results.json``; the pages are made from these alone.
"""

from duodaq.verify._compare import differences, skeleton
from duodaq.verify._hardware import HardwarePlan, verify_hardware
from duodaq.verify._pages import RESULTS_FILE, pages_of, read_pages, write_pages
from duodaq.verify._results import ALL_MODES, Results, Summary, Verdict, load_results, results_from_tests
from duodaq.verify._run import Plan, Step, SuiteError, read_index, verify_coexistence

__all__ = [
    "ALL_MODES",
    "RESULTS_FILE",
    "HardwarePlan",
    "Plan",
    "Results",
    "Step",
    "SuiteError",
    "Summary",
    "Verdict",
    "differences",
    "load_results",
    "pages_of",
    "read_index",
    "read_pages",
    "results_from_tests",
    "skeleton",
    "verify_coexistence",
    "verify_hardware",
    "write_pages",
]
