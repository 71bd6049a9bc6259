"""Comparison of a scan's results with its reference: scores, lesions, slices and heart.

The truth of digital patients has the slices with visible coronary calcium, the regions that a reader would paint, and
the HU that calcium adds to each voxel. For other scans a reader's outlines or scores are the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import mask_on_scan_grid
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import LAST_FILE, write_bytes_atomically
from CACScoringLib.core.labels import ARTERIES, MAIN_ARTERIES, Artery, NonCoronary, site_of
from CACScoringLib.io.reading import read_mask
from CACScoringLib.quality.calibration import recorded_facts
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.score_record import ScoreRecord
from CACScoringLib.record.scores import LesionSet, MethodScore
from CACScoringLib.report.pictures import patch_picture
from CACScoringLib.scoring.lesions import find_lesions, score_labels
from CACScoringLib.scoring.scores import method_score
from CACScoringLib.scoring.uncertainty import TOTAL
from CACScoringLib.statistics.masks import mask_agreement

from ..evaluation.jobs import JobSettings, job_key, kept_records
from ..phantom import LABEL_HU
from ..references.reference import VESSELS, Reference, ReferenceScan
from .records import HEART_MEASURES, HU_MM3, MG, ComparedScan, LesionRow, Scores, ScoringFacts, scores_of
from .scored_scan import CORONARY_MG_CM3, ScoredScan

VERSION = 9
"""Version of the comparison; stored records of another version are made again."""

RECORDS = "compared.jsonl"
"""File in the output folder with the comparison of each scan."""

PICTURES = 6
"""Most pictures of each kind per scan, of the largest lesions."""
PICTURE_MM = 60.0
REFERENCE_COLOUR, METHOD_COLOUR = (105, 240, 174), (255, 145, 0)


@dataclass(frozen=True)
class Job(ScoredScan):
    """Comparison of a scan with its reference, for a worker.

    Attributes:
        vessels: Vessels of the `Reference`.
        output: Folder for pictures of errors; None for no pictures.
    """

    scan: ReferenceScan
    vessels: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: VESSELS)
    output: Path | None = None

    @property
    def key(self) -> str:
        """Key of its record, derived from the scan and the files that it depends on."""
        scan = self.scan
        files = [self.folder / LAST_FILE, scan.heart, scan.lesions, scan.truth, *scan.files]
        content = (VERSION, scan.number, scan.patient, scan.total, dict(scan.vessels), dict(self.vessels), scan.labels)
        with_pictures = () if self.output is None else ("pictures",)
        return job_key(
            scan.name, *content, *with_pictures, files=[path for path in files if path is not None and path.exists()]
        )

    @cached_property
    def truth(self) -> dict[str, Any] | None:
        """Content of a digital scan's `truth.json`."""
        return None if self.scan.truth is None else self.scan.read_truth()

    @cached_property
    def per_mass(self) -> float:
        """HU·mm³ for one unit of mass."""
        return self.scan.hu_mm3_per_mass()

    @property
    def rules(self) -> ScoringRules:
        """Rules of the clinical score."""
        return self.record.methods["threshold"].rules

    @cached_property
    def labels(self) -> np.ndarray | None:
        """`Site` labels of the reference, uint8; all 0 if there is no coronary calcium, None if that is unknown."""
        scan = self.scan
        if scan.outlines is None:
            return np.zeros(self.ct.hu.shape, np.uint8) if scan.total == 0 else None
        labels = sitk.GetArrayFromImage(scan.outlines(self.ct))
        return labels if labels.any() or not scan.has_positive_label else None

    @cached_property
    def regions(self) -> np.ndarray | None:
        """The labels of coronary arteries."""
        return None if self.labels is None else np.where(self.labels <= max(Artery), self.labels, np.uint8(0))

    @cached_property
    def coronary(self) -> np.ndarray | None:
        """True where there is coronary calcium, bool; None if unknown."""
        if self.true_mg_cm3 is not None:
            return self.true_mg_cm3 >= CORONARY_MG_CM3
        return None if self.regions is None else self.regions > 0

    @cached_property
    def reference_lesions(self) -> LesionSet | None:
        """Lesions of the clinical rule in the regions."""
        return None if self.regions is None else find_lesions(self.ct, self.regions, self.rules).coronary

    @cached_property
    def visible_slices(self) -> dict[int, bool] | None:
        """Visibility of coronary calcium in each slice with known truth."""
        if self.truth:
            return {int(label["k"]): bool(label["visible"]) for label in self.truth["slices"]}
        if self.scan.labels is not None:
            return dict(self.scan.labels)
        return None if self.regions is None else dict(enumerate(np.any(self.regions, axis=(1, 2)).tolist()))

    @property
    def visible(self) -> bool | None:
        """True if coronary calcium is visible in the scan; None where that is unknown."""
        slices = self.visible_slices
        if slices is None:
            return None
        if self.truth or any(slices.values()):
            return any(slices.values())
        return None if self.regions is None else bool(self.regions.any())

    @cached_property
    def true_mg_cm3(self) -> np.ndarray | None:
        """Density of coronary calcium, negative lobes included; float32."""
        return self.image(self.scan.truth_file("calcium_map.nii.gz")) if self.truth else None

    @property
    def true_hu(self) -> np.ndarray | None:
        """HU that coronary calcium adds, negative lobes included; float32."""
        if not self.truth or self.true_mg_cm3 is None:
            return None
        return self.true_mg_cm3 * np.float32(self.truth["calcium_hu_per_mg_cm3"])


