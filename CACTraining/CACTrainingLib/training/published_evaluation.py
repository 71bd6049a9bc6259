"""Evaluate a calcium map as van Velzen et al. do: in the heart, in slices that the classifier calls positive.

The classifier's limit is that of its published operating point. The map's voxels count unless they leave less than
−10 HU in the healthy image. What the paper lacks is the floor, below which a map is set to 0, because a sigmoid never
reaches it; several are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from CACScoringLib.core.tables import write_table
from CACScoringLib.core.version import commit
from CACScoringLib.models.cards import LoadedModel, find_model, load_model
from CACScoringLib.models.operating_points import PUBLISHED, operating_point
from CACScoringLib.models.preprocessing import LOW_HU, MAP_HU
from CACScoringLib.networks.configs import GeneratorConfig, SliceClassifierConfig

from ..data.datasets import SliceDataset
from .decomposition_metrics import near_calcium, predicted_maps
from .slices import calcium_probabilities

FLOORS_HU = (10.0, 20.0, 50.0, 100.0)
CLINICAL_HU = 130.0

COMPARATOR = "map-labels"
"""Bundled map that was learned from slice labels and drawn spots."""

READER = "reader at 130 HU"
"""The clinical rule near true calcium (`near_calcium`), in slices where it is visible."""

COLUMNS = (
    *("method", "floor_hu", "slice_limit", "classifier", "scans", "with_calcium"),
    *("sensitivity", "false_positive_rate", "f1", "pair_difference", "rank_correlation"),
    *("captured", "precision", "precision_visible", "slice_correlation", "preset", "settings", "seed", "commit"),
)
"""Columns of the table. `precision_visible` is the precision in slices with visible calcium, and `slice_correlation`
the correlation of the map's sum with the true one over these slices; `classifier` is the SHA-256 of its weights."""


def write_as_published(
    table: Path, model: LoadedModel, data: SliceDataset, device: str, training: Mapping[str, object]
) -> dict[str, object]:
    """Write a table with a row per method and floor: the trained map, `map-labels`, and a reader at 130 HU.

    Returns the trained map's measures at the lowest floor.

    Args:
        table: File to write, CSV.
        model: The trained generator.
        data: Slices of validation patients.
        device: Device of the networks.
        training: Preset, settings and seed of the training, for the model's rows.

    Raises:
        ModelError: A bundled model is missing, or the classifier states no published operating point.
    """
    comparator = load_model(find_model("decomposition", COMPARATOR).path, device)
    rows = rows_as_published({"model": model, COMPARATOR: comparator}, data, device)
    facts = {**training, "commit": commit()}
    rows = [{**row, **(facts if row["method"] == "model" else {})} for row in rows]
    write_table(table, COLUMNS, ({name: row.get(name, "") for name in COLUMNS} for row in rows))
    return {name: float(value) for name, value in rows[0].items() if isinstance(value, int | float | np.number)}


def rows_as_published(
    generators: Mapping[str, LoadedModel], data: SliceDataset, device: str
) -> list[dict[str, object]]:
    """Return the measures of each map at each floor, and of a reader at 130 HU, by name of COLUMNS.

    Args:
        generators: Generators by name.
        data: Slices. The true calcium of a scan without a map is unknown: it counts for detection alone.
        device: Device of the classifier.

    Raises:
        ModelError: The classifier is missing, or states no published operating point.
    """
    classifier = load_model(find_model("slices").path, device)
    limit = operating_point(classifier.card, PUBLISHED).threshold
    methods = [(name, floor) for name in generators for floor in FLOORS_HU] + [(READER, CLINICAL_HU)]
    # Sums in HU by slice and method: of the map, and of the map near true calcium.
    sums, hits = np.zeros((2, len(data), len(methods)))
    true_sums = np.zeros(len(data))
    for scan in range(len(data.scans)):
        slices = np.flatnonzero(data.scan == scan)
        true = np.maximum(data.true_map(slices)[:, 0] * MAP_HU, 0) * data.heart(slices) * data.scans[scan].has_map
        region = near_calcium(true)
        true_sums[slices] = true.sum((1, 2), dtype=np.float64)
        called = _is_called(classifier, data, slices, limit)
        number = 0
        for generator in generators.values():
            config = GeneratorConfig(**generator.card.config)
            predicted = predicted_maps(generator.network, config, data, slices[called], rule=True)
            for floor in FLOORS_HU:
                values = np.where(predicted >= floor, predicted, 0)
                sums[slices[called], number] = values.sum((1, 2), dtype=np.float64)
                hits[slices[called], number] = (values * region[called]).sum((1, 2), dtype=np.float64)
                number += 1
        hu = data.network_input(slices, 0, False)[:, 0] * MAP_HU + LOW_HU
        is_read = (hu >= CLINICAL_HU) & region & data.visible[slices, None, None]
        sums[slices, number] = hits[slices, number] = np.where(is_read, hu, 0).sum((1, 2), dtype=np.float64)
    used_classifier = {"slice_limit": limit, "classifier": classifier.card.sha256}
    rows = []
    for number, (name, floor) in enumerate(methods):
        measures = _measures(sums[:, number], hits[:, number], true_sums, data)
        if name == READER:  # Its HU are not those above healthy tissue, and it reads at true calcium alone.
            measures |= dict.fromkeys(("captured", "precision", "precision_visible", "slice_correlation"), "")
        else:
            measures |= used_classifier
        rows.append({"method": name, "floor_hu": floor, **measures})
    return rows


