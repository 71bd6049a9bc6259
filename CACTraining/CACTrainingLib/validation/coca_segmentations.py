"""Segmentations of COCA's scans that are not gated: https://github.com/datadoc1/COCA_NonGated_Segmentations (MIT).

As its README and `nrrd_to_yolo.py` have it: `nrrd/coronary segmentation.seg_N.nrrd`, a segmentation of scan N saved by
3D Slicer, whose segments' names and values stand in its header; eight classes: the left main, left anterior descending,
left circumflex, right coronary and posterior descending arteries, aortic and mitral valve, and the thoracic aorta.

How the segments are called within the files could not be looked up, so names are told by the words of the README's
table. The posterior descending artery is counted with the right coronary, from which it springs in most people.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTError, CTScan
from CACScoringLib.core.labels import Artery, NonCoronary, Site
from CACScoringLib.io.dicom import printable
from CACScoringLib.io.reading import read_mask

from ..project.importers.segmentation_labels import labels_on_grid, segments_of
from .reference import BY_RULE, VESSELS, BadReferenceError, Reference, ReferenceScan
from .scans import Counted, scans_below

TITLE = "segmentations of COCA's scans that are not gated"
_NAME = re.compile(r".*\.seg_(\d+)\.nrrd", re.IGNORECASE)

SITES: tuple[tuple[str, Site], ...] = (
    (r"left main|\blm(ca)?\b", Artery.LM),
    (r"left anterior|\blad\b", Artery.LAD),
    (r"circumflex|\blcx\b|\bcx\b", Artery.LCX),
    (r"right coronary|\brca\b|posterior descending|\bpda\b", Artery.RCA),
    (r"aortic valve", NonCoronary.AORTIC_VALVE),
    (r"mitral", NonCoronary.MITRAL_ANNULUS),
    (r"aorta", NonCoronary.THORACIC_AORTA),
)
"""What is found in a segment's name, in this order."""


def fits(source: Path) -> bool:
    return source.is_dir() and bool(_paths(source))


def _paths(source: Path) -> dict[str, Path]:
    """Files by the scan's number; those of the folder `nrrd` where there is one."""
    folder = source / "nrrd" if (source / "nrrd").is_dir() else source
    named = {match[1]: path for path in folder.glob("*.nrrd") if (match := _NAME.fullmatch(path.name))}
    return dict(sorted(named.items(), key=lambda item: int(item[0])))


def read(source: Path, scans: Path | None = None, progress: Counted | None = None) -> Reference:
    """The reference of a folder that `fits`. scans: COCA's deidentified_nongated. Raises BadReferenceError."""
    if scans is None:
        raise BadReferenceError(
            f"The {TITLE} come without them. Name COCA's folder deidentified_nongated with --scans."
        )
    by_id = scans_below(scans, progress)
    found, refused = [], []
    for number, path in _paths(source).items():
        try:
            scan = by_id.of(number)
            _sites(read_mask(path), path)
        except CTError as error:
            refused.append((number, str(error)))
            continue
        outlines = partial(_outlines, path)
        found.append(ReferenceScan(number, number, scan.ct, scan.series, outlines=outlines, files=(path,)))
    about = (
        "Calcium was segmented in the coronary arteries, the aortic and mitral valve and the thoracic aorta. "
        f"{BY_RULE} The posterior descending artery is counted with the right coronary artery."
    )
    return Reference(TITLE, about, "coca-segmentations", VESSELS, tuple(found), tuple(refused))


def _sites(image: sitk.Image, path: Path) -> list[tuple[sitk.Image, Site]]:
    """The segments that hold a voxel, each with its site. Raises BadReferenceError for an unknown name, or none."""
    segments = segments_of(image)
    if not segments:
        raise BadReferenceError(f"{path.name} has no segments in its header. Download it again.")
    found = []
    for name, mask in segments.items():
        words = name.lower().replace("_", " ")
        site = next((site for pattern, site in SITES if re.search(pattern, words)), None)
        if site is None and sitk.GetArrayViewFromImage(mask).any():
            raise BadReferenceError(
                f"The segment {printable(name)} of {path.name} is none of the eight classes. Rename it in 3D Slicer."
            )
        if site is not None:
            found.append((mask, site))
    return found


def _outlines(path: Path, scan: CTScan) -> sitk.Image:
    image = read_mask(path)
    parts = _sites(image, path)
    labels = np.zeros(sitk.GetArrayViewFromImage(parts[0][0]).shape, np.uint8)
    for mask, site in parts:
        labels[sitk.GetArrayViewFromImage(mask) > 0] = site
    merged = sitk.GetImageFromArray(labels)
    merged.CopyInformation(parts[0][0])
    return labels_on_grid(merged, scan, path, cropped=True)
