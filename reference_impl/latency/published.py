"""Cost models from what others published: fits and tables by name, or by the path of their files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, cast, get_args

from reference_impl.latency.api import LatencyModel
from reference_impl.latency.devices import Hardware, hardware
from reference_impl.latency.errors import ProfileError
from reference_impl.latency.linear import distserve, read_fits
from reference_impl.latency.splitwise import DecodeAxis, read_splitwise

CALIBRATION_VARIABLE = "SEMIFLOW_CALIBRATION"
SHIPPED = {"distserve-a100": Path(__file__).parent / "fits" / "distserve_a100_80g.json"}
_DISTSERVE_DEVICE = "a100-80g"
_DEVICES = {"a100-80gb": "a100-80g", "h100-80gb": "h100", "h100-80gb-pcap": "h100"}
"""Splitwise's names of devices -> ours."""


class Published(NamedTuple):
    """A cost model of one model at one degree, and what it was measured on."""

    latency: LatencyModel
    hardware: Hardware
    kv_tokens: int | None
    """KV tokens that an instance had room for, all stages of it; None: not published."""
    counts_stages: bool = False
    """Whether ``latency`` has what it costs to get from stage to stage."""


def open_published(text: str, model: str, tp: int, pp: int = 1) -> Published | None:
    """What was published of ``model`` in ``pp`` stages of degree ``tp``; None: ``text`` names nothing of this kind.

    ``text``: ``distserve-a100``, the path of a file in DistServe's format, or ``FILE.csv:DEVICE`` of one in
    Splitwise's (``perf_model.csv:h100-80gb-pcap``; ``...:sequences`` looks decodes up as splitwise-sim does). A file
    that is not where the path says is looked for in the folder that SEMIFLOW_CALIBRATION names.
    Raises :class:`ProfileError` for a model, degree or device that is not in it.
    """
    path = published_file(text)
    if path is None:
        return None
    if path.suffix == ".json":
        name = f"facebook/{model}"
        fits = read_fits(path)
        kv_tokens = fits.get("kv_tokens", {}).get(name, {}).get(str(tp) if pp == 1 else f"{tp}x{pp}")
        counted = "prefill_ms" in fits.get("overheads", {})
        return Published(distserve(path, name, tp, pp), hardware(_DISTSERVE_DEVICE), kv_tokens, counted)
    device, _, axis = text.partition(".csv:")[2].partition(":")
    if device not in _DEVICES or (axis or "context") not in get_args(DecodeAxis):
        raise ProfileError(
            f"{text}: allowed after the file: :DEVICE, one of {', '.join(_DEVICES)}, and then :sequences or nothing"
        )
    table = read_splitwise(path, device, model, tp, cast(DecodeAxis, axis or "context"))
    return Published(table, hardware(_DEVICES[device]), None)


def published_file(text: str) -> Path | None:
    """The file that ``text`` stands for, where it is one of :func:`open_published`; None: it is something else."""
    if text in SHIPPED:
        return SHIPPED[text]
    name, suffix, _ = text.partition(".csv:")
    path = _located(f"{name}.csv") if suffix else _located(text)
    return path if suffix or (path.suffix == ".json" and _is_distserve(path)) else None


def _located(name: str) -> Path:
    folder = os.environ.get(CALIBRATION_VARIABLE)
    path = Path(name)
    return Path(folder) / name if folder and not path.exists() else path


def _is_distserve(path: Path) -> bool:
    try:
        models = [fits for fits in read_fits(path).values() if isinstance(fits, dict)]
    except ProfileError:
        return False  # whoever opens it otherwise says what is wrong with it
    return any(isinstance(fit, dict) and "decoding_smallbs" in fit for fits in models for fit in fits.values())
