"""Vidur's traces: CSV with ``arrived_at`` (seconds), ``num_prefill_tokens``, ``num_decode_tokens``, by column name.

Optional columns ``session_id``, ``tenant`` and ``slo_class`` are taken over; others (``num_total_tokens``,
``pd_ratio``) follow from these and are not read. Source: github.com/microsoft/vidur.
"""

from __future__ import annotations

from collections.abc import Mapping

from workloads.formats.columns import Columns
from workloads.formats.csv_lines import CsvFile, seconds_cell, token_cell
from workloads.settle import BadRow, Invalid, RawRows, settle
from workloads.trace import Trace
from workloads.transform import LABELS

NEEDED = ("arrived_at", "num_prefill_tokens", "num_decode_tokens")
_COLUMNS = dict(zip(("arrival_s", "prompt_tokens", "output_tokens"), NEEDED, strict=True))


def parse(source: str, data: bytes, name: str, metadata: Mapping[str, str], invalid: Invalid) -> Trace:
    """The trace in ``data``. Raises TraceError naming ``source``, line, column, value and what is allowed."""
    file = CsvFile(source, data, NEEDED, LABELS)
    columns = Columns()
    for number, line in file.rows():
        try:
            cells = file.cells(line)
            at_s = seconds_cell(NEEDED[0], cells[file.place[NEEDED[0]]])
            prompt, output = (token_cell(column, cells[file.place[column]]) for column in NEEDED[1:])
        except BadRow as bad:
            columns.note(number, bad)
            continue
        columns.add(number, at_s, prompt, output)
        for label in LABELS:
            if label in file.place:
                getattr(columns, label).append(cells[file.place[label]].strip())
    return settle(columns.raw(RawRows(source, source_columns=_COLUMNS)), name, metadata, invalid)
