"""Conversion of chest radiographs to network input, the same in training and use.

Pictures are float32 [row, column], row 0 at the head, bright for more attenuation, as radiographs are shown.
Enhancement is by scikit-image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..core.acquisition import Acquisition
from ..core.ct import ScanWarning
from ..core.errors import CTError
from ..networks.configs import STANDARD_MM

STANDARD_PIXELS = 864

ENHANCEMENTS = ("none", "clahe", "equalised", "unsharp", "deblurred", "deblurred-clahe")

SLICE_ROWS = 7
"""Rows of a view that a CT slice of 3 mm covers on the detector."""

LARGER_SIDE_MM = 430.0
"""Larger side in mm of a picture of unknown pixel size: a 43 cm cassette."""

LOW, HIGH = 1.0, 99.7
"""Percentiles of the body mapped to 0 and 1, as in `drr.projection`."""

AIR_SHARE = 0.03
"""Limit of air between a picture's darkest (0) and brightest (1) value. 20 mm of water are 5 to 7% of a chest's longest
path, but pictures for display show the body's darkest part black; this value suits both."""


@dataclass(frozen=True)
class ChestRadiograph:
    """Chest radiograph from a file, oriented for display.

    Attributes:
        picture: Grey values, float32 [row, column], row 0 at the head, bright for more attenuation, with the patient's
            left, or back, at the right.
        pixel_mm: Distance of columns and of rows on the detector, None if unknown.
        view: "PA", "AP", "lateral", or None if unknown.
        acquisition: Facts of the header.
        warnings: Doubts about the radiograph.
        source: File, or None.
    """

    picture: np.ndarray
    pixel_mm: tuple[float, float] | None
    view: str | None
    acquisition: Acquisition
    warnings: tuple[ScanWarning, ...] = ()
    source: Path | None = None

    @property
    def age_years(self) -> int | None:
        return self.acquisition.patient_age_years

    @property
    def sex(self) -> str | None:
        """Sex "F" or "M", None if unknown."""
        return self.acquisition.patient_sex if self.acquisition.patient_sex in ("F", "M") else None

    def standard(self) -> np.ndarray:
        """Return `standard_view`. Raises CTError."""
        return standard_view(self.picture, self.pixel_mm)

    def with_warnings(self, *warnings: ScanWarning) -> ChestRadiograph:
        """Return the radiograph with further warnings."""
        return replace(self, warnings=self.warnings + warnings)


def standard_view(picture: np.ndarray, pixel_mm: tuple[float, float] | None) -> np.ndarray:
    """Resample a picture to the network's grid, centred, 0 to 1: float32 [864, 864].

    Each pixel is the mean over its extent, 0 outside the picture. pixel_mm: distance of columns and of rows on the
    detector; None sets the larger side to LARGER_SIDE_MM. Raises CTError for values that are not finite, or a
    size impossible for a radiograph.
    """
    picture = np.asarray(picture, np.float32)
    if picture.ndim != 2 or min(picture.shape) < 2 or not np.isfinite(picture).all():
        raise CTError(f"An image of shape {picture.shape} is no radiograph. Give rows and columns of numbers.")
    if pixel_mm is None:
        pixel_mm = (LARGER_SIDE_MM / max(picture.shape),) * 2
    if not all(0 < step <= 50 for step in pixel_mm):
        raise CTError(f"The pixels' distances are {pixel_mm} mm. Give those on the detector, above 0 mm.")
    column_mm, row_mm = pixel_mm
    row_means, rows_covered = _means(picture, row_mm)
    means, columns_covered = _means(row_means.T, column_mm)
    covered = np.outer(rows_covered, columns_covered)
    inside = covered > 0
    view = np.divide(means.T, covered, out=np.zeros_like(covered), where=inside)
    dark, bright = np.percentile(view[inside], [0.1, 99.9])
    body = inside & (view > dark + AIR_SHARE * (bright - dark))
    return (normalised_grey(view, body if body.any() else inside) * np.minimum(covered, 1)).astype(np.float32)


