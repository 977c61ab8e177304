"""Finished cases on disk, one small JSON file each; written whole or not at all, so that any run can be resumed."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from experiments.cases.model import Case, Outcome
from experiments.config_base import ConfigError


@dataclass(frozen=True)
class CaseStore:
    """A folder of outcomes by :attr:`Case.key`."""

    folder: Path

    def load(self, case: Case) -> Outcome | None:
        """The stored outcome; None: this case has not been run. Raises ConfigError for a damaged file."""
        path = self._path(case)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return Outcome(**content["outcome"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{path}: not a stored case; delete it to run the case again") from error

    def save(self, case: Case, outcome: Outcome) -> None:
        """Keep an outcome. Replaces an older one in one step."""
        self.folder.mkdir(parents=True, exist_ok=True)
        told = {"variant": case.variant, "workload": case.workload, "rate": case.rate, "seed": case.seed}
        content = {"case": told, "config": case.config.model_dump(mode="json"), "outcome": dataclasses.asdict(outcome)}
        path = self._path(case)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            partial.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _path(self, case: Case) -> Path:
        return self.folder / f"{case.key}.json"
