"""Variational autoencoders from probabilistic foundations to production.

Public names are resolved when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "BatchNoise": "lowerbound.noise",
    "Client": "lowerbound.service.client",
    "Context": "lowerbound.model.spec",
    "DataSpec": "lowerbound.model.spec",
    "Evaluation": "lowerbound.recipe",
    "Facts": "lowerbound.lab.facts",
    "Evidence": "lowerbound.model.evidence",
    "Latent": "lowerbound.model.evidence",
    "LowerboundError": "lowerbound.errors",
    "Recipe": "lowerbound.recipe",
    "RowNoise": "lowerbound.noise",
    "Reference": "lowerbound.lab.reference",
    "Run": "lowerbound.lab.run",
    "ServerError": "lowerbound.service.client",
    "VAEDetector": "lowerbound.lab.detector",
    "Writers": "lowerbound.lab.writers",
    "add_noise": "lowerbound.lab.generation.repair",
    "attribute_direction": "lowerbound.lab.generation.attributes",
    "build_model": "lowerbound.model.build",
    "build_objective": "lowerbound.model.build",
    "compare": "lowerbound.lab.compare",
    "check_trials": "lowerbound.lab.sweep",
    "decode": "lowerbound.lab.generation.use",
    "doctor": "lowerbound.lab.doctor.examine",
    "doctor_foreign": "lowerbound.lab.doctor.examine",
    "denoise": "lowerbound.lab.generation.repair",
    "draw": "lowerbound.model.distributions.tree",
    "edit": "lowerbound.lab.generation.directions",
    "encode": "lowerbound.lab.generation.use",
    "evaluate": "lowerbound.lab.judge",
    "evaluate_foreign": "lowerbound.lab.judge_foreign",
    "evaluate_pictures": "lowerbound.lab.judge_foreign",
    "export": "lowerbound.lab.export",
    "export_model": "lowerbound.lab.export",
    "feature_scores": "lowerbound.lab.evaluation.anomaly",
    "fill": "lowerbound.lab.generation.repair",
    "holds_pictures": "lowerbound.lab.judge_foreign",
    "interpolate": "lowerbound.lab.generation.paths",
    "keep_weights": "lowerbound.lab.reproduction",
    "label_context": "lowerbound.app.rows",
    "labelled_rows": "lowerbound.app.rows",
    "load": "lowerbound.lab.run",
    "load_data": "lowerbound.lab.data.load",
    "load_rows": "lowerbound.app.rows",
    "look_at_trial": "lowerbound.lab.reproduction",
    "make_loop": "lowerbound.lab.experiment",
    "make_trial": "lowerbound.lab.reproduction",
    "manifold": "lowerbound.lab.generation.paths",
    "numbers_context": "lowerbound.app.rows",
    "parse_over": "lowerbound.lab.sweep",
    "pictures_of": "lowerbound.lab.judge_foreign",
    "plan_contest": "lowerbound.lab.contest",
    "plan_paper": "lowerbound.lab.reproduction",
    "plan_sweep": "lowerbound.lab.sweep",
    "point": "lowerbound.model.distributions.tree",
    "profile": "lowerbound.lab.experiment",
    "rank_seeds": "lowerbound.lab.sweep",
    "read_latents": "lowerbound.app.rows",
    "read_mask": "lowerbound.app.gaps",
    "read_paper": "lowerbound.lab.papers",
    "read_recipe": "lowerbound.recipe",
    "read_reproductions": "lowerbound.lab.reproduction",
    "reconstruct": "lowerbound.lab.generation.use",
    "run_contestant": "lowerbound.lab.contest",
    "run_trial": "lowerbound.lab.sweep",
    "sample": "lowerbound.lab.generation.use",
    "score_rows": "lowerbound.lab.scoring",
    "shipped_papers": "lowerbound.lab.papers",
    "show_gaps": "lowerbound.app.gaps",
    "stack_runs": "lowerbound.lab.stacked",
    "standings": "lowerbound.lab.standings",
    "summarise": "lowerbound.model.summary",
    "text_context": "lowerbound.app.rows",
    "train": "lowerbound.lab.experiment",
    "trials_of": "lowerbound.lab.contest",
    "traverse": "lowerbound.lab.generation.paths",
    "validate": "lowerbound.lab.data.validate",
    "write_columns": "lowerbound.app.rows",
    "write_compared": "lowerbound.app.report.compared",
    "write_contest": "lowerbound.lab.contest",
    "write_contested": "lowerbound.app.report.contested",
    "write_examination": "lowerbound.app.report.examined",
    "write_comparison": "lowerbound.app.report.comparison",
    "write_latents": "lowerbound.app.rows",
    "write_maps": "lowerbound.app.rows",
    "write_pairs": "lowerbound.app.rows",
    "write_report": "lowerbound.app.report.report",
    "write_reproduced": "lowerbound.app.report.reproduced",
    "write_reproduction": "lowerbound.lab.reproduction",
    "write_rows": "lowerbound.app.rows",
    "write_stack": "lowerbound.app.rows",
    "write_steps": "lowerbound.app.rows",
    "write_sweep": "lowerbound.lab.sweep",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lowerbound' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