def normalised_grey(picture: np.ndarray, body: np.ndarray | None) -> np.ndarray:
    """Map the percentiles LOW and HIGH of the body to 0 and 1, and clip: float32, same shape.

    body: pixels of the body, bool; None or empty for all. A picture of one value becomes 0.
    """
    inside = picture if body is None or not body.any() else picture[body]
    low, high = np.percentile(inside, [LOW, HIGH])
    if high - low <= 1e-6 * max(abs(low), abs(high)):  # one value, except for rounding
        return np.zeros(picture.shape, np.float32)
    return np.clip((picture - low) / (high - low), 0, 1).astype(np.float32)


def enhance(view: np.ndarray, method: str) -> np.ndarray:
    """Enhance the contrast of a view, float32, 0 to 1, same shape.

    method: "clahe" (contrast-limited adaptive histogram equalisation in tiles of an eighth of the side), "equalised"
    (histogram equalisation), "unsharp" (a Gaussian of 5 pixels subtracted), "deblurred" (Wiener deconvolution of
    SLICE_ROWS, a super-resolution of the picture), both in turn, or "none". Raises CTError for others.
    """
    if method not in ENHANCEMENTS:
        raise CTError(f"There is no enhancement {method!r}. Choose one of {', '.join(ENHANCEMENTS)}.")
    if method == "none":
        return np.asarray(view, np.float32)
    from skimage import exposure, filters

    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "clahe": lambda v: exposure.equalize_adapthist(v, clip_limit=0.02),
        "equalised": exposure.equalize_hist,
        "unsharp": lambda v: filters.unsharp_mask(v, radius=5.0, amount=1.0),
        "deblurred": _deblurred,
    }
    if not np.ptp(view):  # histograms of one value divide by zero
        return np.asarray(view, np.float32)
    for step in method.split("-"):
        view = np.clip(changes[step](np.asarray(view, np.float64)), 0, 1)
    return view.astype(np.float32)


def _deblurred(view: np.ndarray) -> np.ndarray:
    from skimage.restoration import wiener  # loads much of SciPy

    return wiener(view, np.full((SLICE_ROWS, 1), 1 / SLICE_ROWS), balance=0.05)


def looks_inverted(view: np.ndarray, lateral: bool = False) -> bool:
    """Return True if the lungs, or the air around the patient, are brighter than the middle of a standard view.

    Frontal views compare fields left and right of the middle with the middle, lateral ones the upper corners with the
    chest's middle.
    """
    rows, columns = view.shape

    def part(top: float, bottom: float, first: float, last: float) -> np.ndarray:
        return view[int(top * rows) : int(bottom * rows), int(first * columns) : int(last * columns)]

    if lateral:
        corners = np.concatenate([part(0, 0.2, 0, 0.12).ravel(), part(0, 0.2, 0.88, 1).ravel()])
        return bool(np.median(corners) > np.median(part(0.5, 0.8, 0.4, 0.6)) + 0.05)
    lungs = np.concatenate([part(0.3, 0.55, 0.22, 0.38).ravel(), part(0.3, 0.55, 0.62, 0.78).ravel()])
    return bool(np.median(lungs) > np.median(part(0.3, 0.7, 0.46, 0.54)) + 0.05)


def _means(values: np.ndarray, step_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return means over each standard pixel along the first axis [864, …], uncovered parts as 0, and the share of each
    that the values cover [864]."""
    count = len(values)
    edges = count / 2 + (np.arange(STANDARD_PIXELS + 1) - STANDARD_PIXELS / 2) * STANDARD_MM / step_mm
    edges = np.clip(edges, 0, count)
    below = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, 0, dtype=np.float64)])
    first = np.minimum(edges.astype(int), count - 1)
    part = (edges - first)[:, None]
    sums = below[first] * (1 - part) + below[first + 1] * part
    width = STANDARD_MM / step_mm
    return np.diff(sums, axis=0) / width, np.diff(edges) / width
