"""The whole method on digital scan pairs that no network has seen, against truth and beside its rivals.

Run from the repository's root, with the cards of the models (the bundled ones when none are named):

    PYTHONPATH=CACScoring:CACTraining python Testing/Benchmarks/method_pairs.py --first 600000 --pairs 60 \\
        [--heart CARD] [--slices CARD] [--decomposition CARD] [--variants] [--rows rows.json]

Rivals: "ideal 130 HU" knows the arteries and every region with visible calcium perfectly; "automatic 130 HU" scores all
candidates in the same heart; "slices" merely counts the slices that the classifier calls positive. Variants of the
method, each off by itself: nothing left out of the map, without the −10 HU rule, without the slice classifier.

Intervals are 95 % bootstrap intervals over patients. True positive scans show coronary calcium in some slice; all else
is a false positive, told apart by whether calcium is there but hidden, only not coronary, or absent. All of this is
digital: no figure here says how the method does in patients.
"""

import argparse
import itertools
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage, stats

from CACScoringLib.ct import CTError
from CACScoringLib.models import find_model, load_model, read_card
from CACScoringLib.pipeline import Networks, ScoreResult, ScoreSettings, score_scan
from CACTrainingLib.phantom.cohort import CohortSettings, make_scan
from CACTrainingLib.phantom.export import as_ct_scan, image_on

RESAMPLES = 2000
LEAST_HU, NEAR_VOXELS = 10.0, 2
SIZES_MG = (0.0, 1.0, 3.0, 10.0, 30.0, 1000.0)
METHODS = ("map", "ideal 130 HU", "automatic 130 HU", "slices")
VARIANTS = {
    "nothing left out": {"most_not_coronary": 1.0},
    "without -10 HU rule": {"min_healthy_hu": None},
    "without classifier": {"slice_threshold": 0.0},
}


def rows_of_patient(number: int, protocol: str, cards: dict[str, Path], variants: bool) -> list[dict]:
    """Both scans of a patient, scored every way; pseudo-masses in mg."""
    import torch

    torch.set_num_threads(1)
    networks = Networks(
        cards["heart"] and load_model(cards["heart"]), load_model(cards["slices"]), load_model(cards["decomposition"])
    )
    rows = []
    for scan_number in (1, 2):
        patient, scan, labels = make_scan(number, scan_number, CohortSettings(protocol))
        ct = as_ct_scan(scan, patient)
        row = {
            "patient": number,
            "scan": scan_number,
            "true": patient.mass_mg,
            "distractors": sorted({d.kind for d in patient.distractors}),
            "visible": any(label.visible for label in labels.slices),
        }
        rows.append(row)
        try:
            result = score_scan(ct, networks=networks)
        except CTError as error:
            row["refused"] = str(error)
            continue
        per_mg = 1000 * scan.scanner.calcium_hu_per_mg_cm3
        ideal = None
        if labels.regions.any():
            truth = [image_on(scan.grid, a) for a in (scan.heart.astype(np.uint8), labels.regions)]
            ideal = score_scan(ct, heart=truth[0], lesions=truth[1])
        row["map"] = _mass(result, "decomposition") / per_mg
        row["ideal 130 HU"] = _mass(ideal, "threshold") / per_mg if ideal else 0.0
        row["automatic 130 HU"] = _mass(result, "threshold") / per_mg
        row["map Agatston"] = result.methods["decomposition"].scaled_agatston or 0.0
        row["ideal Agatston"] = ideal.methods["threshold"].total.agatston if ideal else 0.0
        row["slice_labels"] = _slice_labels(result, labels)
        # At the threshold that the classifier's training chose; the method may take more slices apart (cac calibrate).
        own = networks.slices.card.validation["threshold"]
        row["slices"] = float(sum(p >= own for _, p in row["slice_labels"]))
        row["lesions"] = [_lesion(x, scan, per_mg) for x in _map_lesions(result)]
        row["true lesions"] = _true_lesions(result, scan, per_mg)
        if variants:
            for name, change in VARIANTS.items():
                changed = ScoreSettings(decomposition=replace(result.decomposition.settings, **change))
                other = score_scan(ct, changed, heart=result.heart.mask, networks=networks)
                row[name] = _mass(other, "decomposition") / per_mg
    return rows


