"""References as label maps: with CAC's own labels, with named labels, or as orCaScore (MICCAI 2014) published them.

With CAC's own labels: NAME-lesions.nii.gz for NAME.nii.gz, or for the DICOM folder NAME. Labels 1 LM, 2 LAD, 3 LCX,
4 RCA, 5 other coronary artery, 8 aortic valve, 9 mitral annulus, 10 thoracic aorta, 11 other calcium outside the
coronary arteries (`core.labels`); or a segmentation of 3D Slicer (.seg.nrrd) with segments of these names. All coronary
calcium has to be labelled: an empty map means that there is none.

With named labels: a segmentation of 3D Slicer per scan, NAME.seg.nrrd, or label maps with a dataset.json that names
their labels, as nnU-Net has it. Names are those of `core.labels.site_called`: "Left Anterior Descending", "Posterior
Descending", "Aortic Valve", "Mitral Valve", "Aorta" … A scan is found by NAME, or by its number, below --scans.

orCaScore, as the challenge's pages have it: `TRV<vendor>P<patient>CTI.mhd` is the CT without contrast, `…R.mhd` its
reference, with the labels 1 LAD (calcium of the left main counts as LAD), 2 LCX and 3 RCA; `…CTAI.mhd` is the contrast
scan, which is not scored. Lesions were set at 130 HU (http://orcascore.isi.uu.nl/data/, doi:10.1118/1.4945696); the
names of the files are those of the archived download page, as torch_em's loader cites it. The test set (TE) was
published without labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.files import read_json
from CACScoringLib.core.labels import SITES, Artery, Site, site_called
from CACScoringLib.core.text import printable
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.reading import IMAGE_ENDINGS, read_lesion_labels, read_mask, stem
from CACScoringLib.scans.folder import SEGMENTATION_ENDING

from ..project.importers.segmentation_labels import labels_on_grid
from ..project.importers.sources import HEART, LESIONS
from .reference import (
    BY_RULE,
    VESSELS,
    VESSELS_LM_WITH_LAD,
    BadReferenceError,
    Format,
    ProgressCallback,
    Reference,
    ReferenceScan,
    read_each,
    scan_of,
    scans_below,
)

ABOUT = f"Calcium was labelled by artery and, in some label maps, outside the coronary arteries. {BY_RULE}"
MEANINGS = {int(site): site.full_name for site in SITES if site != Artery.UNASSIGNED}
NAMES = "dataset.json"
"""File that names the labels of the label maps in its folder and below."""

ORCASCORE_ARTERIES = {1: Artery.LAD, 2: Artery.LCX, 3: Artery.RCA}
_ORCASCORE_NAME = re.compile(r"(T[RE]V\d+P\d+)R\.mhd", re.IGNORECASE)


def check(path: Path) -> None:
    """Check a label map. Raises CTError if it cannot be read or holds an unknown label."""
    _check_labels(read_lesion_labels(path), MEANINGS, path)


def outlines(path: Path, scan: CTScan) -> sitk.Image:
    """Read the labels of a file on the grid of its scan. Raises CTError if they do not fit it."""
    slicer = path.name.lower().endswith(".seg.nrrd")
    return labels_on_grid(read_lesion_labels(path), scan, path, cropped=slicer)


def _check_labels(image: sitk.Image, meanings: Mapping[int, str], path: Path) -> None:
    """Raise BadReferenceError for a label other than these and 0."""
    labels = set(np.unique(voxels_of(image)).tolist()) - {0, *meanings}
    if labels:
        allowed = ", ".join(f"{label} {meaning}" for label, meaning in meanings.items())
        raise BadReferenceError(f"{path.name} holds the label {max(labels):g}. Its labels can be {allowed}.")


def _cac_maps(source: Path) -> list[Path]:
    if not source.is_dir():
        return []
    maps = (path for path in source.rglob(f"*{LESIONS}.*") if path.name.lower().endswith(IMAGE_ENDINGS))
    return sorted(path for path in maps if stem(path).endswith(LESIONS) and not path.name.startswith("."))


def _read_cac(source: Path, _scans: Path | None, progress: ProgressCallback | None) -> Reference:
    def scan(name: str, path: Path) -> ReferenceScan:
        check(path)
        return ReferenceScan(name, name, _ct_beside(path), outlines=partial(outlines, path), files=(path,))

    items = [
        (path.relative_to(source).with_name(stem(path).removesuffix(LESIONS)).as_posix(), path)
        for path in _cac_maps(source)
    ]
    return Reference(CAC_LABELS.title, ABOUT, VESSELS, *read_each(items, scan, progress))


def _ct_beside(path: Path) -> Path:
    name = stem(path).removesuffix(LESIONS)
    matches = [p for p in sorted(path.parent.iterdir()) if (p.name if p.is_dir() else stem(p)) == name]
    images = [p for p in matches if p.is_dir() or p.name.lower().endswith(IMAGE_ENDINGS)]
    if len(images) != 1:
        raise BadReferenceError(f"{len(images)} CTs called {name} lie beside {path.name}; there should be one.")
    return images[0]


def _named_maps(source: Path) -> list[Path]:
    """Segmentations of 3D Slicer directly in a folder, or label maps below one with NAMES."""
    if not source.is_dir():
        return []
    pattern = source.rglob("*") if (source / NAMES).is_file() else source.glob(f"*{SEGMENTATION_ENDING}")
    maps = (path for path in pattern if path.name.lower().endswith(IMAGE_ENDINGS) and not path.name.startswith("."))
    return sorted(path for path in maps if not stem(path).endswith((LESIONS, HEART)))


def _read_named(source: Path, scans: Path | None, progress: ProgressCallback | None) -> Reference:
    labels = _sites_by_label(source / NAMES) if (source / NAMES).is_file() else {}
    by_id = scans_below(scans or source, progress)

    def scan(name: str, path: Path) -> ReferenceScan:
        number = re.search(r"\d+", name)
        id_ = name if name.lower() in by_id or number is None else str(int(number[0]))
        cohort_scan = scan_of(id_, by_id)
        if not path.name.lower().endswith(SEGMENTATION_ENDING):
            _check_labels(read_mask(path), {label: site.full_name for label, site in labels.items()}, path)
        outlined = partial(_named_outlines, path, labels)
        return ReferenceScan(name, id_, cohort_scan.ct, cohort_scan.series, outlines=outlined, files=(path,))

    maps = read_each([(stem(path), path) for path in _named_maps(source)], scan)
    return Reference(NAMED_LABELS.title, ABOUT, VESSELS, *maps)


def _sites_by_label(path: Path) -> dict[int, Site]:
    """Read the sites of labels from NAMES, {name: label} or {label: name}. Raises BadReferenceError."""
    try:
        entries = dict(read_json(path)["labels"])
        pairs = [(name, label) if str(label).isdecimal() else (label, name) for name, label in entries.items()]
        labels = {int(label): str(name) for name, label in pairs if int(label)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadReferenceError(f"{path} does not name labels ({error}). Download it again.") from error
    sites = {label: site_called(name) for label, name in labels.items()}
    if unknown := [labels[label] for label, site in sites.items() if site is None]:
        raise BadReferenceError(
            f"{path} names {', '.join(map(printable, unknown))}, which is no site of calcium. Rename it."
        )
    return {label: site for label, site in sites.items() if site is not None}


def _named_outlines(path: Path, labels: Mapping[int, Site], scan: CTScan) -> sitk.Image:
    if path.name.lower().endswith(SEGMENTATION_ENDING):
        return outlines(path, scan)
    changed = {float(label): float(site) for label, site in labels.items()}
    image = sitk.ChangeLabel(sitk.Cast(read_mask(path), sitk.sitkUInt8), changed)
    return labels_on_grid(image, scan, path, cropped=False)


def _orcascore_maps(source: Path) -> list[tuple[str, Path]]:
    """Name and label map of each case in a folder."""
    matches = ((_ORCASCORE_NAME.fullmatch(path.name), path) for path in sorted(source.rglob("*.mhd")))
    return [(match[1], path) for match, path in matches if match]


def _read_orcascore(source: Path, _scans: Path | None, progress: ProgressCallback | None) -> Reference:
    def scan(case: str, path: Path) -> ReferenceScan:
        ct = path.with_name(f"{case}CTI.mhd")
        if not ct.is_file():
            raise BadReferenceError(f"Its CT {ct.name} does not lie beside {path.name}.")
        _check_labels(read_mask(path), {label: artery.key for label, artery in ORCASCORE_ARTERIES.items()}, path)
        return ReferenceScan(case, case, ct, outlines=partial(_orcascore_outlines, path), files=(path,))

    about = f"Lesions were labelled by artery, those of the left main as LAD. {BY_RULE}"
    maps = read_each(_orcascore_maps(source), scan, progress)
    return Reference(ORCASCORE.title, about, VESSELS_LM_WITH_LAD, *maps)


def _orcascore_outlines(path: Path, scan: CTScan) -> sitk.Image:
    changed = {float(old): float(new) for old, new in ORCASCORE_ARTERIES.items()}
    return labels_on_grid(
        sitk.ChangeLabel(sitk.Cast(read_mask(path), sitk.sitkUInt8), changed), scan, path, cropped=False
    )


CAC_LABELS = Format("label maps", lambda source: bool(_cac_maps(source)), _read_cac, holds_scans=True)
ORCASCORE = Format("orCaScore label maps", lambda source: bool(_orcascore_maps(source)), _read_orcascore, True)
NAMED_LABELS = Format(
    "segmentations with named labels",
    lambda source: bool(_named_maps(source)) and not _cac_maps(source) and not _orcascore_maps(source),
    _read_named,
)
