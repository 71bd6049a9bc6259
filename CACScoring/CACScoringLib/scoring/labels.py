"""Labels that a score follows from: a reader's, checked and compared with where calcium is, all candidates, and those
of the calcium map. Labels by verdicts are those of `judge.verdicts`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..anatomy.heart_search import HEART_ML
from ..calcium_map.decomposition import DecomposedHeart, Decomposition, clear_map
from ..core.ct import CTScan, ScanWarning, mask_on_scan_grid
from ..core.errors import MaskError
from ..core.grid import bounding_box
from ..core.labels import MAIN_ARTERIES, SITES, Artery, Labelled, NonCoronary
from ..core.text import MASKS, abbreviated_list
from ..core.voxels import voxels_of
from ..facts.dense import DenseVoxels
from ..facts.measurement import ScanFacts
from ..record.rules import ScoringRules
from ..record.scores import COUNTED, LesionSet
from .judge import judge_map
from .lesions import find_lesions, labelled_voxels
from .parts import connected_voxels
from .score import LesionLabels
from .scores import rules_of_map
from .sites import complete_map, dense_voxels, verdicts_by_place
from .uncertainty import VerdictCalibration

MAX_LESION_ML, MAX_LESION_BELOW = 60.0, 0.9
"""Largest volume of a connected region of labels of which a larger share lies below the threshold. Calcium painted
roughly, 5 mm around, fills up to 18 mL in seven people and all arteries together about 40; hearts 300 to 1,500."""

LUNG_HU = -500.0
"""Highest mean of lungs, to name what a mask looks like."""

MAX_EMPTY_SHARE = 0.5
"""Proportion of labelled regions without calcium from which a label map does not fit its scan. A map in its place has
none, whether it was drawn along the calcium or roughly around it."""


_NOTE = "ITK_FileNotes"
"""Metadata of a label map that NIfTI stores (as `descrip`)."""


def with_status(labels: sitk.Image, status: str) -> sitk.Image:
    """Note the score's status in a label map (uint8), so that `status_of_own_labels` recognises an unchanged file."""
    labels.SetMetaData(_NOTE, _note(labels, status))
    return labels


def status_of_own_labels(labels: sitk.Image) -> str | None:
    """Return the status of a label map that CAC wrote and nobody changed since; None of other label maps."""
    note = labels.GetMetaData(_NOTE).split() if labels.HasMetaDataKey(_NOTE) else []
    return note[1] if len(note) == 3 and " ".join(note) == _note(labels, note[1]) else None


def _note(labels: sitk.Image, status: str) -> str:
    return f"CAC {status} {hashlib.sha256(voxels_of(labels).astype(np.uint8, copy=False).data).hexdigest()}"


MIN_CUT_VOXELS = 4
"""Number of labelled voxels beside unlabelled calcium up to which labels are taken as drawn along it."""


@dataclass(frozen=True)
class ReaderLabels:
    """A reader's lesions.

    Attributes:
        sites: `Site` of labelled voxels, else 0, uint8 [k, j, i].
        warnings: Doubts about the labels.
    """

    sites: np.ndarray
    warnings: tuple[ScanWarning, ...]

    @property
    def no_calcium(self) -> bool:
        """True if the reader labelled nothing in the arteries: there is no coronary calcium."""
        return not _in_arteries(self.sites).any()

    @property
    def has_elsewhere(self) -> bool:
        return bool((self.sites > max(Artery)).any())


def reader_labels(
    lesions: sitk.Image, scan: CTScan, rules: ScoringRules, keep_unassigned: bool = False
) -> ReaderLabels:
    """Bring a reader's label map, on any grid, to the scan's, and check that it lies on calcium by the rules.

    Args:
        lesions: The label map.
        scan: The scan.
        rules: The rules.
        keep_unassigned: Keep lesions of no artery, because `label_arteries.by_territory` assigns them.

    Raises:
        MaskError: It does not fit the scan, holds other labels, lesions of no artery alone, or the mask of an organ.
    """
    labels, warnings = mask_on_scan_grid(lesions, scan, "lesion label map", may_be_empty=True)
    sites = labels.copy()
    if unknown := set(np.unique(sites).tolist()) - {0, *SITES}:
        meaning = ", ".join(f"{site.value} {site.full_name if site > max(Artery) else site.key}" for site in SITES)
        raise MaskError(f"The lesion label map contains the label {max(unknown)}; valid labels are {meaning}.")
    in_arteries, unassigned = _in_arteries(sites), sites == Artery.UNASSIGNED
    count = int(unassigned.sum())
    if count and not keep_unassigned and (unassigned == in_arteries).all():
        raise MaskError(
            f"All {count} voxels of the lesion label map are labelled {int(Artery.UNASSIGNED)} (unassigned), so "
            "they have not been reviewed. Assign the coronary lesions to their arteries and clear the rest; an "
            "empty label map means that there is no coronary calcium."
        )
    doubts = _empty_warning(sites, in_arteries)
    if not keep_unassigned:
        sites[unassigned] = 0
        if count:
            message = f"{count} voxels are labelled {int(Artery.UNASSIGNED)} (unassigned) and were left out."
            doubts.append(ScanWarning("unassigned-left-out", message))
    require_lesions(sites, scan, rules.threshold_hu)
    misplaced = _misplaced_warning(sites, scan, rules)
    doubts += misplaced or label_doubts(labels != 0, scan.hu, rules.threshold_hu)
    return ReaderLabels(sites, (*warnings, *doubts))


