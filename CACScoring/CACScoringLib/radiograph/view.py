"""From a chest radiograph to what its network sees: one definition for training and use.

Pictures are float32 [row, column], row 0 at the head, and bright where more was attenuated, as radiographs are shown.
Enhancement is scikit-image's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..core.ct import Acquisition, CTError, ScanWarning

STANDARD_PIXELS = 432
STANDARD_MM = 1.0
"""On the detector."""

ENHANCEMENTS = ("none", "clahe", "equalised", "unsharp")

LARGER_SIDE_MM = 430.0
"""Taken for a picture without its pixels' size: that of a 43 cm cassette."""

BODY_MM = 20.0
"""Rays through more water than this have met the body, as `projection.BODY_PATH_MM`."""

LOW, HIGH = 1.0, 99.7
"""Percentiles of the body that become 0 and 1, as of `xray.Film`."""

AIR_SHARE = 0.03
"""Of the way from a picture's darkest to its brightest: below lies air. BODY_MM are 5 to 7% of a chest's longest path,
but in a picture that is made to be looked at the body's darkest is black already; this is off by little for both."""


class ViewError(CTError):
    """A picture cannot become a view."""


@dataclass(frozen=True)
class ChestRadiograph:
    """A radiograph as its file holds it, turned to how it is shown.

    picture: float32 [row, column], row 0 at the head, bright where more was attenuated, the patient's left, or back, at
    the right. pixel_mm: distance of neighbouring columns and of neighbouring rows on the detector, None where not
    known. view: "PA", "AP", "lateral", or None where unknown.
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
        """ "F", "M", or None where neither is stated."""
        return self.acquisition.patient_sex if self.acquisition.patient_sex in ("F", "M") else None

    def standard(self) -> np.ndarray:
        """Return `standard_view`. Raises ViewError."""
        return standard_view(self.picture, self.pixel_mm)

    def warned(self, *warnings: ScanWarning) -> ChestRadiograph:
        """The same radiograph with further warnings."""
        return replace(self, warnings=self.warnings + warnings)


def standard_view(picture: np.ndarray, pixel_mm: tuple[float, float] | None) -> np.ndarray:
    """A picture on the grid of the network, centred, 0 to 1: float32 [432, 432].

    pixel_mm: distance of neighbouring columns and of neighbouring rows on the detector; None takes the larger side
    for LARGER_SIDE_MM. Each pixel is the mean over its extent; what the picture does not cover is 0. Raises ViewError
    when the picture is not one of finite numbers or its size is none of a radiograph.
    """
    picture = np.asarray(picture, np.float32)
    if picture.ndim != 2 or min(picture.shape) < 2 or not np.isfinite(picture).all():
        raise ViewError(f"An image of shape {picture.shape} is no radiograph. Give rows and columns of numbers.")
    if pixel_mm is None:
        pixel_mm = (LARGER_SIDE_MM / max(picture.shape),) * 2
    if not all(0 < step <= 50 for step in pixel_mm):
        raise ViewError(f"The pixels' distances are {pixel_mm} mm. Give those on the detector, above 0 mm.")
    column_mm, row_mm = pixel_mm
    of_rows, rows_covered = _means(picture, row_mm)
    means, columns_covered = _means(of_rows.T, column_mm)
    covered = np.outer(rows_covered, columns_covered)
    inside = covered > 0
    view = np.divide(means.T, covered, out=np.zeros_like(covered), where=inside)
    dark, bright = np.percentile(view[inside], [0.1, 99.9])
    body = inside & (view > dark + AIR_SHARE * (bright - dark))
    return (normalised(view, body if body.any() else inside) * np.minimum(covered, 1)).astype(np.float32)


def view_of_path(body_mm: np.ndarray) -> np.ndarray:
    """A view of the length of water that rays meet, mm [432, 432], as training has it: float32, 0 to 1."""
    return normalised(body_mm, body_mm > BODY_MM)


def normalised(picture: np.ndarray, body: np.ndarray | None) -> np.ndarray:
    """Percentiles LOW and HIGH of the body become 0 and 1, what lies beyond is clipped: float32, same shape.

    body: bool, the pixels that count; None, or none marked, is all. A picture of one value becomes 0.
    """
    inside = picture if body is None or not body.any() else picture[body]
    low, high = np.percentile(inside, [LOW, HIGH])
    if high - low <= 1e-6 * max(abs(low), abs(high)):  # one value, but for rounding
        return np.zeros(picture.shape, np.float32)
    return np.clip((picture - low) / (high - low), 0, 1).astype(np.float32)


def enhanced(view: np.ndarray, method: str) -> np.ndarray:
    """A view with its contrast changed, float32, 0 to 1, same shape.

    clahe: contrast-limited adaptive histogram equalisation in tiles of an eighth of the side. equalised: the whole
    histogram. unsharp: a Gaussian of 5 pixels subtracted. Raises ViewError for other methods.
    """
    if method not in ENHANCEMENTS:
        raise ViewError(f"There is no enhancement {method!r}. Choose one of {', '.join(ENHANCEMENTS)}.")
    if method == "none":
        return np.asarray(view, np.float32)
    from skimage import exposure, filters

    change = {
        "clahe": lambda v: exposure.equalize_adapthist(v, clip_limit=0.02),
        "equalised": exposure.equalize_hist,
        "unsharp": lambda v: filters.unsharp_mask(v, radius=5.0, amount=1.0),
    }[method]
    if not np.ptp(view):  # no contrast to change; histograms of one value divide by nothing
        return np.asarray(view, np.float32)
    return np.clip(change(np.asarray(view, np.float64)), 0, 1).astype(np.float32)


def looks_inverted(view: np.ndarray, lateral: bool = False) -> bool:
    """True if lungs, or the air about the patient, are brighter than what lies between them, on a standard view.

    Frontal: the field to the left and right of the middle against the middle itself. Lateral: the upper corners against
    the chest's middle.
    """
    rows, columns = view.shape

    def part(top: float, bottom: float, left: float, right: float) -> np.ndarray:
        return view[int(top * rows) : int(bottom * rows), int(left * columns) : int(right * columns)]

    if lateral:
        corners = np.concatenate([part(0, 0.2, 0, 0.12).ravel(), part(0, 0.2, 0.88, 1).ravel()])
        return bool(np.median(corners) > np.median(part(0.5, 0.8, 0.4, 0.6)) + 0.05)
    lungs = np.concatenate([part(0.3, 0.55, 0.22, 0.38).ravel(), part(0.3, 0.55, 0.62, 0.78).ravel()])
    return bool(np.median(lungs) > np.median(part(0.3, 0.7, 0.46, 0.54)) + 0.05)


def _means(values: np.ndarray, step_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Values summed over the extent of each standard pixel along the first axis, over its length, and the share of
    each that they cover: [432, …] and [432]."""
    count = len(values)
    edges = count / 2 + (np.arange(STANDARD_PIXELS + 1) - STANDARD_PIXELS / 2) * STANDARD_MM / step_mm
    edges = np.clip(edges, 0, count)
    below = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, 0, dtype=np.float64)])
    first = np.minimum(edges.astype(int), count - 1)
    part = (edges - first)[:, None]
    sums = below[first] * (1 - part) + below[first + 1] * part
    width = STANDARD_MM / step_mm
    return np.diff(sums, axis=0) / width, np.diff(edges) / width
