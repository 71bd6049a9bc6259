"""Radiomic features of the Image Biomarker Standardisation Initiative (IBSI), computed by mirp.

Zwanenburg et al., "The Image Biomarker Standardization Initiative", Radiology 2020, doi:10.1148/radiol.2020191145; the
library: Zwanenburg et al., "MIRP", JOSS 2024. mirp is imported on use, because it takes a second to load. It imports
ITK (1.5 GB) for its readers of files, none of which is used here; the features are the same without it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from types import ModuleType

import numpy as np

from ..core.errors import CTError
from ..core.files import resource_rows

FEATURES: dict[str, tuple[str, ...]] = {}
for _row in resource_rows("ibsi_features.csv"):
    FEATURES[_row["family"]] = (*FEATURES.get(_row["family"], ()), _row["name"])
"""mirp's names of the features of each family. Shape is left out: it takes mirp many seconds for a heart, and calcium
does not shape hearts."""

INSTALLATION = (
    "Install it (pip install --no-deps mirp; pip install pywavelets pandas matplotlib scikit-image), or choose a model "
    "without radiomic features."
)
"""Advice where mirp is missing: without dependencies, which would bring ITK, and then those that are used."""

_COLUMN = re.compile(
    r"((?:stat|ih|ivh|cm|rlm|szm|ngt|ngl)_.+?)(?:_d1(?:_a0\.0)?)?(?:_(?:3d|2\.5d|2d).*)?(?:_fbs_w[\d.]+)?"
)
"""Column of a feature, with its name without settings as group 1; other columns describe files."""


def ibsi_features(
    hu: np.ndarray,
    inside: np.ndarray,
    limits_hu: tuple[float, float],
    bin_width_hu: float,
    by_slice: bool = False,
    families: Sequence[str] = tuple(FEATURES),
) -> dict[str, float]:
    """Compute FEATURES of a region by name; undefined ones, as texture in a single voxel, are 0.

    Args:
        hu: Scan [k, j, i].
        inside: Region, bool, same shape.
        limits_hu: Limits of intensities; voxels outside are ignored.
        bin_width_hu: Width of intensity bins from the lower limit.
        by_slice: True for textures within slices, for voxels much longer than wide; False for three dimensions with
            voxels taken as cubes.
        families: Families of features.

    Raises:
        CTError: The package mirp, or one that it needs, is not installed.
    """
    names = [name for family in families for name in FEATURES[family]]
    inside = inside & (hu >= limits_hu[0]) & (hu <= limits_hu[1])
    if not inside.any():
        return dict.fromkeys(names, 0.0)
    box = tuple(slice(max(0, p.min() - 1), p.max() + 2) for p in np.nonzero(inside))
    with _silent(), _itk_or_empty():
        try:
            from mirp import extract_features
        except ImportError as error:
            message = f"Radiomic features need mirp, and {error.name or error} is missing. {INSTALLATION}"
            raise CTError(message) from error
        (table,) = extract_features(
            image=hu[box].astype(np.float32),
            mask=inside[box].astype(np.uint8),
            image_modality="ct",
            by_slice=by_slice,
            resegmentation_intensity_range=list(limits_hu),
            base_discretisation_method="fixed_bin_size",
            base_discretisation_bin_width=bin_width_hu,
            base_feature_families=list(families),
        )
    features = {match[1]: float(table[match[0]].iloc[0]) for match in map(_COLUMN.fullmatch, table.columns) if match}
    return {name: features[name] if math.isfinite(features.get(name, math.nan)) else 0.0 for name in names}


@contextlib.contextmanager
def _itk_or_empty() -> Iterator[None]:
    """Have an empty module in place of ITK if that is not installed: mirp imports it again during an extraction."""
    lacks_itk = "itk" not in sys.modules and find_spec("itk") is None
    if lacks_itk:
        sys.modules["itk"] = ModuleType("itk")
    try:
        yield
    finally:
        if lacks_itk:
            del sys.modules["itk"]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence mirp's log on standard output, where results may go, and its warnings about regions of one intensity."""
    root, silence = logging.getLogger(), logging.NullHandler()
    root.addHandler(silence)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(silence)
