"""One scan scored into one folder: what the commands `score` and `cohort` share."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from .core.ct import ScanWarning
from .core.output import LAST_FILE
from .core.progress import Progress
from .models.cards import ModelError, StoredModel, list_models, load_model
from .report import files as report
from .report import page
from .results import Networks, ScoreResult
from .scoring.comparison import Comparison, compare, comparison_as_json
from .scoring.repeatability import stored_repeatability
from .whole_scan.run import ALL, opinion_models
from .whole_scan.second_opinion import OPINIONS

SCORING_NETWORKS = ("heart", "slices", "decomposition")
"""Models of other networks may come with CAC too; a scan is scored without them."""


@dataclass(frozen=True)
class ModelChoice:
    """Which networks are used.

    names: of models to use in place of the bundled ones of their kind. threshold_only: none at all, only the clinical
    rule. device: "auto", "cpu" or "cuda". opinions: second opinions asked for, as `opinions_asked_for` gives them.
    """

    names: tuple[str, ...] = ()
    threshold_only: bool = False
    device: str = "auto"
    opinions: tuple[str, ...] = ()


def chosen_models(choice: ModelChoice) -> tuple[dict[str, StoredModel], tuple[ScanWarning, ...]]:
    """By network the models asked for, and the bundled ones for the rest; and doubts. Empty: the clinical rule alone.

    Without PyTorch bundled models are left out with a doubt, but a model that was named is an error.
    Raises ModelError.
    """
    models = _models(choice)
    missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    if not models or not missing:
        return models, ()
    message = f"The networks need the Python packages {' and '.join(missing)}, which are not installed"
    if choice.names:
        raise ModelError(f"{message}. Install them, or leave --model out.")
    return {}, (ScanWarning("networks-left-out", f"{message}: the scan is scored by the clinical rule alone."),)


def _models(choice: ModelChoice) -> dict[str, StoredModel]:
    if choice.threshold_only:
        return {}
    found = list_models()
    stored = {model.card.name: model for model in found}
    chosen: dict[str, StoredModel] = {}
    for name in choice.names:
        if name not in stored:
            raise ModelError(f"There is no model {name!r}. Installed: {', '.join(stored) or 'none'}.")
        network = stored[name].card.network
        if network in OPINIONS:
            if not _is_asked_for(network, choice):
                raise ModelError(f"{name} gives a second opinion. Ask for it: --second-opinion {network}.")
            continue  # see `chosen_opinions`
        if network not in SCORING_NETWORKS:
            raise ModelError(f"{name} is a model for {network!r}; a scan is scored by {', '.join(SCORING_NETWORKS)}.")
        if network in chosen:
            raise ModelError(f"Two models for {network!r} are named. Name one of each kind.")
        chosen[network] = stored[name]
    bundled = [model for model in found if model.origin == "bundled" and model.card.network in SCORING_NETWORKS]
    models = {model.card.network: model for model in bundled} | chosen
    if models and not {"slices", "decomposition"} <= set(models):
        raise ModelError("Scoring without a threshold needs a model for slices and one for decomposition.")
    return models


def chosen_opinions(choice: ModelChoice) -> dict[str, StoredModel]:
    """By kind the models of the second opinions asked for; none where none were. Raises ModelError."""
    if not choice.opinions:
        return {}
    stored = {model.card.name: model for model in list_models()}
    named: dict[str, StoredModel] = {}
    for model in (stored[name] for name in choice.names if name in stored):
        if model.card.network in named:
            raise ModelError(f"Two models for {model.card.network!r} are named. Name one of each kind.")
        if model.card.network in OPINIONS and _is_asked_for(model.card.network, choice):
            named[model.card.network] = model
    return opinion_models(choice.opinions, named.values())


def _is_asked_for(network: str, choice: ModelChoice) -> bool:
    return choice.opinions == (ALL,) or network in choice.opinions


def load_networks(models: dict[str, StoredModel], device: str) -> Networks | None:
    """The networks of `chosen_models`; None when there are none. Raises ModelError, DeviceError."""
    if not models:
        return None
    loaded = {network: load_model(model.path, device) for network, model in models.items()}
    return Networks(loaded.get("heart"), loaded["slices"], loaded["decomposition"])


def compared_with(earlier: dict, result: ScoreResult) -> Comparison:
    """A result compared with an earlier one of the patient.

    earlier: content of its `scores.json`. Raises ModelError.
    """
    later = comparable(result)
    return compare(earlier, later, stored_repeatability(later))


def comparable(result: ScoreResult) -> dict:
    """A result as `read_result` would give it, and with what identifies the patient: both have to be of one."""
    return json.loads(json.dumps(report.result_as_json(result, {}, identify=True)))


def write_result(
    folder: Path,
    result: ScoreResult,
    progress: Progress,
    identify: bool,
    scene: bool,
    healthy: bool = True,
    comparison: Comparison | None = None,
) -> None:
    """Write all files of a result, `LAST_FILE` at the end; the seconds in it are the progress's.

    identify: with the patient's name and id, study date and UIDs. scene: with scene.mrb. healthy: with healthy.nii.gz.
    comparison: with an earlier result of the patient.
    """
    with progress.step("report"):
        report.write_images(folder, result, healthy)
        (folder / "lesions.csv").write_text(report.lesions_as_csv(result), encoding="utf-8")
        (folder / "report.html").write_text(page.result_as_html(result, identify, comparison), encoding="utf-8")
    if scene:
        with progress.step("scene"):
            from .mrml import scene as mrml  # takes a second, and needs MRML

            mrml.write_scene(folder / "scene.mrb", result, identify)
    compared = None if comparison is None else comparison_as_json(comparison)
    report.write_json(folder / LAST_FILE, result, progress.seconds, identify, compared)
