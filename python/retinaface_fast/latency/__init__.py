"""How long detection takes on this machine, ours and everyone's, in turns, once all answers agree."""

from __future__ import annotations

from .benchmark import LatencyBenchmark, LatencyProgress
from .plan import PAPER_SIZES, PARTS, LatencyPlan
from .plot import PLOT_SUFFIXES, plot_latency
from .report import has_failed, machine_lines, main_tables, notes, report_to_markdown
from .rows import ROWS, Row
from .table import Table

__all__ = [
    "PAPER_SIZES",
    "PARTS",
    "PLOT_SUFFIXES",
    "ROWS",
    "LatencyBenchmark",
    "LatencyPlan",
    "LatencyProgress",
    "Row",
    "Table",
    "has_failed",
    "machine_lines",
    "main_tables",
    "notes",
    "plot_latency",
    "report_to_markdown",
]