def _empty_warning(sites: np.ndarray, in_arteries: np.ndarray) -> list[ScanWarning]:
    if not sites.any():
        message = "The lesion label map labels no voxel, so the score is 0: no coronary calcium."
        return [ScanWarning("labels-empty", message)]
    if not in_arteries.any():
        message = (
            "The lesion label map holds no artery, so the score is 0: no coronary calcium. If that is a mistake, score "
            "again with the right file."
        )
        return [ScanWarning("reviewed-empty", message)]
    return []


def _in_arteries(labels: np.ndarray) -> np.ndarray:
    return (labels > 0) & (labels <= max(Artery))


MIN_UNLABELLED = 10.0
"""Agatston score of lesions without a label from which they are mentioned."""


def unlabelled_warning(sites: np.ndarray, judged: LesionSet) -> list[ScanWarning]:
    """Mention lesions that the automatic score counts and no label touches. sites: As in `ReaderLabels`."""
    automatic = judged.part(site in MAIN_ARTERIES for site in judged.columns["site"])
    labelled = set(np.unique(automatic.id_map[sites > 0]).tolist())
    lesions = [lesion for lesion in automatic.lesions if lesion.id not in labelled]
    total = sum(lesion.agatston for lesion in lesions)
    if total < MIN_UNLABELLED:
        return []
    largest = max(lesions, key=lambda lesion: lesion.agatston)
    message = (
        f"The labels leave out {len(lesions)} lesion(s) that the automatic score counts, Agatston {total:.0f}; the "
        f"largest, {largest.agatston:.0f}, lies in the {largest.site.key} (slice {largest.slices[0]}, from 0 at the "
        "feet). Label them if they are coronary calcium."
    )
    return [ScanWarning("labels-doubtful", message)]


def require_lesions(sites: np.ndarray, scan: CTScan, threshold_hu: float) -> None:
    """Raise MaskError if a connected region of labels is as large as an organ and hardly holds calcium.

    The thoracic aorta is excepted: a region drawn roughly around its calcium is as large.

    Args:
        sites: As in `ReaderLabels`.
        scan: The scan.
        threshold_hu: HU from which voxels are dense.
    """
    labelled = (sites > 0) & (sites != NonCoronary.THORACIC_AORTA)
    if np.count_nonzero(labelled) * scan.voxel_volume_mm3 <= MAX_LESION_ML * 1000:
        return
    regions, _ = ndimage.label(labelled, np.ones((3, 3, 3)))
    sizes = np.bincount(regions.reshape(-1))
    sizes[0] = 0
    is_largest = regions == sizes.argmax()
    hu, volume_ml = scan.hu[is_largest], float(sizes.max()) * scan.voxel_volume_mm3 / 1000
    below = float((hu < threshold_hu).mean())
    if volume_ml <= MAX_LESION_ML or below <= MAX_LESION_BELOW:
        return
    label = int(np.bincount(sites[is_largest]).argmax())
    looks = f"It looks like the mask of a heart or pericardium, which belongs under {MASKS}."
    if hu.mean() < LUNG_HU:
        looks = "It looks like a mask of the lungs."
    elif not HEART_ML[0] <= volume_ml <= HEART_ML[1]:
        looks = "It looks like the mask of an organ or territory."
    raise MaskError(
        f"The lesion label map holds a connected region of {volume_ml:.0f} mL (label {label}), of which {below:.1%} "
        f"lie below {threshold_hu:g} HU: that is no lesion. {looks} Label the calcium alone."
    )