def pair_difference(sums: np.ndarray, patients: Sequence[str]) -> float | str:
    """Return the mean relative difference of two scans that are both positive; "" without such a pair.

    The absolute difference of the sums over their mean (van Velzen et al., figure 5 and section 4).

    Args:
        sums: Sum of the map in each scan.
        patients: Patient of each scan; the first two scans of a patient are a pair.
    """
    scans: dict[str, list[float]] = {}
    for patient, value in zip(patients, sums, strict=True):
        scans.setdefault(patient, []).append(float(value))
    pairs = [values[:2] for values in scans.values() if len(values) > 1 and min(values[:2]) > 0]
    return float(np.mean([2 * abs(a - b) / (a + b) for a, b in pairs])) if pairs else ""


def _is_called(classifier: LoadedModel, data: SliceDataset, slices: np.ndarray, limit: float) -> np.ndarray:
    """Return True for slices that the classifier calls positive at a limit, bool [n]."""
    config = SliceClassifierConfig(**classifier.card.config)
    return calcium_probabilities(classifier.network, config, data, slices) >= limit


def _measures(sums: np.ndarray, hits: np.ndarray, true_sums: np.ndarray, data: SliceDataset) -> dict[str, object]:
    """Return a method's measures over scans; empty where they are not defined.

    Args:
        sums: Sum of the map in each slice.
        hits: Its part near true calcium.
        true_sums: Sum of the true map, 0 in scans without one.
        data: The slices.
    """

    def by_scan(values: np.ndarray) -> np.ndarray:
        return np.bincount(data.scan, values, len(data.scans))

    scan_sums, visible = by_scan(sums), by_scan(data.visible) > 0
    has_map = np.array([scan.has_map for scan in data.scans])
    positive = scan_sums > 0
    is_visible = data.has_map & data.visible
    total, total_visible = sums[data.has_map].sum(), sums[is_visible].sum()
    return {
        "scans": len(data.scans),
        "with_calcium": int(visible.sum()),
        "sensitivity": positive[visible].mean() if visible.any() else "",
        "false_positive_rate": positive[~visible].mean() if not visible.all() else "",
        "f1": 2 * (positive & visible).sum() / max(1, positive.sum() + visible.sum()),
        "pair_difference": pair_difference(scan_sums, [scan.patient for scan in data.scans]),
        "rank_correlation": _correlation(stats.spearmanr, scan_sums[has_map], by_scan(true_sums)[has_map]),
        "captured": hits[data.has_map].sum() / true_sums.sum() if true_sums.any() else "",
        "precision": hits[data.has_map].sum() / total if total else "",
        "precision_visible": hits[is_visible].sum() / total_visible if total_visible else "",
        "slice_correlation": _correlation(stats.pearsonr, sums[is_visible], true_sums[is_visible]),
    }


def _correlation(function: Callable[..., Any], values: np.ndarray, true: np.ndarray) -> float | str:
    if len(values) < 3 or np.ptp(values) == 0 or np.ptp(true) == 0:
        return ""
    return float(function(values, true).statistic)
