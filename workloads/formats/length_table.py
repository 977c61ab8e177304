"""Tables of lengths without times: NanoFlow's (Azure's header with ``XXX`` for a time) and Vidur's, also as parquet.

They become a trace only with arrivals that the user states; each row keeps its prompt and output together. Source:
github.com/efeslab/Nanoflow, github.com/microsoft/vidur, github.com/microsoft/vattention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from workloads.errors import TraceError
from workloads.formats.columns import Columns
from workloads.formats.csv_lines import CsvFile, token_cell
from workloads.formats.reading import Reading
from workloads.settle import BadRow, Invalid, RawRows, settle
from workloads.trace import Trace
from workloads.transform import derive

NANOFLOW = ("ContextTokens", "GeneratedTokens")
VIDUR = ("num_prefill_tokens", "num_decode_tokens")
PLACEHOLDER = "XXX"
NO_ARRIVALS = (
    "holds lengths without arrival times; say when requests come (semiflow workloads convert FILE OUT.parquet "
    "--arrivals poisson:rate_rps=4), or take a quantile table (semiflow workloads synth)"
)


def parse(
    source: str, data: bytes, name: str, metadata: Mapping[str, str], invalid: Invalid, reading: Reading
) -> Trace:
    """The lengths in ``data`` at the arrivals of ``reading``, in the order of the file. Raises TraceError."""
    reading.check(source, "a table of lengths", "arrivals", "seed")
    if reading.arrivals is None:
        raise TraceError(f"{source}: {NO_ARRIVALS}")
    wanted = VIDUR if VIDUR[0] in data[:4096].split(b"\n", 1)[0].decode(errors="replace") else NANOFLOW
    file = CsvFile(source, data, wanted)
    columns = Columns()
    for number, line in file.rows():
        try:
            cells = file.cells(line)
            prompt, output = (token_cell(column, cells[file.place[column]]) for column in wanted)
        except BadRow as bad:
            columns.note(number, bad)
            continue
        columns.add(number, 0.0, prompt, output)
    raw = RawRows(source, source_columns=dict(zip(("prompt_tokens", "output_tokens"), wanted, strict=True)))
    return with_arrivals(settle(columns.raw(raw), name, metadata, invalid), reading)


def with_arrivals(lengths: Trace, reading: Reading) -> Trace:
    """``lengths``, whose times mean nothing, at the arrivals that ``reading`` states."""
    assert reading.arrivals is not None
    stated = ",".join(f"{key}={value}" for key, value in asdict(reading.arrivals).items())  # type: ignore[call-overload] # every kind is a dataclass
    times = reading.arrivals.times_s(len(lengths), np.random.default_rng(reading.random_seed))
    notes = {"arrivals": f"not recorded; {reading.arrivals.kind}:{stated}, seed {reading.random_seed}"}
    return derive(lengths, None, arrival_s=times, metadata={**lengths.metadata, **notes})
