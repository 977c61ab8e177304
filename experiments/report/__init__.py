"""One self-contained HTML page about a comparison: no network, no scripts, every figure inline."""

from experiments.report.page import render, write_report

__all__ = ["render", "write_report"]
