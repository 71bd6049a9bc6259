"""Repeatability limits of a study, stored on the card of the calcium map's model for `cac compare`."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from CACScoringLib.models.cards import list_models
from CACScoringLib.models.store import store_repeatability
from CACScoringLib.quality.calibration import Repeatability

from ..evaluation.jobs import StudyError
from .records import MG, StudyRecord, pairs_of
from .reproducibility import limits

_METHODS = {"decomposition": "map", "threshold": "reader", "automatic": "automatic"}
"""Method of the study by method of `Repeatability.limits`."""
_ACQUISITION = ("kvp", "slice_thickness_mm", "slice_spacing_mm")
_TOLERANCE = 1e-6


def store_limits(records: Sequence[StudyRecord], card: Path | None = None) -> Path:
    """Store the limits of a study's pairs; return the card.

    Args:
        records: Records of the study.
        card: Card of the calcium map's model; None for the installed model that scored the records.

    Raises:
        StudyError: The records give no limits, or were scored with several sets of models.
        ModelError: The card cannot be written.
    """
    content = repeatability_of(records)
    Repeatability.of(content)  # checks it as readers will
    return store_repeatability(card or _card(records), content)


def repeatability_of(records: Sequence[StudyRecord]) -> dict[str, object]:
    """Limits with their conditions, as `Repeatability.of` reads them. Raises StudyError.

    Patients with a scan outside the calibration range are left out.
    """
    out_of_range = {r.patient for r in records if "beyond-calibration" in r.facts.warnings}
    scored = [record for record in records if record.refused is None and record.patient not in out_of_range]
    setups = {str((r.facts.models, r.facts.decomposition_settings, r.facts.candidate_evidence)): r for r in scored}
    if len(setups) != 1:
        raise StudyError(
            f"The scans were scored with {len(setups)} sets of models and settings; a repeatability coefficient "
            "belongs to one. Evaluate with --overwrite."
        )
    first = scored[0]
    coefficients: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for name, method in _METHODS.items():
        if name == "automatic" and first.facts.candidate_evidence is None:
            continue  # without evidence all candidates count, which is no score
        for quantity, title in (("mass", "pseudo_mass_hu_mm3"), ("agatston", "agatston")):
            factor = _hu_mm3_per_mass(scored) if quantity == "mass" else 1.0
            if factor is None:
                continue
            for part in ("total", "artery"):
                if (fit := limits(scored, method, quantity, part)) is not None:
                    scaled = replace(fit, intercept=fit.intercept * factor, highest=fit.highest * factor)
                    coefficients.setdefault(name, {}).setdefault(title, {})[part] = asdict(scaled)
    if not coefficients:
        raise StudyError(f"{len(pairs_of(scored))} pairs are too few for a repeatability coefficient.")
    patients = list(dict.fromkeys(record.patient for record in scored))
    digital = first.truth is not None
    span = f" ({patients[0]} to {patients[-1]})" if digital else ""
    without = f"; {len(out_of_range)} whose scans are beyond the calibration are left out" if out_of_range else ""
    return {
        "digital": digital,
        "data": f"{len(patients)} {'digital ' if digital else ''}patients{span}, two scans each{without}",
        "date": datetime.date.today().isoformat(),
        "models": {model.network: model.sha256 for model in first.facts.models},
        "settings": first.facts.decomposition_settings,
        "acquisition": {name: ends for name in _ACQUISITION if (ends := _range(scored, name))},
        "limits": coefficients,
        "candidate_evidence": first.facts.candidate_evidence,
    }


def _hu_mm3_per_mass(records: Sequence[StudyRecord]) -> float | None:
    """HU·mm³ for one unit of mass; None if it differs between scans, so that limits in mg cannot be converted."""
    values = [record.facts.hu_mm3_per_mass for record in records]
    if records[0].unit == MG and max(values) - min(values) > _TOLERANCE * max(values):
        return None
    return values[0]


def _range(records: Sequence[StudyRecord], name: str) -> list[float] | None:
    values = [getattr(record.facts, name) for record in records]
    numbers = [float(value) for value in values if value is not None]
    return [min(numbers), max(numbers)] if numbers else None


def _card(records: Sequence[StudyRecord]) -> Path:
    """Card of the installed model that made the maps. Recalibrated copies of it have other names."""
    scored = next(record for record in records if record.refused is None)
    models = [(model.name, model.sha256) for model in scored.facts.models if model.network == "decomposition"]
    fitting = [model for model in list_models("decomposition") if (model.card.name, model.card.sha256) in models]
    if not fitting:
        raise StudyError("The model that scored the scans is not installed. Name its card as study.store_limits.")
    return fitting[-1].path
