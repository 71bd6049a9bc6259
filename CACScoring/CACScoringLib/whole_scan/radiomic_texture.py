"""Radiomic features as the Image Biomarker Standardisation Initiative (IBSI) defines them, computed by mirp.

Zwanenburg et al., "The Image Biomarker Standardization Initiative", Radiology 2020, doi:10.1148/radiol.2020191145; the
library: Zwanenburg et al., "MIRP", JOSS 2024. mirp is imported where it is used, because it takes a second to load.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from ..core.ct import CTError


def _named(beginning: str, ends: str) -> tuple[str, ...]:
    return tuple(f"{beginning}_{end}" for end in ends.split())


_STATISTICS = "mean var skew kurt median min p10 p90 max iqr range mad rmad medad cov qcod"
_ZONES = "gl_var glnu glnu_norm"

FEATURES: dict[str, tuple[str, ...]] = {
    "statistics": _named("stat", f"{_STATISTICS} energy rms"),
    "intensity_histogram": _named(
        "ih", f"{_STATISTICS} mode entropy uniformity max_grad max_grad_g min_grad min_grad_g"
    ),
    "intensity_volume_histogram": _named(
        "ivh", "v10 v25 v50 v75 v90 i10 i25 i50 i75 i90 diff_v10_v90 diff_v25_v75 diff_i10_i90 diff_i25_i75"
    ),
    "glcm": _named(
        "cm",
        "joint_max joint_avg joint_var joint_entr diff_avg diff_var diff_entr sum_avg sum_var sum_entr energy contrast "
        "dissimilarity inv_diff inv_diff_norm inv_diff_mom inv_diff_mom_norm inv_var corr auto_corr clust_tend "
        "clust_shade clust_prom info_corr1 info_corr2",
    ),
    "glrlm": _named("rlm", f"sre lre lgre hgre srlge srhge lrlge lrhge rlnu rlnu_norm r_perc rl_var rl_entr {_ZONES}"),
    "glszm": _named("szm", f"sze lze lgze hgze szlge szhge lzlge lzhge zsnu zsnu_norm z_perc zs_var zs_entr {_ZONES}"),
    "ngtdm": _named("ngt", "coarseness contrast busyness complexity strength"),
    "ngldm": _named(
        "ngl", f"lde hde lgce hgce ldlge ldhge hdlge hdhge dcnu dcnu_norm dc_perc dc_var dc_entr dc_energy {_ZONES}"
    ),
}
"""Names of the features of each family, as mirp calls both. Shape is left out: it takes mirp many seconds in a heart,
and calcium does not shape hearts."""

_COLUMN = re.compile(
    r"((?:stat|ih|ivh|cm|rlm|szm|ngt|ngl)_.+?)(?:_d1(?:_a0\.0)?)?(?:_(?:3d|2\.5d|2d).*)?(?:_fbs_w[\d.]+)?"
)
"""A column of a feature, its name without the settings, which are the same for all; others describe files."""


class RadiomicsError(CTError):
    """Radiomic features cannot be computed. The message says what to do."""


def ibsi_features(
    hu: np.ndarray,
    inside: np.ndarray,
    limits_hu: tuple[float, float],
    bin_width_hu: float,
    by_slice: bool = False,
    families: Sequence[str] = tuple(FEATURES),
) -> dict[str, float]:
    """FEATURES of a region by name; what is not defined there, as texture in a single voxel, is 0.

    Args:
        hu: [k, j, i].
        inside: bool, same shape: the region.
        limits_hu: What lies beyond is not counted.
        bin_width_hu: Of intensities, from the lower limit up.
        by_slice: Of textures within slices, for voxels much longer than wide; else in three dimensions, of voxels taken
            as cubes.
        families: Which families of features.

    Raises:
        RadiomicsError: If mirp is not installed.
    """
    names = [name for family in families for name in FEATURES[family]]
    inside = inside & (hu >= limits_hu[0]) & (hu <= limits_hu[1])
    if not inside.any():
        return dict.fromkeys(names, 0.0)
    box = tuple(slice(max(0, p.min() - 1), p.max() + 2) for p in np.nonzero(inside))
    with _silent():
        try:
            from mirp import extract_features
        except ImportError as error:
            message = "Radiomic features need mirp. Install it (pip install mirp), or choose a model without them."
            raise RadiomicsError(message) from error
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
    found = {match[1]: float(table[match[0]].iloc[0]) for match in map(_COLUMN.fullmatch, table.columns) if match}
    return {name: found[name] if math.isfinite(found.get(name, math.nan)) else 0.0 for name in names}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """mirp logs to standard output, where results may go, unless somebody logs already; regions of one intensity, which
    few voxels often have, are no reason for its warnings."""
    root, silence = logging.getLogger(), logging.NullHandler()
    root.addHandler(silence)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(silence)