def _mass(result: ScoreResult, method: str) -> float:
    return result.methods[method].total.pseudo_mass_hu_mm3


def _slice_labels(result: ScoreResult, labels) -> list[tuple[bool, float]]:
    """Truth and probability of each slice of the scan that shows heart to both."""
    known = {label.k: label.visible for label in labels.slices}
    return [(known[k], float(p)) for k, p in enumerate(result.slices.on_scan) if k in known and not np.isnan(p)]


def _map_lesions(result: ScoreResult) -> list[np.ndarray]:
    """Voxels of each lesion of the map, and the map there."""
    found = result.methods["decomposition"].lesions
    return [found.id_map == lesion.id for lesion in found.lesions]


def _lesion(voxels: np.ndarray, scan, per_mg: float) -> bool:
    """Whether there is coronary calcium in a lesion of the map."""
    return bool((scan.calcium_mg_cm3[voxels] * per_mg / 1000 >= 10).any())


def _true_lesions(result: ScoreResult, scan, per_mg: float) -> list[tuple[float, float]]:
    """Of each connected part of the true map from LEAST_HU on: its mass and that of the calcium map near it, mg."""
    true = np.maximum(scan.calcium_mg_cm3, 0) * per_mg / 1000
    found = sitk.GetArrayViewFromImage(result.decomposition.calcium_map)
    labels, _ = ndimage.label(true >= LEAST_HU, np.ones((3, 3, 3)))
    voxel_mm3 = float(np.prod(scan.grid.spacing_mm))
    lesions = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        near = tuple(slice(max(0, part.start - NEAR_VOXELS), part.stop + NEAR_VOXELS) for part in box)
        own = ndimage.binary_dilation(labels[near] == number, np.ones((1, 3, 3)), NEAR_VOXELS)
        masses = (image[near][own].sum(dtype=np.float64) * voxel_mm3 / per_mg for image in (true, found))
        lesions.append(tuple(map(float, masses)))
    return lesions


def lesions_by_size(rows: list[dict], generator: np.random.Generator) -> None:
    """How much of each true lesion is in the map, by its mass."""
    print("\ntrue lesions by their mass in the scan: share with anything in the map, captured mass over true mass")
    for low, high in itertools.pairwise(SIZES_MG):
        parts = [{**r, "size": [x for x in r["true lesions"] if low <= x[0] < high]} for r in rows]
        lesions = [x for part in parts for x in part["size"]]
        if len(lesions) < 5:
            continue
        found = lambda p: np.mean([x[1] > 0 for r in p for x in r["size"]] or [np.nan])  # noqa: E731
        captured = lambda p: np.divide(*np.sum([x for r in p for x in r["size"]] or [(np.nan, np.nan)], 0)[::-1])  # noqa: E731
        shown = f"{interval(parts, found, generator)}  {interval(parts, captured, generator)}"
        print(f"  {low:5.1f} to {high:5.1f} mg   {shown}  n={len(lesions)}")
    lesions = np.array([x for r in rows for x in r["true lesions"]])
    print(f"  rank correlation over lesions {stats.spearmanr(*lesions.T)[0]:.3f}, n={len(lesions)}")


def interval(rows: list[dict], statistic, generator: np.random.Generator) -> str:
    """A statistic of rows with its 95 % bootstrap interval over patients."""
    patients: dict[int, list[dict]] = {}
    for row in rows:
        patients.setdefault(row["patient"], []).append(row)
    groups = list(patients.values())
    values = []
    for _ in range(RESAMPLES):
        # A patient drawn twice is two patients.
        chosen = enumerate(generator.integers(len(groups), size=len(groups)))
        drawn = [{**row, "patient": place} for place, n in chosen for row in groups[n]]
        value = statistic(drawn)
        if np.isfinite(value):
            values.append(value)
    low, high = np.percentile(values, (2.5, 97.5)) if values else (np.nan, np.nan)
    return f"{statistic(rows):6.3f} [{low:.3f}, {high:.3f}]"


