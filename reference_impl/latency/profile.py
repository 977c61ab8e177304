"""Open a measured profile, whatever its format."""

from __future__ import annotations

from pathlib import Path

from reference_impl.latency.errors import ProfileError
from reference_impl.latency.llmservingsim import read_profile
from reference_impl.latency.measured import Measured, read_measured
from reference_impl.latency.operators.profile import SHIPPED
from reference_impl.latency.profiled import Profiled
from reference_impl.latency.shapes import ModelShape
from reference_impl.latency.table import Table, read_table


def profile(path: str | Path, tp: int = 1, model: ModelShape | None = None) -> Profiled | Table | Measured:
    """A cost model from a folder in LLMServingSim's format (or its ``meta.yaml``), from a CSV table of iterations, or
    from a JSON file of ``semiflow profile``.

    ``tp`` is the degree at which the folder was profiled; ``model`` replaces the one that its meta file names. Both
    are of no effect for a file, which holds whole iterations. Raises :class:`ProfileError`.
    """
    source = Path(path)
    if source.is_file() and source.name.endswith("meta.yaml"):
        source = source.parent
    if source.is_dir():
        return Profiled(read_profile(source, tp), tp, model)
    if source.suffix == ".csv":
        return read_table(source)
    if source.suffix == ".json":
        return read_measured(source)
    raise ProfileError(
        f"{source} is neither a profile folder, nor its meta.yaml, nor a .csv table of iterations, nor a .json file of"
        f" semiflow profile, nor one of {', '.join(SHIPPED)}"
    )