def _misplaced_warning(sites: np.ndarray, scan: CTScan, rules: ScoringRules) -> list[ScanWarning]:
    """Warn of labels that lie on no calcium, as of a mirrored or shifted map, or of another scan.

    sites: As in `ReaderLabels`.
    """
    flat = np.flatnonzero(sites)
    if not len(flat):
        return []
    region = connected_voxels(flat, np.zeros(len(flat), np.uint8), sites.shape)
    dense = np.isin(flat, find_lesions(scan, sites, rules).voxels.flat)
    count, empty = len(np.unique(region)), len(np.setdiff1d(region, region[dense]))
    below = float((scan.hu.reshape(-1)[flat] < rules.threshold_hu).mean())
    # Specks smaller than a lesion of the rule hold none either, but are drawn along what is dense.
    if empty < MAX_EMPTY_SHARE * count or below < MAX_EMPTY_SHARE:
        return _shift_warning(flat[dense], region[dense], sites, scan, rules) if dense.any() else []
    message = (
        f"{empty} of {count} labelled regions hold no calcium: {below:.0%} of the labelled voxels lie below "
        f"{rules.threshold_hu:g} HU. The label map may be mirrored, upside down or shifted, or belong to another scan."
    )
    return [ScanWarning("labels-off-calcium", message)]


_SIDES = {"left": (0, 1), "right": (0, -1), "posterior": (1, 0), "anterior": (-1, 0)}
"""Steps along rows and columns of a scan's array towards each side of the patient."""


def _shift_warning(
    flat: np.ndarray, region: np.ndarray, sites: np.ndarray, scan: CTScan, rules: ScoringRules
) -> list[ScanWarning]:
    """Warn of labels that end within dense components along most of one side, as of a map that is a voxel off.

    flat, region: Labelled voxels of lesions, and the labelled region of each.
    """
    k, j, i = np.unravel_index(flat, sites.shape)
    cut_sides = []
    for side, (down, right) in _SIDES.items():
        rows, columns = j + down, i + right
        beyond = (rows >= 0) & (rows < sites.shape[1]) & (columns >= 0) & (columns < sites.shape[2])
        next_voxels = k[beyond], rows[beyond], columns[beyond]
        is_end = sites[next_voxels] == 0
        is_cut = is_end & (scan.hu[next_voxels] >= rules.threshold_hu)
        ends, cuts = (np.bincount(region[beyond][mask], minlength=region.max() + 1) for mask in (is_end, is_cut))
        of_regions = cuts > ends / 2
        if cuts.sum() > max(ends.sum() / 2, MIN_CUT_VOXELS) and of_regions.sum() > len(np.unique(region)) / 2:
            cut_sides.append(side)
    if not cut_sides:
        return []
    message = (
        f"The labels end within the calcium along most of their {' and '.join(cut_sides)} side: dense voxels right "
        "beside them are not labelled. The label map may be shifted by a voxel."
    )
    return [ScanWarning("labels-off-calcium", message)]


def candidate_labels(facts: ScanFacts, calibration: VerdictCalibration) -> LesionLabels:
    """Label everything dense where arteries run, each lesion in the artery of its territory, by place alone.

    Args:
        facts: Facts of the scan.
        calibration: Temperature of the territories.
    """
    scan, has_territories = facts.scan, facts.region.territories is not None
    voxels = dense_voxels(facts.region, scan.hu >= facts.rules.threshold_hu, scan.grid)
    dense = find_lesions(scan, Labelled(voxels.flat, voxels.sites), facts.rules)
    if has_territories:
        by_place = iter(verdicts_by_place(dense.coronary, voxels, calibration.temperature))
        kinds = dense.columns["site"]
        dense = dense.with_columns(verdict=[next(by_place) if isinstance(x, Artery) else None for x in kinds])
    return LesionLabels("candidates", facts.rules, dense, knows_elsewhere=has_territories)


def labels_of_reader(
    facts: ScanFacts, reader: ReaderLabels, status: str = "reviewed", automatic: LesionLabels | None = None
) -> LesionLabels:
    """Label what a reader labelled.

    The networks' sites stand for a reader who labelled nothing outside the arteries.

    Args:
        facts: Facts of the scan.
        reader: The reader's labels.
        status: Status of the reader's labels: "reviewed" if a person vouches for them.
        automatic: Labels by verdicts; None for the sites of the territories.
    """
    scan, has_territories = facts.scan, facts.region.territories is not None
    is_open = (scan.hu >= facts.rules.threshold_hu) & (reader.sites == 0)
    if automatic is None:
        voxels = dense_voxels(facts.region, is_open, scan.grid)
    else:
        voxels = DenseVoxels.of(automatic.lesions.non_coronary, None)
        voxels = voxels.where(is_open.reshape(-1)[voxels.flat])
    is_other = (has_territories and not reader.has_elsewhere) & (voxels.sites > max(Artery))
    sites = labelled_voxels(reader.sites).with_labels(voxels.flat[is_other], voxels.sites[is_other])
    return LesionLabels(
        status,
        facts.rules,
        find_lesions(scan, sites, facts.rules),
        of_reader=(Artery, NonCoronary) if reader.has_elsewhere else (Artery,),
        knows_elsewhere=has_territories or reader.has_elsewhere,
        no_calcium=status == "reviewed" and reader.no_calcium,
    )


