"""Make records of a study from a scan's results and its truth.

The truth of digital patients has the slices with visible coronary calcium, the regions that a reader would paint, and
the HU that calcium adds to each voxel. For other scans a reader's regions are the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.core.ct import mask_on_scan_grid
from CACScoringLib.core.errors import CTError, MaskError
from CACScoringLib.core.labels import ARTERIES, SITES, Artery
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.reading import read_lesion_labels, read_mask
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.score_record import ScoreRecord
from CACScoringLib.record.scores import LesionSet, MethodScore
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.scores import score_of, scores_by_site

from ..evaluation.scored_scan import ScoredScan
from ..phantom import LABEL_HU
from ..statistics.masks import mask_agreement
from .records import HU_MM3, MG, HeartAgreement, ScoringFacts, StudyRecord, Truth, Value
from .scans import StudyScan


def refused(scan: StudyScan, reason: str) -> StudyRecord:
    """Record of a scan that could not be scored, or whose truth could not be read."""
    return StudyRecord(scan.name, scan.patient, scan.number, HU_MM3 if scan.truth is None else MG, refused=reason)


def make_record(scan: StudyScan, folder: Path) -> StudyRecord:
    """Make the record of a scan from its folder of results.

    Raises CTError or OSError for files that cannot be read, ValueError, KeyError or TypeError for their content.
    """
    files = _Files(scan, folder)
    record, methods = files.record, files.methods
    if "map" not in methods:
        raise CTError("It was scored by the clinical rule alone. Score it with the networks, as cac evaluate does.")
    values = {key: value_of(methods[key], files.per_mass) for key in ("map", "automatic")}
    rules = record.methods["threshold"].rules
    if files.regions is not None:
        values["reader"] = _found_value(find_lesions(files.ct.image, files.regions, rules), files)
    threshold = record.slices_positive_from
    settings: Mapping[str, Any] = record.decomposition_settings or {}
    if threshold is None:
        threshold = float(settings["slice_threshold"])
    probabilities = record.slice_probabilities or ()
    count = float(sum(p is not None and p >= threshold for p in probabilities))
    values["slices"] = Value(count, count, {})
    if files.true_hu is not None:
        values["noise_free"] = _noise_free(files, files.true_hu)
    visible = files.visible_slices
    with_probability = () if visible is None else [(visible[k], p) for k, p in enumerate(probabilities) if k in visible]
    heart, warnings = _heart(files)
    return StudyRecord(
        name=scan.name,
        patient=scan.patient,
        number=scan.number,
        unit=MG if files.truth else HU_MM3,
        visible=files.visible,
        visible_arteries=None if files.regions is None else _arteries_in(files.regions),
        truth=_truth(files),
        values=values,
        slices=tuple((shows_calcium, p) for shows_calcium, p in with_probability if p is not None),
        slice_threshold=threshold,
        map_lesions=_map_lesions(files),
        heart=heart,
        facts=_facts(record, files),
        warnings=warnings,
    )


@dataclass(frozen=True)
class _Files(ScoredScan):
    """A scan with its results and its truth, or a reader's masks."""

    scan: StudyScan

    @cached_property
    def truth(self) -> dict[str, Any] | None:
        return None if self.scan.truth is None else self.scan.read_truth()

    @cached_property
    def per_mass(self) -> float:
        """HU·mm³ for one unit of mass."""
        return self.scan.hu_mm3_per_mass()

    @property
    def voxel_mm3(self) -> float:
        return math.prod(self.ct.image.GetSpacing())

    @cached_property
    def regions(self) -> np.ndarray | None:
        """A reader's `Artery` labels, uint8; None if nobody painted any, all 0 if the reader saw no calcium."""
        path = self.scan.lesions if self.scan.truth is None else self.scan.truth_file("regions.nii.gz")
        painted = None if path is None else read_lesion_labels(path)
        if painted is None or not voxels_of(painted).any():
            has_positive_label = any(shows for _, shows in self.scan.labels or ())
            none_seen = (painted is not None or self.scan.labelled_whole) and not has_positive_label
            return np.zeros(self.ct.hu.shape, np.uint8) if none_seen else None
        labels, _ = mask_on_scan_grid(painted, self.ct, "lesion label map")
        if unknown := set(np.unique(labels).tolist()) - {0, *SITES}:
            raise MaskError(f"{path} holds the label {max(unknown)}, which is not that of an artery or another site.")
        labels[labels >= Artery.UNASSIGNED] = 0
        return labels

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
    def true_hu(self) -> np.ndarray | None:
        """HU that coronary calcium adds, negative lobes included; float32."""
        if not self.truth:
            return None
        calcium = self.image(self.scan.truth_file("calcium_map.nii.gz"))
        calcium *= np.float32(self.truth["calcium_hu_per_mg_cm3"])
        return calcium