def compare_all(
    reference: Reference, folders: Sequence[Path | str], output: Path, work: JobSettings, pictures: bool = False
) -> list[ComparedScan | str]:
    """Compare the scans of a reference, or return the reason why one is not compared. Stored records are reused.

    Args:
        reference: The reference.
        folders: Folder of each scan's results, or the reason why it has none.
        output: Output folder, which keeps RECORDS.
        work: Workers and progress.
        pictures: True for pictures of errors.
    """
    vessels = {vessel: tuple(arteries) for vessel, arteries in reference.vessels.items()}
    jobs: list[tuple[str, Job] | str] = []
    for scan, folder in zip(reference.scans, folders, strict=True):
        job = folder if isinstance(folder, str) else Job(scan, folder, vessels, output if pictures else None)
        jobs.append(job if isinstance(job, str) else (job.key, job))
    return kept_records(jobs, output / RECORDS, compare, ComparedScan, work)


def compare(job: Job) -> ComparedScan:
    """Compare a scan.

    Raises CTError or OSError for files that cannot be read or do not fit each other, ValueError, KeyError or TypeError
    for their content.
    """
    record, methods, scan, truth = job.record, job.methods, job.scan, job.truth
    values: dict[str, dict[str, tuple[float, float]]] = {
        key: scores_of(methods[key], job.per_mass) for key in ("map", "automatic") if key in methods
    }
    total, vessels = scan.total, _given_vessels(job)
    if job.reference_lesions is not None:
        reader = method_score("reviewed", job.rules, job.reference_lesions)
        values["reader"] = _scores(reader, job.per_mass)
        total = reader.total.agatston if total is None else total
        vessels = vessels or _by_vessel(job)
    threshold, probabilities = _slice_threshold(record), record.slice_probabilities or ()
    count = float(sum(p is not None and p >= threshold for p in probabilities))
    values["slices"] = {TOTAL: (count, count)}
    if (true_hu := job.true_hu) is not None:
        values["noise_free"] = _noise_free(job, true_hu)
    visible = job.visible_slices
    with_probability = () if visible is None else [(visible[k], p) for k, p in enumerate(probabilities) if k in visible]
    heart, warnings = _heart(job)
    return ComparedScan(
        name=scan.name,
        patient=scan.patient,
        number=scan.number,
        folder=job.folder.name,
        unit=MG if truth else HU_MM3,
        values=values,
        total=total,
        vessels=vessels,
        has_outlines=job.labels is not None,
        lesions=(*_reference_rows(job), *_method_rows(job)),
        visible=job.visible,
        visible_arteries=None if job.regions is None else _arteries_in(job.regions),
        truth_mg=_truth_mg(truth),
        distractors=tuple(sorted({d["kind"] for d in truth["distractors"]})) if truth else (),
        slices=tuple((shows_calcium, p) for shows_calcium, p in with_probability if p is not None),
        slice_threshold=threshold,
        heart=heart,
        facts=_facts(job),
        warnings=warnings,
    )


