"""What the whole method needs beside its networks, chosen on scans with known calcium: `cac calibrate`.

A generator's map always holds a little where there is no coronary calcium. Which slices are taken apart, and which of
the map's lesions count, by their pseudo-mass and their place (`DecompositionSettings`), is chosen so that few scans
without coronary calcium score above zero. Adjusted Agatston scores are higher than clinical ones, because no threshold
cuts lesions off; the scale between them is the ratio of both methods' mean scores, as in van Velzen et al., table 7.

The patients must be others than those that the networks learned from, and others than those that are reported on.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.arteries import ArterySuggestion
from CACScoringLib.ct import CTError, CTScan, ScanWarning
from CACScoringLib.decomposition import DecompositionSettings, assembled, raw_maps
from CACScoringLib.lesions import LesionSet, ScoringRules
from CACScoringLib.models import load_model, read_card, update_card
from CACScoringLib.pipeline import Networks, ScoreSettings, candidate_region, map_lesions, score_scan
from CACScoringLib.progress import Progress
from CACScoringLib.reading import read_ct, read_mask
from CACScoringLib.scores import score_lesions

from .datasets import DataError, TrainingScan, find_scans

PLACE_LIMITS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MASS_STEPS = 40
SLICE_THRESHOLDS = (0.1, 0.4)
"""Tried beside the threshold that the classifier's training chose."""
MAP_RULES = ((-10.0, 10.0), (-10.0, 25.0), (-10.0, 40.0), (None, 40.0))
"""Least HU of the healthy image (published: −10; None: no such rule) and floor of the map, tried together."""
OF_THE_MAP = ("slice_threshold", "min_healthy_hu", "floor_hu")


@dataclass(frozen=True)
class FalsePositiveGoals:
    """Largest shares of scans that may score above zero: of those whose only calcium is not coronary, and of those
    without any."""

    distractor: float = 0.08
    clean: float = 0.04


@dataclass(frozen=True)
class Limits:
    """What counts, as in `DecompositionSettings`."""

    slice_threshold: float
    min_healthy_hu: float | None
    floor_hu: float
    least_lesion_mass_hu_mm3: float
    most_not_coronary: float

    @property
    def of_the_map(self) -> tuple[float, float | None, float]:
        """What the map itself depends on."""
        return self.slice_threshold, self.min_healthy_hu, self.floor_hu


@dataclass(frozen=True)
class MeasuredScan:
    """A scan scored with nothing left out of the map.

    kind: as in `datasets.KINDS`. visible: whether coronary calcium shows in any slice. lesions: for every
    `Limits.of_the_map`, float [n, 3], pseudo-mass in HU·mm³, probability that its place is not coronary, and adjusted
    Agatston score of each lesion of the map. clinical_agatston: by the threshold, with the truth as the reader.
    """

    patient: str
    kind: str
    visible: bool
    lesions: dict[tuple[float, float | None, float], np.ndarray]
    clinical_agatston: float

    def agatston(self, limits: Limits) -> float:
        """Adjusted Agatston score of the lesions that count."""
        found = self.lesions[limits.of_the_map]
        kept = (found[:, 0] >= limits.least_lesion_mass_hu_mm3) & (found[:, 1] <= limits.most_not_coronary)
        return float(found[kept, 2].sum())


def choose(
    scans: Sequence[MeasuredScan], goals: FalsePositiveGoals
) -> tuple[dict[str, float | None], dict[str, object]]:
    """Calibration and what it achieves on these scans.

    Of all limits that keep to the goals, those that find calcium in most of the scans where it shows; of equal ones,
    the lowest mass, then the strictest threshold on slices, then the published rule. Raises DataError when a kind of
    scan is missing.
    """
    shown = [s for s in scans if s.visible]
    others = {kind: [s for s in scans if s.kind == kind] for kind in ("distractor", "clean")}
    if not shown or not all(others.values()):
        counts = ", ".join(f"{len(part)} {kind}" for kind, part in {"visible": shown, **others}.items())
        raise DataError(f"Calibration needs scans of all kinds; there are {counts}. Give more patients.")
    highest = max(float(found[:, 0].max(initial=0.0)) for s in scans for found in s.lesions.values())
    masses = [0.0, *np.geomspace(1.0, max(2.0, 1.01 * highest), MASS_STEPS)]
    ranked = []
    for of_the_map, mass, place in itertools.product(scans[0].lesions, masses, PLACE_LIMITS):
        limits = Limits(*of_the_map, float(mass), place)
        if all(_above_zero(part, limits) <= getattr(goals, kind) for kind, part in others.items()):
            rank = (_above_zero(shown, limits), -mass, limits.slice_threshold, limits.min_healthy_hu is not None, place)
            ranked.append((rank, limits))
    limits = max(ranked, key=lambda found: found[0])[1]  # there is one: the highest mass leaves nothing
    adjusted = [s.agatston(limits) for s in scans]
    calibration = asdict(limits)
    if sum(adjusted) > 0:
        calibration["agatston_scale"] = float(np.mean([s.clinical_agatston for s in scans]) / np.mean(adjusted))
    achieved: dict[str, object] = {
        "sensitivity_scans": _above_zero(shown, limits),
        "scans_with_visible_calcium": len(shown),
    }
    for kind, part in others.items():
        achieved[f"above_zero_{kind}_scans"] = _above_zero(part, limits)
        achieved[f"scans_{kind}"] = len(part)
    achieved["patients"] = len({s.patient for s in scans})
    achieved["data"] = "digital patients apart from training; the calibration was chosen on the same scans"
    return calibration, achieved


