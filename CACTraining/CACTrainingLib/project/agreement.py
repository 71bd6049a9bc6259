"""Measure the agreement of two annotators of the same scans: κ of slices, Dice of regions and of the heart.

A digital patient's truth counts as an annotator, so that annotators can be compared with it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import same_grid
from CACScoringLib.core.errors import CTError, ProjectError
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io import reading
from CACScoringLib.statistics import masks
from CACScoringLib.statistics.agreement import kappa
from CACScoringLib.statistics.bootstrap import Bootstrap, Estimate, patient_mean

from .annotation_files import MASK_KINDS, SliceLabel
from .annotations import TRUTH, annotators, read_annotated_mask, slice_annotations, truth_labels
from .files import ProjectScan
from .project import Project


@dataclass(frozen=True)
class PairAgreement:
    """Agreement of two annotators over all scans that both have annotated.

    Intervals are by a bootstrap over patients, NaN if there are too few; a value is NaN if it is not defined (no
    slices, or all of one label).

    Attributes:
        first: Name of the first annotator.
        second: Name of the second annotator.
        scans: Number of scans that both have annotated.
        slices: Number of slices that both have labelled, neither as unsure.
        unsure: Number of slices that both have labelled, at least one as unsure; not part of kappa and same.
        kappa: Cohen's κ of visible and not visible.
        same: Proportion of slices with the same label.
        regions: Mean Dice of regions of any artery, over scans with masks of both, of which one is not empty.
        heart: Mean Dice of the heart over the same kind of scans.
    """

    first: str
    second: str
    scans: int
    slices: int
    unsure: int
    kappa: Estimate
    same: Estimate
    regions: Estimate
    heart: Estimate


def agreement(project: Project, scan_ids: Iterable[str] | None = None) -> tuple[list[PairAgreement], tuple[str, ...]]:
    """Return the agreement of every pair of annotators of the scans (None for all scans), and warnings.

    Names that differ only by their capitals are one annotator. Raises ProjectError for an unknown scan.
    """
    scans = project.scans if scan_ids is None else [project.scan(id_) for id_ in scan_ids]
    warnings: list[str] = []
    pairs: dict[tuple[str, str], _Pair] = defaultdict(_Pair)
    names: dict[str, str] = {}
    for scan in scans:
        readers = _readers(project, scan, warnings)
        names = {reader.name.lower(): reader.name for reader in readers} | names
        for first, second in combinations(readers, 2):
            pairs[first.name.lower(), second.name.lower()].add(scan, first, second, warnings)
    rows = [pair.agreement(names[first], names[second]) for (first, second), pair in pairs.items()]
    return sorted(rows, key=lambda row: (row.second == TRUTH, row.first.lower(), row.second.lower())), tuple(warnings)


@dataclass(frozen=True)
class _Reader:
    """Annotator of a scan, or its truth. mask: Function that reads regions or heart, or returns None."""

    name: str
    labels: Mapping[int, SliceLabel]
    mask: Callable[[str], sitk.Image | None]


def _readers(project: Project, scan: ProjectScan, warnings: list[str]) -> list[_Reader]:
    """Return the annotators of a scan by name, and its truth last."""
    readers = []
    for name in sorted(annotators(project, scan.id), key=str.lower):
        slices = slice_annotations(project, scan.id, name)
        warnings += slices.warnings
        readers.append(_Reader(name, slices.labels, partial(read_annotated_mask, project, scan.id, name)))
    if scan.truth and readers:
        try:
            readers.append(_Reader(TRUTH, truth_labels(scan), partial(_true_mask, scan.truth.parent)))
        except ProjectError as error:
            warnings.append(f"{scan.name} was compared without its truth. {error}")
    return readers


def _true_mask(folder: Path, kind: str) -> sitk.Image | None:
    file = folder / f"{kind}.nii.gz"
    return sitk.DICOMOrient(reading.read_mask(file), "LPS") if file.is_file() else None


class _Pair:
    """Counts of two annotators' labels and overlaps of their masks, added scan by scan."""

    def __init__(self) -> None:
        self.scans = 0
        self.unsure = 0
        self.labels: list[tuple[str, bool, bool]] = []
        """Patient and both annotators' labels of each slice, True for visible."""
        self.dice: dict[str, list[tuple[str, float]]] = {kind: [] for kind in MASK_KINDS}

    def add(self, scan: ProjectScan, first: _Reader, second: _Reader, warnings: list[str]) -> None:
        shared_slices = sorted(set(first.labels) & set(second.labels))
        sure = [k for k in shared_slices if SliceLabel.UNSURE not in (first.labels[k], second.labels[k])]
        self.unsure += len(shared_slices) - len(sure)
        self.labels.extend(
            (scan.patient, first.labels[k] == SliceLabel.VISIBLE, second.labels[k] == SliceLabel.VISIBLE) for k in sure
        )
        is_compared = bool(shared_slices)
        for kind in MASK_KINDS:
            try:
                first_mask, second_mask = first.mask(kind), second.mask(kind)
                if first_mask is None or second_mask is None:
                    continue
                is_compared = True
                if (dice := _dice(first_mask, second_mask)) is not None:
                    self.dice[kind].append((scan.patient, dice))
            except CTError as error:
                warnings.append(f"The {kind} of {scan.name} were not compared. {error}")
        self.scans += is_compared

    def agreement(self, first: str, second: str) -> PairAgreement:
        slices = [Estimate(math.nan, math.nan, math.nan, 0)] * 2
        if self.labels:
            patients, *labels = zip(*self.labels, strict=True)
            visible, also_visible = map(np.array, labels)
            bootstrap = Bootstrap(patients, np.random.default_rng(0))
            kappas = bootstrap.result(partial(kappa, first=visible, second=also_visible, classes=2), patients)
            slices = [kappas.estimate, bootstrap.proportion(patients, visible == also_visible).estimate]
        dice = (patient_mean(self.dice[kind]) for kind in MASK_KINDS)
        return PairAgreement(first, second, self.scans, len(self.labels), self.unsure, *slices, *dice)


def _dice(first: sitk.Image, second: sitk.Image) -> float | None:
    """Return the Dice of labelled voxels, or None if both masks are empty. Raises ProjectError if grids differ."""
    if not same_grid(first, second):
        raise ProjectError("The two masks lie on different grids. Draw one of them again, on the scan itself.")
    return masks.dice(*(voxels_of(mask) > 0 for mask in (first, second)))