def pairs_of(rows: list[dict], name: str) -> np.ndarray:
    """Values of both scans of each patient: float [n, 2]."""
    found: dict[int, dict[int, float]] = {}
    for row in rows:
        found.setdefault(row["patient"], {})[row["scan"]] = row[name]
    return np.array([(pair[1], pair[2]) for pair in found.values() if len(pair) == 2]).reshape(-1, 2)


def relative_difference(pairs: np.ndarray) -> float:
    """Mean of |a − b| / mean(a, b)."""
    return float(np.mean(np.abs(pairs[:, 0] - pairs[:, 1]) / pairs.mean(1))) if len(pairs) else np.nan


def agreement(pairs: np.ndarray) -> float:
    """ICC, two-way random effects, absolute agreement, single measurement (Shrout and Fleiss 1979, ICC(2,1))."""
    n, k = pairs.shape
    mean = pairs.mean()
    between = k * ((pairs.mean(1) - mean) ** 2).sum() / (n - 1)
    columns = n * ((pairs.mean(0) - mean) ** 2).sum() / (k - 1)
    rest = ((pairs - pairs.mean(1, keepdims=True) - pairs.mean(0) + mean) ** 2).sum() / ((n - 1) * (k - 1))
    return float((between - rest) / (between + (k - 1) * rest + k * (columns - rest) / n))


def detection(rows: list[dict], name: str) -> dict[str, float]:
    """Sensitivity, false-positive rate and F1 of scans."""
    positive = np.array([row[name] > 0 for row in rows])
    true = np.array([row["visible"] for row in rows])
    hits = (positive & true).sum()
    return {
        "sensitivity": hits / true.sum(),
        "false positives": (positive & ~true).sum() / (~true).sum(),
        "F1": 2 * hits / (positive.sum() + true.sum()),
    }


def table(rows: list[dict], names: tuple[str, ...], generator: np.random.Generator) -> None:
    """Every method against truth, and between the scans of a pair."""
    sorts = {
        "hidden coronary calcium": [r for r in rows if r["true"] > 0 and not r["visible"]],
        "only other calcium": [r for r in rows if r["true"] == 0 and r["distractors"]],
        "no calcium": [r for r in rows if r["true"] == 0 and not r["distractors"]],
    }
    for name in names:
        print(f"\n{name}")
        truth = [r["true"] for r in rows]

        def rank(part, name=name):
            return stats.spearmanr([r[name] for r in part], [r["true"] for r in part])[0]

        print(f"  rank correlation with true mass, all scans      {interval(rows, rank, generator)}  n={len(truth)}")
        shown = [r for r in rows if r["true"] > 0]
        print(f"  … scans with coronary calcium                   {interval(shown, rank, generator)}  n={len(shown)}")
        if name != "slices":
            slope = lambda p, name=name: np.polyfit([r["true"] for r in p], [r[name] for r in p], 1)[0]  # noqa: E731
            linear = lambda p, name=name: np.corrcoef([r["true"] for r in p], [r[name] for r in p])[0, 1]  # noqa: E731
            print(f"  slope on true mass                              {interval(shown, slope, generator)}")
            print(f"  linear correlation with true mass               {interval(shown, linear, generator)}")
        for what in ("sensitivity", "false positives", "F1"):
            pick = lambda p, name=name, what=what: detection(p, name)[what]  # noqa: E731
            print(f"  scans: {what:40s} {interval(rows, pick, generator)}")
        for sort, part in sorts.items():
            if part:
                share = lambda p, name=name: np.mean([r[name] > 0 for r in p])  # noqa: E731
                print(f"  above zero, {sort:35s} {interval(part, share, generator)}  n={len(part)}")
        icc = lambda p, name=name: agreement(pairs_of(p, name))  # noqa: E731
        print(f"  ICC of the pairs                                {interval(rows, icc, generator)}")


