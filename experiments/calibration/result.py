"""What a calibration found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reference_impl.latency.identified import Error


@dataclass(frozen=True)
class Calibration:
    """The coefficient file's content, which depends on the inputs and the seed alone, and the errors."""

    content: Mapping[str, Any]
    errors: Mapping[str, Error]
    """By operator or kind of iteration, on the rows kept aside."""
    rule: str
    """Which rows were kept aside."""
    inputs: Mapping[str, str]
    """File name -> sha256."""


def digests(files: Sequence[Path]) -> dict[str, str]:
    """sha256 by file name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def told(errors: Mapping[str, Error]) -> dict[str, dict[str, float]]:
    """Ready for JSON, to four digits."""
    return {name: {key: round(value, 4) for key, value in error._asdict().items()} for name, error in errors.items()}


def rounded(value: float) -> float:
    """To six significant digits, so that the last bits of a linear algebra library do not change a file."""
    return float(f"{value:.6g}")