def value_of(method: MethodScore, per_mass: float) -> Value:
    """Value of a method. Lesions that no reader assigned count for the suggested artery.

    per_mass: HU·mm³ for one unit of mass.
    """
    arteries = dict.fromkeys(ARTERIES, (0.0, 0.0))
    for lesion in method.lesions:
        artery = lesion.likely_artery
        if artery in arteries:
            mass, agatston = arteries[artery]
            arteries[artery] = mass + lesion.pseudo_mass_hu_mm3 / per_mass, agatston + lesion.clinical_agatston
    total = method.total
    return Value(total.pseudo_mass_hu_mm3 / per_mass, total.clinical_agatston, arteries)


def _found_value(lesions: LesionSet, files: _Files) -> Value:
    scores = {a.key: score for a, score in scores_by_site(lesions.lesions, Artery).items() if a.key in ARTERIES}
    total = score_of(lesions.lesions)
    arteries = {name: (score.pseudo_mass_hu_mm3 / files.per_mass, score.agatston) for name, score in scores.items()}
    return Value(total.pseudo_mass_hu_mm3 / files.per_mass, total.agatston, arteries)


def _noise_free(files: _Files, true_hu: np.ndarray) -> Value:
    """Value of the noise-free map: mass of its positive part; arteries and Agatston score from voxels of LABEL_HU."""
    arteries = files.image(files.scan.truth_file("arteries.nii.gz"))
    box = _box_of(arteries)
    image, ct = (sitk.GetImageFromArray(np.ascontiguousarray(array[box])) for array in (true_hu, files.ct.hu))
    for part in (image, ct):
        part.SetSpacing(files.ct.image.GetSpacing())
    rules = ScoringRules(name="adjusted Agatston", threshold_hu=LABEL_HU)
    value = _found_value(find_lesions(image, np.ascontiguousarray(arteries[box]), rules, ct), files)
    positive = float(true_hu.sum(dtype=np.float64, where=true_hu > 0))
    return replace(value, mass=positive * files.voxel_mm3 / files.per_mass)


def _truth(files: _Files) -> Truth | None:
    if not files.truth:
        return None
    arteries = {artery: float(files.truth["mass_mg_by_artery"][artery]) for artery in ARTERIES}
    distractors = tuple(sorted({d["kind"] for d in files.truth["distractors"]}))
    return Truth(float(files.truth["mass_mg"]), arteries, distractors)


def _map_lesions(files: _Files) -> tuple[tuple[str, float, bool | None], ...]:
    """Artery and mass of each lesion of the map, and True if it holds coronary calcium, None if unknown."""
    true_hu = None if files.true_hu is None else files.true_hu.reshape(-1)
    return tuple(
        (
            lesion.record.site.key,
            lesion.record.pseudo_mass_hu_mm3 / files.per_mass,
            None if true_hu is None else bool((true_hu[lesion.flat] >= LABEL_HU).any()),
        )
        for lesion in files.lesions("map")
    )


def _box_of(labels: np.ndarray) -> tuple[slice, ...]:
    """Bounding box of the labels; one voxel if there are none."""
    return (ndimage.find_objects((labels > 0).view(np.uint8)) or [(slice(0, 1),) * 3])[0]


def _heart(files: _Files) -> tuple[HeartAgreement | None, tuple[str, ...]]:
    path = files.scan.heart if files.scan.truth is None else files.scan.truth_file("heart.nii.gz")
    if path is None:
        return None, ()
    try:
        reference, _ = mask_on_scan_grid(read_mask(path), files.ct, "heart mask")
        heart = read_mask(files.folder / "heart.nii.gz")
        heart.CopyInformation(files.ct.image)
        return HeartAgreement(*mask_agreement(heart, files.ct.grid.image(reference))), ()
    except CTError as error:
        return None, (f"Its heart cannot be compared: {error}",)


def _arteries_in(regions: np.ndarray) -> tuple[str, ...]:
    labels = np.unique(regions[_box_of(regions)])
    return tuple(artery.key for artery in Artery if artery in labels and artery.key in ARTERIES)


def _facts(record: ScoreRecord, files: _Files) -> ScoringFacts:
    scanner = files.truth["scanner"] if files.truth else {}  # images do not tell
    return ScoringFacts(
        models=record.models,
        warnings=record.warning_codes,
        decomposition_settings=record.decomposition_settings,
        candidate_evidence=record.candidate_evidence,
        hu_mm3_per_mass=files.per_mass,
        kvp=scanner.get("kvp", record.acquisition.kvp),
        slice_thickness_mm=scanner.get("slice_thickness_mm", record.acquisition.slice_thickness_mm),
        slice_spacing_mm=record.input.spacing_mm[2],
    )
