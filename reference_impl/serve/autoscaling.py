"""How the scaling policy's word reaches Ray Serve: the cluster manager writes it down, Serve's controller reads it.

Ray ships this module to its controller by value, so it imports nothing of ours.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_targets(path: Path, targets: Mapping[str, int]) -> None:
    """Note how many instances of each role there should be."""
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(json.dumps(targets), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        logging.getLogger(__name__).error("the scaling decision %s cannot be written: %s", dict(targets), error)


class ReplicasWanted:
    """The autoscaling policy of one role's deployment: as many replicas as the cluster manager wrote down."""

    def __init__(self, path: str, role: str) -> None:
        self._path = Path(path)
        self._role = role

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Replicas, and no state. Where nothing is written, as many as there should be now."""
        try:
            wanted = json.loads(self._path.read_text(encoding="utf-8"))[self._role]
        except (OSError, ValueError, KeyError):
            wanted = context.target_num_replicas
        return int(wanted), {}
