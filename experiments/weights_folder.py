"""Where drawn and converted weights are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "SEMIFLOW_WEIGHTS"


def weights_folder() -> Path:
    """The folder that SEMIFLOW_WEIGHTS names, else one in the user's cache."""
    return Path(os.environ.get(VARIABLE) or "~/.cache/semiflow/weights").expanduser()
