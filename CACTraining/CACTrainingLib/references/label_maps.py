"""References as label maps: with CAC's own labels, with named labels, or as a collection declares them.

With CAC's own labels: NAME-lesions.nii.gz for NAME.nii.gz, or for the DICOM folder NAME (`segmentations`).

With named labels: a segmentation of 3D Slicer per scan, NAME.seg.nrrd, or label maps with a dataset.json that names
their labels, as nnU-Net has it. Names are those of `core.labels.site_called`: "Left Anterior Descending", "Posterior
Descending", "Aortic Valve", "Mitral Valve", "Aorta" … A scan is found by NAME, or by its number, below --scans.

Declared: a collection's `places` have a regular expression of its label maps' names, whose first group is the case,
and the name of the scan beside, with {} for the case; its `labels` name the values. The names of orCaScore's files are
those of the archived download page (http://orcascore.isi.uu.nl/data/), as torch_em's loader cites it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import BadReferenceError
from CACScoringLib.core.files import read_json
from CACScoringLib.core.labels import site_called
from CACScoringLib.core.text import abbreviated_list, printable
from CACScoringLib.io.reading import IMAGE_ENDINGS, read_mask, stem
from CACScoringLib.scans.folder import SEGMENTATION_ENDING

from .collection import Collection
from .reference import (
    BY_RULE,
    VESSELS,
    Format,
    ProgressCallback,
    Reference,
    ReferenceScan,
    read_each,
    scan_of,
    scans_below,
)
from .segmentations import HEART, LESIONS, check_labels, labels_on_grid, lesions_on_grid, read_lesions

ABOUT = f"Calcium was labelled by artery and, in some label maps, outside the coronary arteries. {BY_RULE}"
NAMES = "dataset.json"
"""File that names the labels of the label maps in its folder and below."""


def _cac_maps(source: Path) -> list[Path]:
    if not source.is_dir():
        return []
    maps = (path for path in source.rglob(f"*{LESIONS}.*") if path.name.lower().endswith(IMAGE_ENDINGS))
    return sorted(path for path in maps if stem(path).endswith(LESIONS) and not path.name.startswith("."))


def _read_cac(source: Path, _scans: Path | None, progress: ProgressCallback | None) -> Reference:
    def scan(name: str, path: Path) -> ReferenceScan:
        if len(versions := [path.name for item, path in items if item == name]) > 1:
            raise BadReferenceError(f"{abbreviated_list(versions)} have one name. Keep one of them.")
        read_lesions(path)
        return ReferenceScan(name, name, _ct_beside(path), outlines=partial(lesions_on_grid, path), files=(path,))

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
    labels = _NamedLabels.read(source / NAMES) if (source / NAMES).is_file() else None
    by_id = scans_below(scans or source, progress)

    def scan(name: str, path: Path) -> ReferenceScan:
        number = re.search(r"\d+", name)
        id_ = name if name.lower() in by_id or number is None else str(int(number[0]))
        ct = scan_of(id_, by_id)
        if labels is None or path.name.lower().endswith(SEGMENTATION_ENDING):
            outlined = partial(lesions_on_grid, path)
        else:
            labels.check(path)
            outlined = partial(labels.outlines, path)
        return ReferenceScan(name, id_, ct.ct, ct.series, outlines=outlined, files=(path,))

    maps = read_each([(stem(path), path) for path in _named_maps(source)], scan)
    return Reference(NAMED_LABELS.title, ABOUT, VESSELS, *maps)


class _NamedLabels:
    """Labels of label maps by their names, {name: label} or {label: name}.

    Attributes:
        names: Name of each label.
        sites: Site of each label.
    """

    def __init__(self, entries: Mapping[str, Any]) -> None:
        """Raises ValueError, TypeError for other labels."""
        pairs = [(name, label) if str(label).isdecimal() else (label, name) for name, label in entries.items()]
        self.names = {int(label): str(name) for name, label in pairs if int(label)}
        self.sites = {label: site_called(name) for label, name in self.names.items()}

    @classmethod
    def read(cls, path: Path) -> _NamedLabels:
        """Read NAMES. Raises BadReferenceError."""
        try:
            labels = cls(dict(read_json(path)["labels"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadReferenceError(f"{path} does not name labels ({error}). Download it again.") from error
        if unknown := [labels.names[label] for label, site in labels.sites.items() if site is None]:
            raise BadReferenceError(
                f"{path} names {', '.join(map(printable, unknown))}, which is no site of calcium. Rename it."
            )
        return labels

    def check(self, path: Path) -> None:
        """Raise CTError if a label map cannot be read or holds another label."""
        check_labels(read_mask(path), self.names, path)

    def outlines(self, path: Path, scan: CTScan) -> sitk.Image:
        """Read the labels of a file as sites on the grid of its scan. Raises CTError if they do not fit it."""
        changed = {float(label): float(site) for label, site in self.sites.items() if site is not None}
        image = sitk.ChangeLabel(sitk.Cast(read_mask(path), sitk.sitkUInt8), changed)
        return labels_on_grid(image, scan, path, cropped=False)


def declared(collection: Collection) -> Format:
    """Return the format of a collection that declares the names of its label maps and of the scans beside them."""
    pattern = re.compile(collection.places["labels"], re.IGNORECASE)
    labels = _NamedLabels(collection.labels)

    def maps(source: Path) -> list[tuple[str, Path]]:
        matches = ((pattern.fullmatch(path.name), path) for path in sorted(source.rglob("*")))
        return [(match[1], path) for match, path in matches if match]

    def scan(case: str, path: Path) -> ReferenceScan:
        ct = path.with_name(collection.places["scan"].format(case))
        if not ct.exists():
            raise BadReferenceError(f"Its CT {ct.name} does not lie beside {path.name}.")
        labels.check(path)
        return ReferenceScan(case, case, ct, outlines=partial(labels.outlines, path), files=(path,))

    def read(source: Path, _scans: Path | None, progress: ProgressCallback | None) -> Reference:
        about = f"{collection.about} {BY_RULE}"
        return Reference(
            collection.title, about, collection.vessels or VESSELS, *read_each(maps(source), scan, progress)
        )

    return Format(collection.title, lambda source: source.is_dir() and bool(maps(source)), read, holds_scans=True)


CAC_LABELS = Format("label maps", lambda source: bool(_cac_maps(source)), _read_cac, holds_scans=True)
NAMED_LABELS = Format(
    "segmentations with named labels", lambda source: bool(_named_maps(source)) and not _cac_maps(source), _read_named
)
