"""One self-contained HTML page about comparisons: no network, no scripts, every figure inline."""

from experiments.report.page import Note, Part, render, write_report

__all__ = ["Note", "Part", "render", "write_report"]