def compare(rows: list[dict], names: tuple[str, ...], generator: np.random.Generator) -> None:
    """Interscan difference on identical pairs, the method's less the rival's."""
    print("\ninterscan relative difference of the map, and of a rival, on pairs where both are positive in both scans")
    for rival in names[1:]:
        both = _positive_in_both(rows, "map", rival)
        if len(both) < 4:
            print(f"  {rival:20s} only {len(both) // 2} pairs")
            continue
        own = relative_difference(pairs_of(both, "map"))
        other = relative_difference(pairs_of(both, rival))

        def difference(part, rival=rival):
            return relative_difference(pairs_of(part, "map")) - relative_difference(pairs_of(part, rival))

        change = interval(both, difference, generator)
        print(f"  {rival:20s} {own:.3f} against {other:.3f}; difference {change}  n={len(both) // 2} pairs")


def _positive_in_both(rows: list[dict], *names: str) -> list[dict]:
    chosen = {row["patient"] for row in rows}
    for name in names:
        found: dict[int, int] = {}
        for row in rows:
            found[row["patient"]] = found.get(row["patient"], 0) + (row[name] > 0)
        chosen &= {patient for patient, count in found.items() if count == 2}
    return [row for row in rows if row["patient"] in chosen]


def slices_and_lesions(rows: list[dict], generator: np.random.Generator, threshold: float) -> None:
    """The classifier on slices, and how many of the map's lesions hold coronary calcium."""

    def labels(part):
        pairs = [pair for row in part for pair in row["slice_labels"]]
        return np.array([t for t, _ in pairs], bool), np.array([p for _, p in pairs])

    def auc(part):
        true, p = labels(part)
        return stats.mannwhitneyu(p[true], p[~true]).statistic / (true.sum() * (~true).sum())

    rates = {
        "accuracy": lambda part: np.mean((labels(part)[1] >= threshold) == labels(part)[0]),
        "sensitivity": lambda part: np.mean(labels(part)[1][labels(part)[0]] >= threshold),
        "false positives": lambda part: np.mean(labels(part)[1][~labels(part)[0]] >= threshold),
        "AUC": auc,
    }
    true = labels(rows)[0]
    print(f"\nslices (n={len(true)}, {true.sum()} with visible calcium, at {threshold:.3f})")
    for name, rate in rates.items():
        print(f"  {name:20s} {interval(rows, rate, generator)}")
    total = sum(len(r["lesions"]) for r in rows)
    if total:
        right = lambda p: sum(map(sum, (r["lesions"] for r in p))) / max(1, sum(len(r["lesions"]) for r in p))  # noqa: E731
        print(f"lesions of the map that hold coronary calcium: {interval(rows, right, generator)}  n={total}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=600000, help="number of the first patient")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--protocol", default="radiotherapy")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--rows", type=Path, help="file of all results; read again when it is there")
    for network in ("heart", "slices", "decomposition"):
        parser.add_argument(f"--{network}", type=Path, help=f"card of the model for {network}")
    options = parser.parse_args()
    cards = {n: getattr(options, n) or find_model(n).path for n in ("heart", "slices", "decomposition")}
    if options.rows and options.rows.exists():
        rows = json.loads(options.rows.read_text())
    else:
        numbers = range(options.first, options.first + options.pairs)
        with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
            jobs = [pool.submit(rows_of_patient, n, options.protocol, cards, options.variants) for n in numbers]
            rows = []
            for number, job in zip(numbers, jobs, strict=True):
                rows += job.result()
                print(f"patient {number}", flush=True)
        if options.rows:
            options.rows.write_text(json.dumps(rows))
    generator = np.random.default_rng(0)
    refused = [row for row in rows if "refused" in row]
    rows = [row for row in rows if "refused" not in row]
    print(f"{len(rows)} scans of {len({r['patient'] for r in rows})} digital patients; {len(refused)} refused")
    names = METHODS + tuple(name for name in VARIANTS if name in rows[0])
    table(rows, names, generator)
    compare(rows, names, generator)
    lesions_by_size(rows, generator)
    slices_and_lesions(rows, generator, read_card(cards["slices"]).validation["threshold"])


if __name__ == "__main__":
    main()