def _above_zero(scans: Sequence[MeasuredScan], limits: Limits) -> float:
    return float(np.mean([s.agatston(limits) > 0 for s in scans]))


def measure(scan: TrainingScan, heart: Path | None, classifier: Path, generator: Path) -> MeasuredScan:
    """Score a scan with nothing left out of the map. heart, classifier, generator: cards. Raises CTError."""
    import torch

    torch.set_num_threads(1)  # scans are scored side by side
    networks = Networks(heart and load_model(heart), load_model(classifier), load_model(generator))
    stored = DecompositionSettings.of(networks.slices, networks.decomposition)
    own = networks.slices.card.calibration.get("slice_threshold", stored.slice_threshold)
    everything = replace(stored, least_lesion_mass_hu_mm3=0.0, most_not_coronary=1.0)
    ct = read_ct(scan.ct)
    result = score_scan(ct, ScoreSettings(decomposition=everything), networks=networks)
    assert result.slices is not None
    arteries = candidate_region(result.heart)
    slices, probabilities = result.slices.slices, result.slices.on_grid
    thresholds = sorted({*SLICE_THRESHOLDS, own})
    maps, _ = raw_maps(slices, probabilities >= thresholds[0], networks.decomposition, everything.batch_size)
    lesions = {}
    for of_the_map in [(threshold, *rules) for threshold in thresholds for rules in MAP_RULES]:
        settings = replace(everything, **dict(zip(OF_THE_MAP, of_the_map, strict=True)))
        decomposed = probabilities >= settings.slice_threshold
        parts = assembled(ct, result.heart.mask, slices, maps, decomposed, settings)
        lesions[of_the_map] = _lesions(ct, *map_lesions(ct, result.heart, parts, arteries, ScoringRules(), False)[:3])
    regions = read_mask(scan.ct.parent / "regions.nii.gz")
    clinical = 0.0
    if sitk.GetArrayViewFromImage(regions).any():
        truth = score_scan(ct, heart=read_mask(scan.heart), lesions=regions)
        clinical = truth.methods["threshold"].total.agatston
    return MeasuredScan(
        patient=scan.patient,
        kind=scan.kind,
        visible=scan.shows_calcium(),
        lesions=lesions,
        clinical_agatston=clinical,
    )


def _lesions(ct: CTScan, found: LesionSet, rules: ScoringRules, suggestions: Sequence[ArterySuggestion]) -> np.ndarray:
    rows = []
    for lesion, suggestion in zip(found.lesions, suggestions, strict=True):
        score = score_lesions([lesion], ct.image.GetSpacing(), rules)
        rows.append((score.pseudo_mass_hu_mm3, suggestion.not_coronary_probability, score.agatston))
    return np.array(rows, float).reshape(-1, 3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `cac calibrate`."""
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="DIR", help="folder of scans")
    parser.add_argument("--heart", type=Path, metavar="CARD", help="card of the heart model (default: by the lungs)")
    parser.add_argument("--slices", type=Path, required=True, metavar="CARD", help="card of the model for slices")
    parser.add_argument("--decomposition", type=Path, required=True, metavar="CARD", help="card of the model for maps")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="scans at work")


def run(arguments: argparse.Namespace, progress: Progress) -> Path:
    """Calibrate as the command line asks, changing the cards of the classifier and of the generator.

    Returns the latter. Raises CTError, OutputError.
    """
    models = (arguments.heart, arguments.slices, arguments.decomposition)
    for path, network in zip(models, ("heart", "slices", "decomposition"), strict=True):
        if path is not None and read_card(path).network != network:
            raise DataError(f"{path} is a model for {read_card(path).network!r}, not for {network!r}.")
    progress.begin(["scans", "model"])
    with progress.step("scans"):
        measured = _measure_all(find_scans(arguments.data), models, arguments.workers, progress)
    with progress.step("model"):
        calibration, achieved = choose(measured, FalsePositiveGoals())
        achieved["models"] = {read_card(p).network: read_card(p).sha256 for p in models if p is not None}
        # The threshold belongs to the classifier: another one's map must not be cut by it.
        update_card(arguments.slices, {"slice_threshold": calibration.pop("slice_threshold")}, {})
        path = update_card(arguments.decomposition, calibration, {"whole_method": achieved})
    progress.done(path)
    return path


def _measure_all(
    scans: Sequence[TrainingScan], models: tuple[Path | None, Path, Path], workers: int, progress: Progress
) -> list[MeasuredScan]:
    """All scans that can be scored; why another cannot becomes a warning."""
    measured = []
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        jobs = {pool.submit(measure, scan, *models): scan for scan in scans}
        for number, job in enumerate(as_completed(jobs), 1):
            try:
                measured.append(job.result())
            except CTError as error:
                progress.warning(ScanWarning("scan-left-out", f"{jobs[job].ct}: {error}"))
            progress.counted(number, len(jobs))
    return sorted(measured, key=lambda scan: scan.patient)
