"""One self-contained HTML page about comparisons: no network, no scripts, every figure inline."""

from experiments.report.facts import horizon_text
from experiments.report.labels import metric_label
from experiments.report.page import Note, NoteRow, NoteTable, Part, render, write_report

__all__ = ["Note", "NoteRow", "NoteTable", "Part", "horizon_text", "metric_label", "render", "write_report"]
