"""Whole-scan estimates with chosen values, and cards and untrained models for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from CACScoringLib.models.cards import LoadedModel, ModelCard, Training, describe
from CACScoringLib.models.store import save_model
from CACScoringLib.networks.configs import RadiomicsConfig, VesselNetConfig, build
from CACScoringLib.whole_scan.estimates import WholeScanEstimate, estimate_of

ARTERIES = ("LM", "LAD", "LCX", "RCA")

VESSELS_TEST = {
    "patients": 56,
    "data": "digital patients, none of them in training",
    "rank_correlation": {"estimate": 0.8, "low": 0.7, "high": 0.88},
    "rank_correlation_age_and_heart_size": {"estimate": 0.4, "low": 0.15, "high": 0.6},
    "kappa_categories": {"estimate": 0.5, "low": 0.35, "high": 0.65},
    "non_coronary_only": {"patients": 20, "called_coronary": 1},
}
RADIOMICS_TEST = {
    "patients": 56,
    "data": "digital patients, none of them in training",
    "accuracy": {"estimate": 0.85, "low": 0.74, "high": 0.92},
    "sensitivity": {"estimate": 0.97, "low": 0.9, "high": 1.0},
    "specificity": {"estimate": 0.6, "low": 0.4, "high": 0.78},
    "auc": {"estimate": 0.9, "low": 0.8, "high": 0.97},
    "non_coronary_only": {"patients": 20, "called_coronary": 18},
}


def vessels(*agatston: float, **further: object) -> WholeScanEstimate:
    """Return a vessel estimate. agatston: scores of LM, LAD, LCX and RCA, or of the LAD alone."""
    scores = agatston if len(agatston) == 4 else (0.0, *agatston, 0.0, 0.0)
    by_artery = dict(zip(ARTERIES, scores, strict=True))
    return estimated("vessels", agatston=by_artery, total=sum(scores), **further)


def radiomics(probability: float, limit: float = 0.3, **further: object) -> WholeScanEstimate:
    return estimated("radiomics", probability=probability, limit=limit, **further)


def estimated(network: str, trust: str = "", **values: object) -> WholeScanEstimate:
    estimate = estimate_of(estimator(network).card, **values)
    return replace(estimate, record=replace(estimate.record, trust=trust))


def estimator(network: str, test: dict | None = None, calibration: dict | None = None) -> LoadedModel:
    """Return a whole-scan model that has a card but no network."""
    card = ModelCard(
        f"{network}-by-hand",
        network,
        "custom",
        {},
        1,
        Training("digital patients", 0, {}, ""),
        {} if test is None else {"test": test},
        {"probability_limit": 0.3} if calibration is None else calibration,
        "Apache-2.0",
        "Tests only.",
        "c" * 64,
    )
    return LoadedModel(card, None)


SMALL_VESSELS = VesselNetConfig(
    kind="se-cnn", slices=20, size=16, field="heart", field_mm=64.0, width=4, pooling="average+max", reduction=8
)


def save_vessels(folder: Path, name: str = "vessels-untrained", test: dict | None = None) -> Path:
    """Write an untrained vessel model; return its card's path."""
    torch.manual_seed(2)
    network = build(SMALL_VESSELS)
    network.set_largest(800)
    validation = {} if test is None else {"test": test}
    training = Training("digital patients", 0, {}, "")
    parts = ("custom", training, validation, {"agatston_scale": 800.0}, "Apache-2.0", "Tests only.")
    return save_model(network, describe(name, SMALL_VESSELS, *parts), folder)


def save_radiomics(folder: Path, name: str = "radiomics-untrained") -> Path:
    """Write a radiomics model that weighs three features equally, positive above their mean; return its path."""
    config = RadiomicsConfig(features=("candidate_log_agatston", "heart_volume_ml", "heart_stat_p90"))
    network = build(config)
    with torch.no_grad():
        network.weight.fill_(0.5)
        network.mean.copy_(torch.tensor([3.0, 200.0, 60.0]))
        network.sd.copy_(torch.tensor([2.0, 100.0, 20.0]))
        network.lowest.fill_(-1e6)
        network.highest.fill_(1e6)
    training = Training("digital patients", 0, {}, "")
    parts = ("custom", training, {"test": RADIOMICS_TEST}, {"probability_limit": 0.5}, "Apache-2.0", "Tests only.")
    return save_model(network, describe(name, config, *parts), folder)
