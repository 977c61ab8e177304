"""A proposal's folder: the ranked table with its manifest, and the best mix as a configuration."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from experiments.config import RunConfig
from experiments.config_file import to_yaml
from experiments.manifest import environment
from experiments.placement.phases import together, with_setting
from experiments.placement.proposal import Proposal, Search
from experiments.run_folder import new_folder, write_json

PROPOSAL, MIX = "proposal.json", "mix.yaml"


def keep(found: Proposal, config: RunConfig, search: Search, out: Path) -> None:
    """Write ``out``, complete or not at all. The mix gets the rate that it was found to carry."""
    best = found.mixes[0]
    with new_folder(out) as folder:
        asked = {**asdict(search), "seeds": list(search.seeds)}
        manifest = {**environment(), "search": asked, "config": config.model_dump(mode="json")}
        write_json(
            folder / PROPOSAL, {**manifest, "proposal": found.to_json(), "cost_models": _cost_models(config, found)}
        )
        mix = with_setting(config, together(best[0]), best[1].rps, config.seed)
        (folder / MIX).write_text(to_yaml(mix), encoding="utf-8")


def _cost_models(config: RunConfig, found: Proposal) -> dict[str, str]:
    """Name and provenance of what the search rests on."""
    from experiments.config_costs import build_costs

    models = [build_costs(config.fleet.model_copy(update=each._asdict()))[0] for each in found.prefill_rps]
    return {each.name: each.provenance for each in models}
