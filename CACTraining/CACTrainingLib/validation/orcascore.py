"""orCaScore (MICCAI 2014): CTs and label maps as MetaImage, side by side.

As the challenge's pages have it: `TRV<vendor>P<patient>CTI.mhd` is the CT without contrast, `…R.mhd` its reference,
with the labels 1 LAD (calcium of the left main counts as LAD), 2 LCX and 3 RCA; `…CTAI.mhd` is the contrast scan, which
is not scored. Lesions were set at 130 HU (http://orcascore.isi.uu.nl/data/, doi:10.1118/1.4945696); the names of the
files are those of the archived download page, as torch_em's loader cites it. The test set (TE) was published without
labels.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import SimpleITK as sitk

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.labels import Artery
from CACScoringLib.io.reading import read_mask

from ..project.importers.segmentation_labels import labels_on_grid
from .reference import (
    BY_RULE,
    VESSELS_LM_WITH_LAD,
    BadReferenceError,
    Counted,
    Reference,
    ReferenceScan,
    check_labels,
    read_each,
    relabelled,
)

TITLE = "orCaScore label maps"
SITES = {1: Artery.LAD, 2: Artery.LCX, 3: Artery.RCA}
_MEANINGS = {label: site.key for label, site in SITES.items()}
_NAME = re.compile(r"(T[RE]V\d+P\d+)R\.mhd", re.IGNORECASE)


def fits(source: Path) -> bool:
    return source.is_dir() and any(_NAME.fullmatch(path.name) for path in source.rglob("*.mhd"))


def read(source: Path, progress: Counted | None = None) -> Reference:
    """The reference of a folder that `fits`, which holds its scans."""

    def scan(case: str, path: Path) -> ReferenceScan:
        ct = path.with_name(f"{case}CTI.mhd")
        if not ct.is_file():
            raise BadReferenceError(f"Its CT {ct.name} does not lie beside {path.name}.")
        check_labels(read_mask(path), _MEANINGS, path)
        return ReferenceScan(case, case, ct, outlines=partial(_outlines, path), files=(path,))

    named = ((_NAME.fullmatch(path.name), path) for path in sorted(source.rglob("*.mhd")))
    items = [(match[1], path) for match, path in named if match]
    about = f"Lesions were labelled by artery, those of the left main as LAD. {BY_RULE}"
    return Reference(TITLE, about, VESSELS_LM_WITH_LAD, *read_each(items, scan, progress))


def _outlines(path: Path, scan: CTScan) -> sitk.Image:
    return labels_on_grid(relabelled(read_mask(path), SITES, path), scan, path, cropped=False)