def _given_vessels(job: Job) -> dict[str, float]:
    """Return the Agatston scores of vessels that came with the scan."""
    scores = job.scan.vessels
    if not scores and job.scan.total == 0:
        return dict.fromkeys(job.vessels, 0.0)
    return {vessel: scores[vessel] for vessel in job.vessels if vessel in scores}


def _by_vessel(job: Job) -> dict[str, float]:
    scores = dict.fromkeys(job.vessels, 0.0)
    assert job.reference_lesions is not None
    for lesion in job.reference_lesions.lesions:
        for vessel, arteries in job.vessels.items():
            if lesion.site.key in arteries:
                scores[vessel] += lesion.agatston
    return scores


def _slice_threshold(record: ScoreRecord) -> float:
    decomposed_from, published = record.slice_limits
    return (decomposed_from or 0.0) if published is None else published


def _scores(method: MethodScore, per_mass: float) -> Scores:
    """Scores of labels."""
    scores = {**{artery.key: method.arteries[artery] for artery in MAIN_ARTERIES}, TOTAL: method.total}
    return {part: (score.pseudo_mass_hu_mm3 / per_mass, score.agatston) for part, score in scores.items()}


def _noise_free(job: Job, true_hu: np.ndarray) -> Scores:
    """Scores of the noise-free map: mass of its positive part; arteries and Agatston score from voxels of LABEL_HU."""
    arteries = job.image(job.scan.truth_file("arteries.nii.gz"))
    rules = ScoringRules(name="adjusted Agatston", threshold_hu=LABEL_HU)
    scores = _scores(score_labels(job.ct, arteries, rules, true_hu), job.per_mass)
    positive = float(true_hu.sum(dtype=np.float64, where=true_hu > 0))
    mass = positive * math.prod(job.ct.image.GetSpacing()) / job.per_mass
    return scores | {TOTAL: (mass, scores[TOTAL][1])}


def _reference_rows(job: Job) -> list[LesionRow]:
    """Rows of the reference's lesions, the largest first, by each method."""
    if job.reference_lesions is None:
        return []
    ids = job.reference_lesions.id_map.reshape(-1)
    lesions = sorted(job.reference_lesions.lesions, key=lambda lesion: lesion.agatston, reverse=True)
    rows = []
    for method in job.methods:
        counted, missed = job.counted(method), 0
        for number, lesion in enumerate(lesions):
            shares = [np.count_nonzero(ids[placed.flat] == lesion.id) for placed in counted]
            named = counted[int(np.argmax(shares))].record.likely_artery if any(shares) else None
            picture = None
            if named is None and missed < PICTURES:
                missed += 1
                picture = _picture(job, np.flatnonzero(ids == lesion.id), method, f"missed-{method}-{missed}")
            mass = lesion.pseudo_mass_hu_mm3 / job.per_mass
            about = (True, lesion.site.key, True, named is not None, named, lesion.agatston, mass)
            rows.append(LesionRow(method, number, *about, picture=picture))
    return rows


def _method_rows(job: Job) -> list[LesionRow]:
    """Rows of the lesions that each method lists."""
    labels = None if job.labels is None else job.labels.reshape(-1)
    coronary = None if job.coronary is None else job.coronary.reshape(-1)
    rows = []
    for method in job.methods:
        listed, counted = job.listed(method), len(job.counted(method))
        truths = [None if coronary is None else bool(coronary[placed.flat].any()) for placed in listed]
        wrong = [n for n in range(counted) if truths[n] is False]
        wrong.sort(key=lambda n: listed[n].record.clinical_agatston, reverse=True)
        for n, placed in enumerate(listed):
            place = wrong.index(n) if n in wrong else PICTURES
            picture = None
            if place < PICTURES:
                picture = _picture(job, placed.flat, method, f"wrong-{method}-{place + 1}")
            at = None if labels is None or n not in wrong else _site_at(labels[placed.flat])
            lesion, artery = placed.record, placed.record.likely_artery
            scores = (lesion.clinical_agatston, lesion.pseudo_mass_hu_mm3 / job.per_mass)
            rows.append(LesionRow(method, n, False, artery, truths[n], n < counted, artery, *scores, at, picture))
    return rows


