"""Calcium maps learned from slice labels, beside maps learned from true maps and beside 130 HU, on digital pairs.

Run from the repository's root; what was measured of a scan is kept in OUTPUT (a folder) and not measured again:

    ./cac phantom --pairs 100 --first 83150 --protocol radiotherapy --range -84 66 --output PAIRS
    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/weak_labels.py --choose FOLDER ... --pairs PAIRS
        --maps CARD ... --slices CARD --output OUTPUT

All maps pass through the same steps, those of van Velzen et al.: the true heart, the slices that the classifier calls
positive, the map within the heart above 10 HU, with the −10 HU rule and without; no evidence by lesion, which is
calibrated for one map. The least mass that makes a scan positive is chosen on --choose (most F1), never on the pairs.
Comparators: all of 130 HU and more in the heart, the same at places where the coronary calcium lies (a reader who knows
every place), and the number of slices called positive, which knows nothing of calcium. Intervals: bootstrap over
patients, 95 %; p: bootstrap, paired on the pairs that both methods call positive in both scans.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models.cards import LoadedModel, load_model
from CACScoringLib.models.inference import predict
from CACScoringLib.models.preprocessing import LOW_HU, MAP_HU, SLICE_SPACING_MM, slice_input
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACScoringLib.scoring.scores import score_lesions
from CACTrainingLib.data.datasets import ScanSlices, load_slices, prepare
from CACTrainingLib.project.training_scan import scan_in
from CACTrainingLib.statistics.bootstrap import Bootstrap, Found, mean, paired_difference, ratio
from CACTrainingLib.statistics.regression import rank_correlation
from CACTrainingLib.training.decomposition_metrics import FLOOR_HU, MIN_HEALTHY_HU, REGION_PIXELS

COUNT, ALL_130, READER = "slices called positive", "130 HU in the heart", "130 HU at true places"
VOXEL_MM3 = float(np.prod(SLICE_SPACING_MM))
BATCH = 8


def measured(folder: Path, scan: ScanSlices, maps: Sequence[LoadedModel], slices: LoadedModel) -> list[dict]:
    """Of one scan, a row per method: pseudo-mass (HU·mm³ or the method's own unit), its part near true calcium, the
    true one, and mass per slice with and without visible calcium."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    rows = np.arange(len(scan.slices))
    config = slices.card.config
    inputs = slice_input(scan.slices, rows, config["neighbours"], config["position"], config["size"])
    called = predict(slices.network, inputs, BATCH)[0][:, 1] >= slices.card.calibration["slice_threshold"]
    true = np.maximum(scan.calcium(rows) * MAP_HU, 0) * scan.slices.heart
    near = ndimage.binary_dilation(
        true > FLOOR_HU, ndimage.generate_binary_structure(2, 1)[None], iterations=REGION_PIXELS
    )
    known = {
        "patient": truth["patient"],
        "scan": truth["scan"],
        "kind": scan.kind,
        "visible": bool(scan.visible.any()),
        "true": float(true.sum()) * VOXEL_MM3,
        "true_mg": sum(truth["scanned_mass_mg_by_artery"].values()),
    }
    found = [{**known, "method": COUNT, "mass": float(called.sum())}]
    seen = slice_input(scan.slices, rows)[:, 0] * MAP_HU + LOW_HU
    for model in maps:
        config = model.card.config
        inputs = slice_input(scan.slices, rows, config["neighbours"], config["position"])
        raw = predict(model.network, inputs, BATCH)[0][:, 0] * np.float32(MAP_HU)
        raw[(raw < FLOOR_HU) | ~scan.slices.heart] = 0
        for name, rule in ((model.card.name, None), (f"{model.card.name}, −10 HU rule", MIN_HEALTHY_HU)):
            kept = raw if rule is None else np.where(seen - raw >= rule, raw, 0)
            by_slice = kept.sum((1, 2)) * VOXEL_MM3
            found.append(
                {
                    **known,
                    "method": name,
                    "mass": float(by_slice[called].sum()),
                    "near": float(kept[called & near.any((1, 2))][near[called & near.any((1, 2))]].sum()) * VOXEL_MM3,
                    "ungated_positive": float(by_slice[scan.visible].sum()),
                    "ungated_negative": float(by_slice[~scan.visible].sum()),
                    "slices_positive": int(scan.visible.sum()),
                    "slices_negative": int((~scan.visible).sum()),
                }
            )
    ct = read_ct(folder / "ct.nii.gz")
    heart, places = (sitk.GetArrayFromImage(read_mask(folder / f"{name}.nii.gz")) for name in ("heart", "regions"))
    for name, mask in ((ALL_130, (heart != 0).astype(np.uint8)), (READER, places.astype(np.uint8))):
        lesions = find_lesions(ct.image, mask, ScoringRules()).lesions
        score = score_lesions(lesions, ct.image.GetSpacing(), ScoringRules())
        found.append({**known, "method": name, "mass": score.pseudo_mass_hu_mm3})
    return found


def gather(folders: Sequence[Path], output: Path, maps: Sequence[Path], slices: Path) -> list[dict]:
    """Rows of all scans, measured where they are not kept yet."""
    output.mkdir(parents=True, exist_ok=True)
    models = [load_model(path) for path in maps]
    classifier = load_model(slices)
    rows: list[dict] = []
    truths = sorted(path for folder in folders for path in folder.rglob("truth.json"))
    for n, path in enumerate(truths, 1):
        folder = path.parent
        kept = output / f"{folder.parent.name}-{folder.name}.json"
        known = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
        missing = [m for m in models if not any(row.get("sha256") == m.card.sha256 for row in known)]
        if missing or not known:
            scan = load_slices(prepare([scan_in(path)], "slices", output / "cache")[0])
            new = measured(folder, scan, missing, classifier)
            hashes = {m.card.name: m.card.sha256 for m in missing}
            new = [{**row, "sha256": hashes.get(row["method"].split(",")[0], "")} for row in new]
            known = [*known, *(row for row in new if row["sha256"] or not known)]
            kept.write_text(json.dumps(known), encoding="utf-8")
            print(f"\r{n} of {len(truths)}", end="", flush=True)
        wanted = {m.card.sha256 for m in models} | {""}
        rows += [row for row in known if row["sha256"] in wanted]
    return rows


def limits(rows: Sequence[dict]) -> dict[str, float]:
    """By method, the least mass that makes a scan positive with the highest F1."""
    chosen = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        mass, visible = np.array([row["mass"] for row in own]), np.array([row["visible"] for row in own])
        candidates = np.unique(mass[mass > 0])
        scores = [2 * (visible & (mass >= c)).sum() / (visible.sum() + (mass >= c).sum()) for c in candidates]
        chosen[method] = float(candidates[int(np.argmax(scores))])
    return chosen


def f1(weights: np.ndarray, found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """2 hits over the sum of found and true, per resample."""
    return ratio(weights, 2 * (found & true), found.astype(int) + true)


class Table:
    """The rows of all methods, and resamples of their patients. least: by method, the mass of a positive scan."""

    def __init__(self, rows: Sequence[dict], least: dict[str, float]) -> None:
        self.rows = {method: [row for row in rows if row["method"] == method] for method in least}
        self.least = least
        self.bootstrap = Bootstrap([row["patient"] for row in rows], np.random.default_rng(0))
        self.differences = {method: self._differences(method) for method in least}

    def column(self, method: str, name: str) -> np.ndarray:
        return np.array([row[name] for row in self.rows[method]])

    def found(self, method: str, statistic: Callable[[np.ndarray], np.ndarray]) -> Found:
        patients = [row["patient"] for row in self.rows[method]]
        return Found(statistic(self.bootstrap.weights(patients)), len(patients), len(set(patients)))

    def rank(self, method: str) -> Found:
        masses = self.column(method, "mass"), self.column(method, "true_mg")
        return self.found(method, lambda weights: rank_correlation(weights, *masses))

    def difference(self, method: str, patients: Sequence[object]) -> Found:
        values = np.array([self.differences[method][patient] for patient in patients])
        return Found(mean(self.bootstrap.weights(patients), values), len(values), len(values))

    def _differences(self, method: str) -> dict[object, float]:
        """By patient whose both scans are positive, |a − b| over their mean."""
        pairs: dict[object, list[float]] = {}
        for row in self.rows[method]:
            pairs.setdefault(row["patient"], []).append(row["mass"])
        least = self.least[method]
        return {p: abs(v[0] - v[1]) / np.mean(v) for p, v in pairs.items() if len(v) == 2 and min(v) >= least}


def report(table: Table) -> None:
    """Print what each method does, then how they differ."""
    for method in table.rows:
        print_method(table, method)
    print("\nRelative difference on identical pairs:")
    for other in (READER, ALL_130, COUNT):
        for method in table.rows:
            both = [patient for patient in table.differences[method] if patient in table.differences[other]]
            if method != other and len(both) > 1:
                first, second = table.difference(method, both), table.difference(other, both)
                change = paired_difference(first, second)
                print(
                    f"  {method} {first.estimate.value:.3f}, {other} {second.estimate.value:.3f}: "
                    f"{change.estimate}, p = {change.p:.3g}"
                )
    print("\nRank correlation with the truth, one map less the other:")
    maps = [method for method, own in table.rows.items() if "near" in own[0]]
    for first, second in itertools.combinations(maps, 2):
        change = paired_difference(table.rank(first), table.rank(second))
        print(f"  {first} less {second}: {change.estimate}, p = {change.p:.3g}")


def print_method(table: Table, method: str) -> None:
    """Print what one method does."""
    own = table.rows[method]
    patients, visible = [row["patient"] for row in own], table.column(method, "visible")
    mass = table.column(method, "mass")
    positive = mass >= table.least[method]
    print(f"\n{method} (positive from {table.least[method]:.3g}); {len(own)} scans of {len(set(patients))} patients")
    print("  F1 of scans", table.found(method, lambda weights: f1(weights, positive, visible)).estimate)
    print("  sensitivity", table.bootstrap.proportion(patients, positive, visible))
    for kind in ("distractor", "clean"):
        of = ~visible & (table.column(method, "kind") == kind)
        if of.any():
            print(f"  false positives, {kind}", table.bootstrap.proportion(patients, positive, of))
    print("  rank correlation with true mg", table.rank(method).estimate)
    if "near" in own[0]:
        near, wanted = table.column(method, "near"), table.column(method, "true")
        print("  captured", table.found(method, lambda weights: ratio(weights, near, wanted)).estimate)
        print("  precision", table.found(method, lambda weights: ratio(weights, near, mass)).estimate)
        print("  map per negative slice over map per positive slice, no classifier", _leakage(table, method).estimate)
    pairs = list(table.differences[method])
    print("  relative difference, positive pairs", table.difference(method, pairs).estimate)


def _leakage(table: Table, method: str) -> Found:
    def per_slice(weights: np.ndarray, kind: str) -> np.ndarray:
        return ratio(weights, table.column(method, f"ungated_{kind}"), table.column(method, f"slices_{kind}"))

    return table.found(method, lambda weights: per_slice(weights, "negative") / per_slice(weights, "positive"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", type=Path, nargs="+", required=True, help="scans to choose limits on")
    parser.add_argument("--pairs", type=Path, nargs="+", required=True, help="pairs to report on")
    parser.add_argument("--maps", type=Path, nargs="+", required=True, help="cards of decomposition models")
    parser.add_argument("--slices", type=Path, required=True, help="card of the slice classifier")
    parser.add_argument("--output", type=Path, required=True, help="folder of what was measured")
    parser.add_argument("--table", type=Path, help="write the pairs' rows here as CSV")
    arguments = parser.parse_args()
    chosen, rows = (
        gather(folders, arguments.output, arguments.maps, arguments.slices)
        for folders in (arguments.choose, arguments.pairs)
    )
    report(Table(rows, limits(chosen)))
    if arguments.table:
        with arguments.table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