def map_labels(
    facts: ScanFacts,
    decomposed: DecomposedHeart,
    by_reader: Mapping[int, bool],
    calibration: VerdictCalibration,
    automatic: LesionLabels | None = None,
) -> tuple[LesionLabels, Decomposition, list[ScanWarning]]:
    """Label the lesions of the calcium map that count, and clear the others from the map.

    A reader's labels of lesions in the CT end at the threshold of the clinical rule, so they do not review the map.

    Args:
        facts: Facts of the scan.
        decomposed: Its calcium map.
        by_reader: A reader's overrides of slices.
        calibration: Calibration of verdicts.
        automatic: Labels by verdicts of everything dense; None where nothing was judged.

    Returns:
        The labels, the map of these lesions alone, and doubts about them.
    """
    scan, judged = facts.scan, None if automatic is None else automatic.judged
    warnings: list[ScanWarning] = []
    if judged is not None and not decomposed.parts.settings.without_completion:
        parts, count = complete_map(decomposed.parts, scan, judged.of_status(COUNTED), by_reader)
        decomposed = replace(decomposed, parts=parts)
        if count:
            message = (
                f"The calcium map shows less than half of {count} lesion(s) that count by the clinical rule; what "
                "exceeds blood was added there."
            )
            warnings.append(ScanWarning("map-completed", message))
    parts = decomposed.parts
    rules = rules_of_map(facts.rules, parts.settings.floor_hu, scan.acquisition.calcium_kvp)
    lesions = judge_map(facts, rules, decomposed, calibration, judged)
    counted = lesions.of_status(COUNTED)
    excluded = np.setdiff1d(lesions.every.flat, counted.voxels.flat, assume_unique=True)
    cleared = np.zeros(parts.hu.shape, bool)
    cleared.reshape(-1)[excluded] = True
    if count := len(lesions.ids) - len(counted.ids):
        subject = "1 lesion of the calcium map was" if count == 1 else f"{count} lesions of the calcium map were"
        message = f"{subject} left out, as probably noise or not coronary calcium."
        warnings.append(ScanWarning("map-left-out", message))
    return LesionLabels("automatic", rules, counted), clear_map(parts, cleared), warnings


MAX_MISSED_SHARE, MAX_MISSED_VOXELS = 0.1, 3
"""Dense voxels beside, above or below labelled dense voxels that may lack a label: per labelled dense voxel, and count.
In labels of seven people 0 to 5 %, and 3 at most where they are few; with half the lesions' slices, or a voxel off, 30
to 80 %. The count also holds for those above or below a lesion in one slice, as where labels end half-way: 3 at most in
these people; of labels that end at any slice, 66 of 94 exceed it, and the others end between lesions."""


def label_doubts(labelled: np.ndarray, hu: np.ndarray, threshold_hu: float) -> tuple[ScanWarning, ...]:
    """Warn of labels that miss a side or slices of the calcium that they lie on.

    Args:
        labelled: True for labelled voxels, [k, j, i].
        hu: The scan, likewise.
        threshold_hu: HU from which voxels are dense.
    """
    if not labelled.any():
        return ()
    box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in bounding_box(labelled))
    labelled = labelled[box]
    dense = hu[box] >= threshold_hu
    missed = ndimage.binary_dilation(labelled & dense) & dense & ~labelled
    number, total = np.count_nonzero(missed), np.count_nonzero(labelled & dense)
    if number <= max(MAX_MISSED_VOXELS, MAX_MISSED_SHARE * total) and not _ends_within_calcium(
        labelled & dense, missed
    ):
        return ()
    slices = abbreviated_list(str(k + box[0].start) for k in np.flatnonzero(missed.any((1, 2))))
    message = (
        f"{number} dense voxels right beside, above or below {total} labelled ones are not labelled (slice {slices}, "
        "from 0 at the feet), so parts of lesions are not counted."
    )
    return (ScanWarning("labels-doubtful", message),)


def _ends_within_calcium(labelled: np.ndarray, missed: np.ndarray) -> bool:
    """True if more than MAX_MISSED_VOXELS dense voxels lie unlabelled right above or below one lesion in one slice.

    Args:
        labelled: True for labelled dense voxels, [k, j, i].
        missed: True for unlabelled dense voxels beside, above or below them.
    """
    for beyond in (missed[1:] & labelled[:-1], missed[:-1] & labelled[1:]):
        for in_slice in beyond[beyond.any((1, 2))]:
            regions, _ = ndimage.label(in_slice, np.ones((3, 3)))
            if np.bincount(regions[in_slice]).max() > MAX_MISSED_VOXELS:
                return True
    return False
