"""Evaluate a calcium map as van Velzen et al. do: in the heart, in slices that the classifier calls positive.

The map's voxels count unless they leave less than −10 HU in the healthy image. What the paper lacks is the floor, below
which a map is set to 0, because a sigmoid never reaches it; several are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from CACScoringLib.core.tables import write_table
from CACScoringLib.core.version import commit
from CACScoringLib.models.cards import LoadedModel, find_model, load_model
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
    *("method", "floor_hu", "scans", "with_calcium", "sensitivity", "false_positive_rate", "f1"),
    *("pair_difference", "rank_correlation", "captured", "precision", "preset", "settings", "seed", "commit"),
)


def write_as_published(
    table: Path, model: LoadedModel, data: SliceDataset, device: str, training: Mapping[str, object]
) -> dict[str, object]:
    """Write a table with a row per method and floor: the trained map, `map-labels`, and a reader at 130 HU.

    Returns the trained map's measures at the lowest floor.

    Args:
        table: File to write, CSV.
        model: The trained generator.
        data: Slices of validation patients. The true calcium of a scan without a map is unknown: it counts for
            detection alone.
        device: Device of the networks.
        training: Preset, settings and seed of the training, for the model's rows.

    Raises:
        ModelError: A bundled model is missing.
    """
    classifier = load_model(find_model("slices").path, device)
    generators = {"model": model, COMPARATOR: load_model(find_model("decomposition", COMPARATOR).path, device)}
    methods = [(name, floor) for name in generators for floor in FLOORS_HU] + [(READER, CLINICAL_HU)]
    # Sums in HU by scan and method: of the map, and of the map near true calcium.
    sums, hits = np.zeros((2, len(data.scans), len(methods)))
    true_sums = np.zeros(len(data.scans))
    for scan in range(len(data.scans)):
        slices = np.flatnonzero(data.scan == scan)
        true = np.maximum(data.true_map(slices)[:, 0] * MAP_HU, 0) * data.heart(slices) * data.scans[scan].has_map
        region = near_calcium(true)
        true_sums[scan] = true.sum(dtype=np.float64)
        is_called = _is_called(classifier, data, slices)
        maps = []
        for generator in generators.values():
            config = GeneratorConfig(**generator.card.config)
            predicted = predicted_maps(generator.network, config, data, slices[is_called], rule=True)
            maps += [(np.where(predicted >= floor, predicted, 0), region[is_called]) for floor in FLOORS_HU]
        hu = data.network_input(slices, 0, False)[:, 0] * MAP_HU + LOW_HU
        maps.append((np.where((hu >= CLINICAL_HU) & region & data.visible[slices, None, None], hu, 0), region))
        sums[scan] = [values.sum(dtype=np.float64) for values, _ in maps]
        hits[scan] = [values[is_near].sum(dtype=np.float64) for values, is_near in maps]
    visible = np.bincount(data.scan, data.visible, len(data.scans)) > 0
    has_map = np.array([scan.has_map for scan in data.scans])
    patients = [scan.patient for scan in data.scans]
    facts = {**training, "commit": commit()}
    rows = []
    for number, (name, floor) in enumerate(methods):
        measures = _measures(sums[:, number], hits[:, number], true_sums, visible, has_map)
        measures["pair_difference"] = pair_difference(sums[:, number], patients)
        if name == READER:  # Its HU are not those above healthy tissue, and it reads at true calcium alone.
            measures |= {"captured": "", "precision": ""}
        rows.append({"method": name, "floor_hu": floor, **measures, **(facts if name == "model" else {})})
    write_table(table, COLUMNS, ({name: row.get(name, "") for name in COLUMNS} for row in rows))
    return {name: float(value) for name, value in rows[0].items() if isinstance(value, int | float | np.number)}


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


def _is_called(classifier: LoadedModel, data: SliceDataset, slices: np.ndarray) -> np.ndarray:
    """Return True for slices that the classifier calls positive as in scoring, bool [n]."""
    config = SliceClassifierConfig(**classifier.card.config)
    probabilities = calcium_probabilities(classifier.network, config, data, slices)
    return probabilities >= classifier.card.calibration["slice_threshold"]


def _measures(
    sums: np.ndarray, hits: np.ndarray, true_sums: np.ndarray, visible: np.ndarray, has_map: np.ndarray
) -> dict[str, object]:
    """Return a method's measures over scans; empty where they are not defined.

    Args:
        sums: Sum of the map in each scan.
        hits: Its part near true calcium.
        true_sums: Sum of the true map.
        visible: True for scans with visible calcium.
        has_map: True for scans whose true calcium is known.
    """
    positive = sums > 0
    known_sums, true = sums[has_map], true_sums[has_map]
    has_ranks = len(known_sums) > 2 and np.ptp(known_sums) > 0 and np.ptp(true) > 0
    return {
        "scans": len(sums),
        "with_calcium": int(visible.sum()),
        "sensitivity": positive[visible].mean() if visible.any() else "",
        "false_positive_rate": positive[~visible].mean() if not visible.all() else "",
        "f1": 2 * (positive & visible).sum() / max(1, positive.sum() + visible.sum()),
        "rank_correlation": stats.spearmanr(known_sums, true).statistic if has_ranks else "",
        "captured": hits[has_map].sum() / true.sum() if true.any() else "",
        "precision": hits[has_map].sum() / known_sums.sum() if known_sums.any() else "",
    }
