"""Trial of a model before it is installed: scores of the digital sample, compared with those of the bundled models."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..core.decoding import restore
from ..core.errors import ModelError, WrongValueError
from ..core.labels import ARTERIES
from ..io.reading import read_ct
from ..models.cards import LoadedModel
from ..models.choice import ModelChoice, chosen_models, load_networks
from ..mrml.sample_data import sample_file
from ..networks.configs import SCORING_CONFIGS
from ..pipeline import score_scan
from ..results import ScoreResult

SAMPLE = "sample"
"""Entry of a card's validation: a `Trial`, written at installation."""

LEAST = {"clinical_agreement": 0.6, "map_agreement": 0.5, "heart_agreement": 0.8, "slice_contrast": 0.2}
"""Least figures of a model that is installed."""

MAX_CHANGE = 0.1
"""Largest difference from a figure that the card states; computers and versions of libraries differ by less."""


@dataclass(frozen=True)
class Trial:
    """Scores of the sample by a model.

    Attributes:
        figures: Totals, and agreements with the bundled models.
        least: Least figures, at the time.
        models: SHA-256 of the bundled models beside it, by network.
    """

    figures: dict[str, float]
    least: dict[str, float]
    models: dict[str, str]


def measure_on_sample(model: LoadedModel) -> dict[str, Any]:
    """Score the sample with a model, beside the bundled ones, and compare with the bundled ones alone.

    Returns:
        Entry for the validation of its card; none for a model that scores no scans.

    Raises:
        ModelError: A figure is out of bounds, or differs from that on the card.
        CTError: The sample cannot be scored with the model.
    """
    card, stored = model.card, chosen_models(ModelChoice(device="cpu")).networks
    if card.network not in SCORING_CONFIGS or not stored:
        return {}
    networks = load_networks(stored, "cpu")
    assert networks is not None
    scan = read_ct(sample_file())
    usual = score_scan(scan, networks=networks)
    figures = _figures(score_scan(scan, networks=replace(networks, **{card.network: model})), usual)
    partners = {name: stored[name].card.sha256 for name in stored if name != card.network}
    try:
        former = restore(card.validation[SAMPLE], Trial) if SAMPLE in card.validation else None
    except WrongValueError as wrong:
        raise ModelError(f"The figures of the sample on the card of {card.name} have no valid {wrong}.") from None
    stated = former.figures if former and former.models == partners else figures
    faults = []
    for name, figure in figures.items():
        before, words = stated.get(name, figure), f"the {name.replace('_', ' ')} is {figure:.4g}"
        if not figure >= LEAST.get(name, 0.0):
            faults.append(f"{words}, at least {LEAST[name]:g} is needed")
        elif abs(figure - before) > MAX_CHANGE * max(1.0, abs(before)):
            faults.append(f"{words}, and the card states {before:.4g}")
    if faults:
        raise ModelError(
            f"With the model {card.name} the scores of the sample, which has calcium in all arteries, are wrong: "
            f"{'; '.join(faults)}. It was not installed. Train it longer, or install another model."
        )
    return {SAMPLE: asdict(Trial(figures, LEAST, partners))}


def _figures(result: ScoreResult, usual: ScoreResult) -> dict[str, float]:
    """Return totals, and agreements with the usual result from 0 to 1."""
    pair = result, usual
    by_artery = np.array(
        [[scored.methods["threshold"].arteries[name].agatston for name in ARTERIES] for scored in pair]
    )
    of_map = [scored.methods["decomposition"].total.clinical_agatston for scored in pair]
    heart, usual_heart = (scored.heart.mask for scored in pair)
    probabilities = np.array(result.record.slice_probabilities, float)
    has_calcium = np.zeros(len(probabilities), bool)
    for lesion in usual.methods["threshold"].lesions:
        has_calcium[list(lesion.slices)] = True
    return {
        "clinical_score": result.methods["threshold"].total.agatston,
        "map_score": of_map[0],
        "clinical_agreement": float(2 * by_artery.min(0).sum() / max(1.0, by_artery.sum())),
        "map_agreement": min(of_map) / max(1.0, *of_map),
        "heart_agreement": float(2 * (heart & usual_heart).sum() / max(1, heart.sum() + usual_heart.sum())),
        "slice_contrast": float(np.nanmean(probabilities[has_calcium]) - np.nanmean(probabilities[~has_calcium])),
    }