def _site_at(values: np.ndarray) -> str | None:
    sites = np.bincount(values[values > 0], minlength=1)
    return site_of(int(sites.argmax())).key if sites.any() else None


def _picture(job: Job, flat: np.ndarray, method: str, name: str) -> str | None:
    """Draw the slice that holds most of the voxels, with reference and method outlined.

    Returns:
        File relative to the output; None without one.
    """
    if job.output is None or job.coronary is None:
        return None
    is_counted = np.zeros(job.ct.hu.size, bool)
    for placed in job.counted(method):
        is_counted[placed.flat] = True
    k, j, i = np.unravel_index(flat, job.ct.hu.shape)
    most = int(np.bincount(k).argmax())
    in_slice = k == most
    outlines = ((job.coronary, REFERENCE_COLOUR), (is_counted.reshape(job.ct.hu.shape), METHOD_COLOUR))
    jpeg = patch_picture(job.ct, (most, j[in_slice].mean(), i[in_slice].mean()), outlines, PICTURE_MM)
    of_scan = job.folder.name if job.folder.is_relative_to(job.output) else f"results-{job.folder.name}"
    file = Path("pictures", of_scan, f"{name}.jpg")
    (job.output / file).parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(job.output / file, jpeg)
    return file.as_posix()


def site_name(key: str | None) -> str:
    """Name of `LesionRow.at`."""
    return next((site.full_name for site in NonCoronary if site.key == key), "nothing labelled there")


def _truth_mg(truth: Mapping[str, Any] | None) -> dict[str, float] | None:
    if not truth:
        return None
    masses = {TOTAL: truth["mass_mg"], **{artery: truth["mass_mg_by_artery"][artery] for artery in ARTERIES}}
    return {part: float(mass) for part, mass in masses.items()}


def _heart(job: Job) -> tuple[dict[str, float] | None, tuple[str, ...]]:
    path = job.scan.heart if job.scan.truth is None else job.scan.truth_file("heart.nii.gz")
    if path is None:
        return None, ()
    try:
        reference, _ = mask_on_scan_grid(read_mask(path), job.ct, "heart mask")
        heart = read_mask(job.folder / "heart.nii.gz")
        heart.CopyInformation(job.ct.image)
        agreement = mask_agreement(heart, job.ct.grid.image(reference))
        return dict(zip(HEART_MEASURES, agreement, strict=True)), ()
    except CTError as error:
        return None, (f"Its heart cannot be compared: {error}",)


def _arteries_in(regions: np.ndarray) -> tuple[str, ...]:
    labels = np.unique(regions)
    return tuple(artery.key for artery in Artery if artery in labels and artery.key in ARTERIES)


def _facts(job: Job) -> ScoringFacts:
    record = job.record
    scanner = job.truth["scanner"] if job.truth else {}  # images do not tell
    return ScoringFacts(
        models=record.models,
        warnings=record.warning_codes,
        severe=tuple(dict.fromkeys(warning.code for warning in record.warnings if warning.severe)),
        seconds=round(sum(record.seconds.values()), 2),
        decomposition_settings=record.decomposition_settings,
        candidate_evidence=record.candidate_evidence,
        calibration=calibration_facts(record, job.folder),
        hu_mm3_per_mass=job.per_mass,
        kvp=scanner.get("kvp", record.acquisition.kvp),
        slice_thickness_mm=scanner.get("slice_thickness_mm", record.acquisition.slice_thickness_mm),
        slice_spacing_mm=record.input.spacing_mm[2],
    )


def calibration_facts(record: ScoreRecord, folder: Path) -> dict[str, float | None] | None:
    """Return `ScoringFacts.calibration` of a scan's results.

    Raises CTError if the heart beside them cannot be read.
    """
    method = record.methods.get("threshold")
    if method is None or method.status != "automatic":
        return None
    if not all(lesion.verdict and lesion.verdict.kinds for lesion in (*method.lesions, *method.left_out)):
        return None
    heart = sitk.GetArrayFromImage(sitk.DICOMOrient(read_mask(folder / "heart.nii.gz"), "LPS")) != 0
    return recorded_facts(record, heart)
