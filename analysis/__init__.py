"""Asking a finished run: a DuckDB connection with the views, queries printed, and verification.

Nothing in here loads torch or Beam: a run can be read where it could not have been computed.
"""

from attribeam.analysis.comparing import Comparison, compare
from attribeam.analysis.opening.runs import load_manifest, open_run, write_database
from attribeam.analysis.query.query import FORMATS, run_query, run_query_to
from attribeam.analysis.verifying.verify import Report, print_report, verify

__all__ = [
    "FORMATS",
    "Comparison",
    "Report",
    "compare",
    "load_manifest",
    "open_run",
    "print_report",
    "run_query",
    "run_query_to",
    "verify",
    "write_database",
]
