"""Label maps with CAC's own labels beside the CTs: NAME-lesions.nii.gz for NAME.nii.gz, or for the DICOM folder NAME.

Labels 1 LM, 2 LAD, 3 LCX, 4 RCA, 5 other coronary artery, 8 aortic valve, 9 mitral annulus, 10 thoracic aorta, 11
other calcium outside the coronary arteries (`core.labels`); or a segmentation of 3D Slicer (.seg.nrrd) with segments of
these names.
All coronary calcium has to be labelled: an empty map means that there is none.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.labels import SITES, Artery
from CACScoringLib.io.reading import IMAGE_ENDINGS, read_lesion_labels, stem

from ..project.importers.segmentation_labels import labels_on_grid
from ..project.importers.sources import LESIONS
from .reference import (
    BY_RULE,
    VESSELS,
    BadReferenceError,
    Counted,
    Reference,
    ReferenceScan,
    check_labels,
    read_each,
)

TITLE = "label maps"
MEANINGS = {int(site): site.full_name for site in SITES if site != Artery.UNASSIGNED}
ABOUT = f"Calcium was labelled by artery, and where it was, elsewhere. {BY_RULE}"


def fits(source: Path) -> bool:
    return source.is_dir() and bool(_paths(source))


def _paths(source: Path) -> list[Path]:
    named = (path for path in source.rglob(f"*{LESIONS}.*") if path.name.lower().endswith(IMAGE_ENDINGS))
    return sorted(path for path in named if stem(path).endswith(LESIONS) and not path.name.startswith("."))


def read(source: Path, progress: Counted | None = None) -> Reference:
    """The reference of a folder that `fits`, which holds its scans."""

    def scan(name: str, path: Path) -> ReferenceScan:
        check(path)
        return ReferenceScan(name, name, _ct_beside(path), outlines=partial(outlines, path), files=(path,))

    items = [
        (path.relative_to(source).with_name(stem(path).removesuffix(LESIONS)).as_posix(), path)
        for path in _paths(source)
    ]
    return Reference(TITLE, ABOUT, VESSELS, *read_each(items, scan, progress))


def check(path: Path) -> None:
    """Raises CTError where a label map cannot be read or holds a label of no meaning."""
    check_labels(read_lesion_labels(path), MEANINGS, path)


def outlines(path: Path, scan: CTScan) -> sitk.Image:
    """The labels of a file on the grid of its scan. Raises CTError where they do not fit it."""
    slicer = path.name.lower().endswith(".seg.nrrd")
    return labels_on_grid(read_lesion_labels(path), scan, path, cropped=slicer)


def _ct_beside(path: Path) -> Path:
    name = stem(path).removesuffix(LESIONS)
    beside = [p for p in sorted(path.parent.iterdir()) if (p.name if p.is_dir() else stem(p)) == name]
    found = [p for p in beside if p.is_dir() or p.name.lower().endswith(IMAGE_ENDINGS)]
    if len(found) != 1:
        raise BadReferenceError(f"{len(found)} CTs called {name} lie beside {path.name}; there should be one.")
    return found[0]
