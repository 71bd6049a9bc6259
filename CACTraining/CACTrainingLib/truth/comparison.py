"""Comparison of one scan's scores with its reference: in total, by vessel and by lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.files import write_bytes_atomically
from CACScoringLib.core.labels import Artery, NonCoronary, site_of
from CACScoringLib.io.reading import read_mask
from CACScoringLib.quality.calibration import recorded_facts
from CACScoringLib.record.score_record import ModelRecord, ScoreRecord
from CACScoringLib.record.scores import LesionSet, MethodScore
from CACScoringLib.report.pictures import patch_picture
from CACScoringLib.scoring.lesions import find_lesions

from ..references.reference import Reference, ReferenceScan
from .scored_scan import ScoredScan

PICTURES = 6
"""Most pictures of each kind per scan, of the largest lesions."""
PICTURE_MM = 60.0
REFERENCE_COLOUR, METHOD_COLOUR = (105, 240, 174), (255, 145, 0)


@dataclass(frozen=True)
class OutlinedLesion:
    """A lesion of the reference.

    Attributes:
        vessel: Vessel of the reference; "other" for other arteries.
        agatston: Agatston score.
        volume_mm3: Volume in mm³.
        found: True for each method that counts any of it.
        named: Vessel that each method assigns, if found; None for a vessel that the reference does not distinguish.
        pictures: Picture, relative to the output, for each method that missed it.
    """

    vessel: str
    agatston: float
    volume_mm3: float
    found: dict[str, bool]
    named: dict[str, str | None]
    pictures: dict[str, str]


@dataclass(frozen=True)
class WrongLesion:
    """False positive of a method; `at` is the site that the reference labels there."""

    method: str
    vessel: str | None
    agatston: float
    at: str | None
    picture: str | None


@dataclass(frozen=True)
class ComparedScan:
    """A scan, scored and compared.

    Attributes:
        name: Name of the scan.
        patient: Patient ID.
        folder: Name of the folder of its results.
        total: Agatston score of the reference.
        vessels: Agatston score of the reference by vessel.
        measured: Agatston score by method.
        measured_vessels: Agatston score by method and vessel.
        lesions: Lesions of the reference; None without outlines.
        wrong: False positives of the methods; None without outlines.
        counts: Number of each method's lesions; empty without outlines.
        seconds: Duration of scoring.
        models: Models that scored.
        warnings: Codes of the warnings.
        coronary: True for each `MethodScore.listed` lesion of the clinical score where the reference has coronary
            calcium; None without outlines.
        facts: Facts for the calibration range; None if the clinical score is not automatic, or by an earlier version.
    """

    name: str
    patient: str
    folder: str
    total: float
    vessels: dict[str, float]
    measured: dict[str, float]
    measured_vessels: dict[str, dict[str, float]]
    lesions: tuple[OutlinedLesion, ...] | None
    wrong: tuple[WrongLesion, ...] | None
    counts: dict[str, int]
    seconds: float
    models: tuple[ModelRecord, ...]
    warnings: tuple[str, ...]
    coronary: tuple[bool, ...] | None = None
    facts: dict[str, float | None] | None = None


@dataclass(frozen=True)
class Job(ScoredScan):
    """Comparison of a scan with its reference, for a worker.

    Attributes:
        vessels: Vessels of the `Reference`.
        output: Folder of the validation, for pictures.
    """

    scan: ReferenceScan
    vessels: dict[str, tuple[str, ...]]
    output: Path


def compare(job: Job) -> ComparedScan:
    """Compare a scan. Raises CTError and OSError for files that cannot be read or do not fit each other."""
    record, methods = job.record, job.methods
    scan, vessels = job.scan, scan_vessels(job)
    total, lesions, wrong, counts, coronary = scan.total, None, None, {}, None
    if scan.outlines is not None or total == 0:
        places = _Places(job)
        lesions, wrong = places.outlined(), places.wrong()
        counts = {key: len(lesions_of_method) for key, lesions_of_method in places.counted.items()}
        coronary = places.coronary_candidates() if "automatic" in methods else None
        if scan.outlines is not None:
            by_vessel, outlined_total = places.scores()
            total = outlined_total if total is None else total
            vessels = vessels or by_vessel
    assert total is not None
    return ComparedScan(
        name=scan.name,
        patient=scan.patient,
        folder=job.folder.name,
        total=total,
        vessels=vessels,
        measured={key: method.total.clinical_agatston for key, method in methods.items()},
        measured_vessels={key: _by_vessel(method, job) for key, method in methods.items()},
        lesions=lesions,
        wrong=wrong,
        counts=counts,
        seconds=round(sum(record.seconds.values()), 2),
        models=record.models,
        warnings=record.warning_codes,
        coronary=coronary,
        facts=calibration_facts(record, job.folder),
    )


def scan_vessels(job: Job) -> dict[str, float]:
    """Agatston score of the reference by vessel."""
    scores = job.scan.vessels
    if not scores and job.scan.total == 0:
        return dict.fromkeys(job.vessels, 0.0)
    return {vessel: scores[vessel] for vessel in job.vessels if vessel in scores}


def _vessel(artery: str, vessels: dict[str, tuple[str, ...]]) -> str | None:
    return next((vessel for vessel, arteries in vessels.items() if artery in arteries), None)


def _by_vessel(method: MethodScore, job: Job) -> dict[str, float]:
    scores = dict.fromkeys(job.vessels, 0.0)
    for lesion in method.lesions:
        vessel = _vessel(lesion.likely_artery, job.vessels)
        if vessel is not None:
            scores[vessel] += lesion.clinical_agatston
    return scores


class _Places:
    """Voxels of calcium by the reference and by each method. Arrays are [k, j, i] on the scan's grid."""

    def __init__(self, job: Job) -> None:
        ct, methods = job.ct, job.methods
        self._job, self._ct = job, ct
        self._labels = np.zeros(ct.hu.shape, np.uint8)
        if job.scan.outlines is not None:
            self._labels = sitk.GetArrayFromImage(job.scan.outlines(ct))
        self._coronary = (self._labels > 0) & (self._labels <= max(Artery))
        inside = np.where(self._coronary, self._labels, np.uint8(0))
        self._reference: LesionSet = find_lesions(ct, inside, job.record.methods["threshold"].rules)
        self._listed = {key: job.lesions(key) for key in methods}
        self.counted = {key: listed[: len(methods[key].lesions)] for key, listed in self._listed.items()}
        self._masks = {key: np.zeros(ct.hu.shape, bool) for key in methods}
        for key, lesions in self.counted.items():
            for lesion in lesions:
                self._masks[key].reshape(-1)[lesion.flat] = True

    def scores(self) -> tuple[dict[str, float], float]:
        """Agatston score of the reference by vessel, and in total."""
        by_vessel = dict.fromkeys(self._job.vessels, 0.0)
        for lesion in self._reference.lesions:
            vessel = _vessel(lesion.site.key, self._job.vessels)
            if vessel is not None:
                by_vessel[vessel] += lesion.agatston
        return by_vessel, sum(lesion.agatston for lesion in self._reference.lesions)

    def outlined(self) -> tuple[OutlinedLesion, ...]:
        outlined = []
        pictures_of = dict.fromkeys(self.counted, 0)
        ids = self._reference.id_map.reshape(-1)
        for lesion in sorted(self._reference.lesions, key=lambda lesion: lesion.agatston, reverse=True):
            names, hits, pictures = {}, {}, {}
            for key, counted in self.counted.items():
                shares = [np.count_nonzero(ids[method_lesion.flat] == lesion.id) for method_lesion in counted]
                hits[key] = any(shares)
                if hits[key]:
                    names[key] = _vessel(counted[int(np.argmax(shares))].record.likely_artery, self._job.vessels)
                elif pictures_of[key] < PICTURES:
                    pictures_of[key] += 1
                    voxels = np.flatnonzero(ids == lesion.id)
                    pictures[key] = self._picture(voxels, key, f"missed-{key}-{pictures_of[key]}")
            vessel = _vessel(lesion.site.key, self._job.vessels) or "other"
            outlined.append(OutlinedLesion(vessel, lesion.agatston, lesion.volume_mm3, hits, names, pictures))
        return tuple(outlined)

    def wrong(self) -> tuple[WrongLesion, ...]:
        wrong = []
        coronary, labels = self._coronary.reshape(-1), self._labels.reshape(-1)
        for key, counted in self.counted.items():
            uncovered = [lesion for lesion in counted if not coronary[lesion.flat].any()]
            for n, lesion in enumerate(sorted(uncovered, key=lambda o: o.record.clinical_agatston, reverse=True)):
                values = labels[lesion.flat]
                sites = np.bincount(values[values > 0], minlength=1)
                site = site_of(int(sites.argmax())).key if sites.any() else None
                picture = self._picture(lesion.flat, key, f"wrong-{key}-{n + 1}") if n < PICTURES else None
                vessel = _vessel(lesion.record.likely_artery, self._job.vessels)
                wrong.append(WrongLesion(key, vessel, lesion.record.clinical_agatston, site, picture))
        return tuple(wrong)

    def coronary_candidates(self) -> tuple[bool, ...]:
        """True for each lesion listed with the clinical score where the reference has coronary calcium."""
        coronary = self._coronary.reshape(-1)
        return tuple(bool(coronary[lesion.flat].any()) for lesion in self._listed["automatic"])

    def _picture(self, flat: np.ndarray, key: str, name: str) -> str:
        """Draw the slice that holds most of the voxels, with reference and method outlined.

        Returns:
            File relative to the output.
        """
        k, j, i = np.unravel_index(flat, self._ct.hu.shape)
        most = int(np.bincount(k).argmax())
        in_slice = k == most
        outlines = ((self._coronary, REFERENCE_COLOUR), (self._masks[key], METHOD_COLOUR))
        jpeg = patch_picture(self._ct, (most, j[in_slice].mean(), i[in_slice].mean()), outlines, PICTURE_MM)
        file = Path("pictures", self._job.folder.name, f"{name}.jpg")
        (self._job.output / file).parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(self._job.output / file, jpeg)
        return file.as_posix()


def site_name(key: str | None) -> str:
    """Name of `WrongLesion.at`."""
    return next((site.full_name for site in NonCoronary if site.key == key), "nothing labelled there")


def jobs_of(reference: Reference, folders: Sequence[Path | str], output: Path) -> list[Job | str]:
    """Job of each scan, or the reason why it was not scored."""
    vessels = {vessel: tuple(arteries) for vessel, arteries in reference.vessels.items()}
    pairs = zip(reference.scans, folders, strict=True)
    return [folder if isinstance(folder, str) else Job(scan, folder, vessels, output) for scan, folder in pairs]


def calibration_facts(record: ScoreRecord, folder: Path) -> dict[str, float | None] | None:
    """Return `ComparedScan.facts` of a scan's results. Raises CTError if the heart beside them cannot be read."""
    method = record.methods.get("threshold")
    if method is None or method.status != "automatic":
        return None
    if not all(lesion.verdict and lesion.verdict.kinds for lesion in (*method.lesions, *method.left_out)):
        return None
    heart = sitk.GetArrayFromImage(sitk.DICOMOrient(read_mask(folder / "heart.nii.gz"), "LPS")) != 0
    return recorded_facts(record, heart)
