"""What the whole method needs beside its networks, chosen on scans with known calcium: `cac calibrate`.

A generator's map always holds a little where there is no coronary calcium. Which of the map's lesions count is decided
by their pseudo-mass and their place (`DecompositionSettings`), so that few scans without coronary calcium score above
zero. Adjusted Agatston scores are higher than clinical ones, because no threshold cuts lesions off; the scale between
them is the ratio of both methods' mean scores, as in van Velzen et al., table 7.

The patients must be others than those that the networks learned from, and others than those that are reported on.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.ct import CTError, ScanWarning
from CACScoringLib.decomposition import DecompositionSettings
from CACScoringLib.models import load_model, read_card, update_card
from CACScoringLib.pipeline import Networks, ScoreSettings, score_scan
from CACScoringLib.progress import Progress
from CACScoringLib.reading import read_ct, read_mask
from CACScoringLib.scores import score_lesions

from .datasets import DataError, TrainingScan, find_scans

PLACE_LIMITS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MASS_STEPS = 40


@dataclass(frozen=True)
class FalsePositiveGoals:
    """Largest shares of scans that may score above zero: of those whose only calcium is not coronary, and of those
    without any."""

    distractor: float = 0.08
    clean: float = 0.04


@dataclass(frozen=True)
class MeasuredScan:
    """A scan scored with nothing left out of the map.

    kind: as in `datasets.KINDS`. visible: whether coronary calcium shows in any slice. lesions: float [n, 3], pseudo-
    mass in HU·mm³, probability that its place is not coronary, adjusted Agatston score of each lesion of the map.
    clinical_agatston: by the threshold, with the truth as the reader.
    """

    patient: str
    kind: str
    visible: bool
    lesions: np.ndarray
    clinical_agatston: float

    def kept(self, least_mass: float, most_not_coronary: float) -> np.ndarray:
        """Which lesions count, bool [n]."""
        return (self.lesions[:, 0] >= least_mass) & (self.lesions[:, 1] <= most_not_coronary)


def choose(scans: Sequence[MeasuredScan], goals: FalsePositiveGoals) -> tuple[dict[str, float], dict[str, object]]:
    """Calibration and what it achieves on these scans.

    Of all pairs of limits that keep to the goals, the one that finds calcium in most of the scans where it shows; of
    equal ones, the lowest mass. Raises DataError when a kind of scan that is needed is missing.
    """
    shown = [s for s in scans if s.visible]
    others = {kind: [s for s in scans if s.kind == kind] for kind in ("distractor", "clean")}
    if not shown or not all(others.values()):
        counts = ", ".join(f"{len(part)} {kind}" for kind, part in {"visible": shown, **others}.items())
        raise DataError(f"Calibration needs scans of all kinds; there are {counts}. Give more patients.")
    masses = np.concatenate([s.lesions[:, 0] for s in scans])
    steps = [0.0, *np.geomspace(1.0, max(2.0, float(masses.max(initial=0.0)) * 1.01), MASS_STEPS)]
    best: tuple[float, ...] | None = None
    for mass, place in itertools.product(steps, PLACE_LIMITS):
        shares = {kind: _above_zero(part, mass, place) for kind, part in others.items()}
        if all(shares[kind] <= getattr(goals, kind) for kind in shares):
            rank = (_above_zero(shown, mass, place), -mass, place)
            best = max(best, rank) if best else rank
    assert best is not None  # the highest mass leaves nothing
    mass, place = -best[1], best[2]
    adjusted = [float(s.lesions[s.kept(mass, place), 2].sum()) for s in scans]
    calibration = {"least_lesion_mass_hu_mm3": float(mass), "most_not_coronary": float(place)}
    if sum(adjusted) > 0:
        calibration["agatston_scale"] = float(np.mean([s.clinical_agatston for s in scans]) / np.mean(adjusted))
    achieved: dict[str, object] = {"sensitivity_scans": best[0], "scans_with_visible_calcium": len(shown)}
    for kind, part in others.items():
        achieved[f"above_zero_{kind}_scans"] = _above_zero(part, mass, place)
        achieved[f"scans_{kind}"] = len(part)
    achieved["patients"] = len({s.patient for s in scans})
    achieved["data"] = "digital patients apart from training; the calibration was chosen on the same scans"
    return calibration, achieved


def _above_zero(scans: Sequence[MeasuredScan], least_mass: float, most_not_coronary: float) -> float:
    return float(np.mean([s.kept(least_mass, most_not_coronary).any() for s in scans]))


def measure(scan: TrainingScan, heart: Path | None, slices: Path, decomposition: Path) -> MeasuredScan:
    """Score a scan with nothing left out of the map. Raises CTError."""
    import torch

    torch.set_num_threads(1)  # scans are scored side by side
    networks = Networks(heart and load_model(heart), load_model(slices), load_model(decomposition))
    everything = replace(
        DecompositionSettings.of(networks.slices, networks.decomposition),
        least_lesion_mass_hu_mm3=0.0,
        most_not_coronary=1.0,
    )
    ct = read_ct(scan.ct)
    result = score_scan(ct, ScoreSettings(decomposition=everything), networks=networks)
    method = result.methods["decomposition"]
    rows = []
    for lesion, suggestion in zip(method.lesions.lesions, method.suggestions, strict=True):
        score = score_lesions([lesion], ct.image.GetSpacing(), method.rules)
        rows.append((score.pseudo_mass_hu_mm3, suggestion.not_coronary_probability, score.agatston))
    regions = read_mask(scan.ct.parent / "regions.nii.gz")
    clinical = 0.0
    if sitk.GetArrayViewFromImage(regions).any():
        truth = score_scan(ct, heart=read_mask(scan.heart), lesions=regions)
        clinical = truth.methods["threshold"].total.agatston
    return MeasuredScan(
        patient=scan.patient,
        kind=scan.kind,
        visible=scan.shows_calcium(),
        lesions=np.array(rows, float).reshape(-1, 3),
        clinical_agatston=clinical,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `cac calibrate`."""
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="DIR", help="folder of scans")
    parser.add_argument("--heart", type=Path, metavar="CARD", help="card of the heart model (default: by the lungs)")
    parser.add_argument("--slices", type=Path, required=True, metavar="CARD", help="card of the model for slices")
    parser.add_argument(
        "--decomposition", type=Path, required=True, metavar="CARD", help="card that the calibration is written to"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="scans at work")


def run(arguments: argparse.Namespace, progress: Progress) -> Path:
    """Calibrate as the command line asks; returns the card that was changed. Raises CTError, OutputError."""
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
