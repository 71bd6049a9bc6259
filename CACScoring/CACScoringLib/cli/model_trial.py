"""Trial of a model before it is installed: scores of the digital sample, compared with those of the bundled models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..core.errors import ModelError
from ..core.labels import ARTERIES
from ..core.voxels import voxels_of
from ..io.reading import read_ct
from ..models.cards import LoadedModel
from ..models.choice import ModelChoice, chosen_models, load_networks
from ..mrml.sample_data import sample_file
from ..networks.configs import SCORING_CONFIGS
from ..pipeline import score_scan
from ..results import ScoreResult

SAMPLE = "sample"
"""Entry of a card's validation: figures of the sample and their bounds, written at installation."""

LEAST = {"clinical_agreement": 0.6, "map_agreement": 0.5, "heart_agreement": 0.8, "slice_contrast": 0.2}
"""Least figures of a model that is installed."""

TITLES = {
    "clinical_agreement": "agreement of the arteries' scores",
    "map_agreement": "ratio of the calcium map's score",
    "heart_agreement": "agreement of the hearts",
    "slice_contrast": "contrast of slices with calcium",
}

MAX_CHANGE = 0.1
"""Largest difference from a figure that the card states; computers and versions of libraries differ by less."""


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
    faults = [
        f"the {TITLES[name]} is {figures[name]:.2f}, at least {least:g} is needed"
        for name, least in LEAST.items()
        if not figures[name] >= least
    ]
    former = card.validation.get(SAMPLE, {}).get("figures", {})
    faults += [
        f"{name} is {figures[name]:.4g}, and the card states {value:.4g}"
        for name, value in former.items()
        if name in figures and abs(figures[name] - value) > MAX_CHANGE * max(1.0, abs(value))
    ]
    if faults:
        raise ModelError(
            f"With the model {card.name} the scores of the sample, which has calcium in all arteries, are wrong: "
            f"{'; '.join(faults)}. It was not installed. Train it longer, or install another model."
        )
    return {SAMPLE: {"figures": figures, "least": LEAST}}


def _figures(result: ScoreResult, usual: ScoreResult) -> dict[str, float]:
    """Return totals, and agreements with the usual result from 0 to 1."""
    clinical, of_map = ([scored.methods[name] for scored in (result, usual)] for name in ("threshold", "decomposition"))
    by_artery = np.array([[method.arteries[artery].agatston for artery in ARTERIES] for method in clinical])
    map_totals = [method.total.clinical_agatston for method in of_map]
    heart, usual_heart = (voxels_of(scored.heart.mask) != 0 for scored in (result, usual))
    probabilities = np.array(result.record.slice_probabilities, float)
    has_calcium = np.zeros(len(probabilities), bool)
    for lesion in usual.methods["threshold"].lesions:
        has_calcium[list(lesion.slices)] = True
    return {
        "clinical": clinical[0].total.agatston,
        "map": map_totals[0],
        "clinical_agreement": float(2 * by_artery.min(0).sum() / max(1.0, by_artery.sum())),
        "map_agreement": min(map_totals) / max(1.0, *map_totals),
        "heart_agreement": float(2 * (heart & usual_heart).sum() / max(1, heart.sum() + usual_heart.sum())),
        "slice_contrast": float(np.nanmean(probabilities[has_calcium]) - np.nanmean(probabilities[~has_calcium])),
    }
