"""Calcium mass without a threshold: what a lesion adds to its surroundings, its partial volume included.

The 130 HU rule counts the tissue that a dense voxel holds as calcium and loses the calcium of fainter ones. Here all
voxels of a lesion and near it count, each by what it lies above or below the lesion's background, so that blur only
moves signal within the region of the sum.

Integrated mass (Med Phys 2023, doi:10.1002/mp.16326): N = (I − n·S_bkg) / (S_obj − S_bkg) voxels of pure calcium of
density ρ, times voxel volume and ρ; I is the sum over n voxels. Hydroxyapatite in tissue adds ρ/c to it, whatever its
density, S_obj − S_bkg = ρ/c, so that none has to be known: the mass is c · Σ (HU − background) · voxel volume. What it
displaces of the tissue is left out: at 3.16 g/cm³ that is 1 % of the mass.

How many mg/cm³ of hydroxyapatite one HU is, follows in this order: an insert of known density in the scan, or a number
that the user gives; the factors that the scanner states in DICOM; the user's table; published measurements by scanner,
body width and tube voltage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.ct import Acquisition, CTError, CTScan, MaskError
from ..core.grid import bounding_box
from ..core.tables import TableError, read_table

if TYPE_CHECKING:
    from .lesions import LesionSet

REACH_MM, RING_MM = 1.5, 3.0
"""In the slice: how far a lesion's region goes beyond its voxels, and the width of the ring around it that gives the
background. A region also takes one slice above and one below. Chosen on 40 lesions of digital patients and on simulated
inserts: a wider region holds more of faint and moving calcium, but also more of other tissue than its ring."""

NOT_TISSUE_HU = -300.0
"""Voxels below are lung or air: no background, and in a region no calcium."""

LEAST_RING = 20
"""Voxels of a ring from which a background follows."""

_PLACES = tuple(
    (distance * math.sin(angle), distance * math.cos(angle))
    for distance in (1.0, 1.5)
    for angle in np.arange(8) * math.pi / 4
)
"""Where a region is measured again for the standard error, in widths of the region."""

_LEAST_PLACES = 5

SMALL_CM, LARGE_CM = 32.0, 38.0
"""Patients of a smaller lateral width are small, of a larger one large (DICOM PS3.3 C.8.2.1.1.7, after McCollough
2007, doi:10.1148/radiol.2432050808)."""

PUBLISHED_MG_PER_CM3_PER_HU = {
    "canon": (0.714, 0.725),
    "toshiba": (0.714, 0.725),
    "ge": (0.911, 0.880),
    "philips": (0.783, 0.797),
    "siemens": (0.751, 0.816),
}
"""At 120 kVp, by the maker's name, in thorax phantoms 30 and 40 cm wide: the median of five scans each on an Aquilion
ONE Vision, Revolution, iCT and Somatom Force by the method of van Praagh et al. 2021 (doi:10.1002/mp.14912), as kept at
github.com/MolloiLab/CAC-stanford-data (2nd)."""

HU_PER_MG_CM3_AT_120_KVP = 1.385
"""1 / (1000 × 0.000722048 mg/(mm³·HU)), the published mass calibration of the Canon scan of the QRM insert."""

_KVP = (70.0, 80.0, 100.0, 120.0, 135.0)
_THRESHOLD_HU = (207.0, 177.0, 145.0, 130.0, 119.0)

PUBLISHED_WIDTHS_CM = (30.0, 40.0)

SCANNER_PERCENT, UNKNOWN_SCANNER_PERCENT, OTHER_VOLTAGE_PERCENT = 5.0, 10.0, 3.0
"""Uncertainty (one standard deviation): the repeated scans of PUBLISHED differ by 1 to 5 %, the four makers by 10 %; at
100 kVp one of them measured 3 % less than the ratio of thresholds says."""

BODY_HU, TABLE_OPENING_MM = -300.0, 12.0
"""Of the body, to measure its width; the opening parts it from the table."""

INSERT_WATER_HU = 20.0
"""How far water may lie off 0 HU within a body, which an insert alone does not show."""


@dataclass(frozen=True)
class MassCalibration:
    """Mass calibration of a scan.

    source: "insert", "given", "dicom-patient", "dicom-device", "table" or "published". mg_per_cm3_per_hu: times HU
    above the background it is mg/cm³ of hydroxyapatite. uncertainty_percent: a standard deviation; None where unknown.
    lateral_width_cm: of the body, where it was measured.
    """

    source: str
    mg_per_cm3_per_hu: float
    uncertainty_percent: float | None = None
    lateral_width_cm: float | None = None

    @property
    def of_scanner(self) -> bool:
        """Whether it was made for this scan or scanner, so that the clinical mass may be told by it."""
        return self.source != "published"


def calcium_hu_per_mg_cm3(kvp: float) -> float:
    """HU that 1 mg/cm³ of hydroxyapatite adds to water at a tube voltage; errors as of `relative_calcium_hu`."""
    return HU_PER_MG_CM3_AT_120_KVP * relative_calcium_hu(kvp)


def relative_calcium_hu(kvp: float) -> float:
    """HU of calcium at a tube voltage against 120 kVp.

    The ratio of the voltage's equivalent threshold to 130 HU (Gräni 2018, 10.1093/ehjci/jey019, as coded by peers:
    (2nd)), linear between the published voltages. Raises ValueError outside 70 to 140 kVp.
    """
    if not 70.0 <= kvp <= 140.0:
        raise ValueError(f"Tube voltage {kvp:g} kVp: the calcium's HU are known from 70 to 140 kVp only.")
    return float(np.interp(kvp, _KVP, _THRESHOLD_HU)) / 130.0


def insert_calibration(
    image: sitk.Image, insert: sitk.Image, density_mg_per_cm3: float, water_hu: float = 0.0
) -> MassCalibration:
    """Calibrate by a phantom insert of known hydroxyapatite density: ρ / (HU_insert − HU_water).

    Args:
        image: CT in HU.
        insert: Mask on its grid, well inside the insert.
        density_mg_per_cm3: Density ρ of the insert, mg/cm³.
        water_hu: HU of water; how far it may be off is the uncertainty.

    Raises:
        MaskError: If the mask does not fit or is empty.
        CTError: If the density is not above zero or the insert is not denser than water.
    """
    if not density_mg_per_cm3 > 0:
        raise CTError(f"The calibration insert's density must be above zero, but is {density_mg_per_cm3:g} mg/cm³.")
    if insert.GetSize() != image.GetSize():
        raise MaskError(f"The calibration insert's mask has size {insert.GetSize()}, the CT {image.GetSize()}.")
    values = sitk.GetArrayViewFromImage(image)[sitk.GetArrayViewFromImage(insert) != 0]
    if not values.size:
        raise MaskError("The calibration insert's mask is empty.")
    if not values.mean() > water_hu:
        raise CTError(f"The calibration insert measures {values.mean():.0f} HU, not above water ({water_hu:g} HU).")
    c = 1000 * (density_mg_per_cm3 / 1000 / float(values.mean() - water_hu))
    return MassCalibration("insert", c, 100 * INSERT_WATER_HU * c / density_mg_per_cm3)


def scan_calibration(
    scan: CTScan, heart_mask: sitk.Image, given_mg_per_mm3_hu: float | None = None, table: Path | None = None
) -> MassCalibration:
    """The best calibration that is known of a scan, without an insert.

    Args:
        scan: The CT.
        heart_mask: On its grid; the body's width is measured there.
        given_mg_per_mm3_hu: The user's own.
        table: CSV of the user's scanners, see `from_table`.

    Raises:
        TableError: The table cannot be read or does not fit.
    """
    if given_mg_per_mm3_hu is not None:
        return MassCalibration("given", 1000 * given_mg_per_mm3_hu)
    acquisition = scan.acquisition
    if acquisition.mass_factor_patient is not None:
        return MassCalibration("dicom-patient", acquisition.mass_factor_patient, SCANNER_PERCENT)
    width = lateral_width_cm(scan, heart_mask)
    device = (acquisition.mass_factor_small, acquisition.mass_factor_medium, acquisition.mass_factor_large)
    if None not in device:
        return _of_device([float(factor) for factor in device if factor is not None], width)
    if table is not None and (found := from_table(table, acquisition, width)) is not None:
        return found
    return published(acquisition, width)


def _of_device(factors: list[float], width_cm: float | None) -> MassCalibration:
    if width_cm is None:
        spread = 50 * (max(factors) - min(factors)) / factors[1]
        return MassCalibration("dicom-device", factors[1], float(np.hypot(SCANNER_PERCENT, spread)))
    size = int(width_cm >= SMALL_CM) + int(width_cm > LARGE_CM)
    return MassCalibration("dicom-device", factors[size], SCANNER_PERCENT, width_cm)


def from_table(path: Path, acquisition: Acquisition, width_cm: float | None) -> MassCalibration | None:
    """The calibration of the only fitting line of a table; None where no line fits.

    Args:
        path: CSV with the columns kvp and mg_per_cm3_per_hu, and where wanted manufacturer, width_from_cm and
            width_to_cm (included) and uncertainty_percent. An empty cell fits every scan.
        acquisition: Of the scan.
        width_cm: Of the body.

    Raises:
        TableError: It cannot be read, or several lines fit.
    """
    fitting = []
    for line in read_table(path, ("kvp", "mg_per_cm3_per_hu")).lines:
        line.need("mg_per_cm3_per_hu")
        factor, kvp = line.number_in("mg_per_cm3_per_hu", 0.1, 10), line.number_in("kvp", 0)
        low, high = line.number_in("width_from_cm", 0), line.number_in("width_to_cm", 0)
        wrong_kvp = kvp is not None and (acquisition.kvp is None or abs(kvp - acquisition.kvp) > 0.5)
        maker = line.text("manufacturer").lower()
        wrong_maker = bool(maker) and maker not in (acquisition.manufacturer or "").lower()
        wrong_width = (low, high) != (None, None) and (
            width_cm is None or not (low or 0.0) <= width_cm <= (float("inf") if high is None else high)
        )
        if factor is not None and not (wrong_kvp or wrong_maker or wrong_width):
            fitting.append(MassCalibration("table", factor, line.number_in("uncertainty_percent", 0, 100), width_cm))
    if len(fitting) > 1:
        raise TableError(f"{len(fitting)} lines of {path} fit the scan. Leave one of them for each kind of scan.")
    return fitting[0] if fitting else None


def published(acquisition: Acquisition, width_cm: float | None) -> MassCalibration:
    """By published measurements; the mean of all makers where the scanner's is unknown, 120 kVp where the voltage is
    unknown or beyond 70 to 140."""
    maker = (acquisition.manufacturer or "").lower()
    own = [pair for name, pair in PUBLISHED_MG_PER_CM3_PER_HU.items() if maker.startswith(name)]
    makers = own or [pair for name, pair in PUBLISHED_MG_PER_CM3_PER_HU.items() if name != "toshiba"]
    at_120 = float(np.interp(width_cm or 35.0, PUBLISHED_WIDTHS_CM, np.mean(makers, axis=0)))
    percent = SCANNER_PERCENT if own else UNKNOWN_SCANNER_PERCENT
    kvp = acquisition.kvp
    if kvp is None or not 70 <= kvp <= 140:
        return MassCalibration("published", at_120, UNKNOWN_SCANNER_PERCENT, width_cm)
    other = 0.0 if abs(kvp - 120) <= 0.5 else OTHER_VOLTAGE_PERCENT
    return MassCalibration("published", at_120 / relative_calcium_hu(kvp), float(np.hypot(percent, other)), width_cm)


def lateral_width_cm(scan: CTScan, heart_mask: sitk.Image) -> float | None:
    """Width of the body from left to right in the heart's middle slice, arms included where they touch it.

    None where the field of view cuts the body off: at the image's sides, or at the edge of a circle that is padded
    outside.
    """
    slices = np.flatnonzero(sitk.GetArrayViewFromImage(heart_mask).any((1, 2)))
    if not slices.size:
        return None
    k = int(slices[slices.size // 2])
    spacing_i, spacing_j, _ = scan.image.GetSpacing()
    hu = scan.hu[k]
    radius = (max(1, round(TABLE_OPENING_MM / 2 / spacing_j)), max(1, round(TABLE_OPENING_MM / 2 / spacing_i)))
    tissue = sitk.BinaryMorphologicalOpening(sitk.GetImageFromArray((hu > BODY_HU).astype(np.uint8)), radius[::-1])
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(tissue), sortByObjectSize=True)
    body = sitk.GetArrayViewFromImage(parts) == 1
    columns = np.flatnonzero(body.any(0))
    if not columns.size:
        return None
    if columns[0] == 0 or columns[-1] == body.shape[1] - 1 or _cut_by_circle(hu, body):
        return None
    return float((columns[-1] - columns[0] + 1) * spacing_i / 10)


def _cut_by_circle(hu: np.ndarray, body: np.ndarray) -> bool:
    """Whether a body [j, i] reaches the edge of the circle inside which a padded image was reconstructed."""
    corners = hu[[0, 0, -1, -1], [0, -1, 0, -1]]
    if np.ptp(corners) > 0 or corners[0] > -900:
        return False
    j, i = np.nonzero(body)
    middle_j, middle_i = (n / 2 - 0.5 for n in hu.shape)
    reach = np.hypot((j - middle_j) / (hu.shape[0] / 2), (i - middle_i) / (hu.shape[1] / 2))
    return bool(reach.max() > 0.98)


@dataclass(frozen=True)
class CalciumMass:
    """Mass of one lesion, one artery or a whole scan; None where it could not be measured.

    mass_standard_error_mg: by noise and background; the calibration's uncertainty is another.
    """

    integrated_mass_mg: float | None = None
    mass_standard_error_mg: float | None = None


def summed(masses: Iterable[CalciumMass]) -> CalciumMass:
    """Add up lesions, whose errors are taken as independent; None where a lesion has none, 0 of no lesion."""
    masses = list(masses)

    def add(values: list[float | None], power: int = 1) -> float | None:
        known = [value for value in values if value is not None]
        return math.fsum(value**power for value in known) ** (1 / power) if len(known) == len(values) else None

    return CalciumMass(add([m.integrated_mass_mg for m in masses]), add([m.mass_standard_error_mg for m in masses], 2))


def lesion_masses(
    hu: np.ndarray,
    spacing_mm: tuple[float, float, float],
    found: LesionSet,
    calibration: MassCalibration,
    others: np.ndarray | None = None,
    of_map: bool = False,
) -> dict[int, CalciumMass]:
    """Measure each lesion against its own background.

    A voxel near several lesions belongs to the nearest. The background is the mean of a ring about the region, without
    what lies far off the ring's median (bone, contrast, metal), lung, and whatever is near other lesions. For lesions
    of a calcium map it is the healthy image: the map holds the difference already, and a ring about such faint and wide
    lesions lies in other tissue. The standard error is the spread of the same sum at places beside the lesion
    where no calcium is, which holds correlated noise, together with that of the ring's mean by its eighths, which holds
    uneven tissue. Of 69 lesions of digital patients 0.67 lay within one standard error, and 0.86 within 1.64.

    Args:
        hu: The CT, [k, j, i].
        spacing_mm: Its voxel spacing, i j k.
        found: The lesions.
        calibration: Of the scan.
        others: bool [k, j, i], calcium that is no lesion of these; it counts nowhere.
        of_map: Whether the lesions were found in a calcium map.

    Returns:
        By the lesions' ids.
    """
    ids = found.id_map.astype(np.int32)
    if others is not None:
        ids[others & (ids == 0)] = -1
    sums = _Sums(hu, ids, spacing_mm)
    c, voxel_mm3 = calibration.mg_per_cm3_per_hu / 1000, math.prod(spacing_mm)
    in_map = {lesion.id: sum(c.sum_hu for c in lesion.components) for lesion in found.lesions}
    masses = {}
    for number, box in _boxes(found):
        near = sums.near(number, box)
        excess = in_map[number] if of_map else sums.above_ring(near)
        error = None if excess is None else sums.standard_error(near)
        mass, error = (None if n is None else c * n * voxel_mm3 for n in (excess, error))
        masses[number] = CalciumMass(mass, error)
    return masses


def _boxes(found: LesionSet) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """The ids of the lesions, and the boxes about their voxels."""
    if not found.flat.size:
        return
    whole = bounding_box(found.id_map != 0)
    for number, box in enumerate(ndimage.find_objects(found.id_map[whole]), 1):
        if box is not None:
            yield number, tuple(slice(w.start + b.start, w.start + b.stop) for w, b in zip(whole, box, strict=True))


@dataclass(frozen=True)
class _Near:
    """A lesion's box in the scan, and in it the region of its sum and the ring of its background."""

    box: tuple[slice, ...]
    region: np.ndarray
    ring: np.ndarray


class _Sums:
    """Sums over regions of a scan. ids: of the lesion at each voxel, int32 [k, j, i]; -1 for other calcium."""

    def __init__(self, hu: np.ndarray, ids: np.ndarray, spacing_mm: tuple[float, float, float]) -> None:
        self.hu = hu
        self._ids = ids
        self._in_slice_mm = spacing_mm[1], spacing_mm[0]

    def near(self, number: int, box: tuple[slice, ...]) -> _Near:
        """box: about the lesion's voxels."""
        margins = (1, *(math.ceil((2 * REACH_MM + RING_MM) / mm) for mm in self._in_slice_mm))
        box = tuple(
            slice(max(0, s.start - margin), min(size, s.stop + margin))
            for s, margin, size in zip(box, margins, self.hu.shape, strict=True)
        )
        ids = self._ids[box]
        own, other = self._distances(ids == number), self._distances((ids != number) & (ids != 0))
        tissue = self.hu[box] >= NOT_TISSUE_HU
        region = (own <= REACH_MM) & (own <= other) & ((ids == number) | (ids == 0)) & tissue
        return _Near(box, region, (own > REACH_MM) & (own <= REACH_MM + RING_MM) & (other > REACH_MM) & tissue)

    def _distances(self, calcium: np.ndarray) -> np.ndarray:
        """In the slice, mm, from calcium in it or in a slice beside it."""
        if not calcium.any():
            return np.full(calcium.shape, np.inf)
        spread = ndimage.maximum_filter1d(calcium.astype(np.uint8), 3, axis=0, mode="constant") == 0
        far = np.full(calcium.shape[1:], np.inf)
        return np.stack([far if s.all() else ndimage.distance_transform_edt(s, self._in_slice_mm) for s in spread])

    def above_ring(self, near: _Near) -> float | None:
        """What the region holds above its ring's mean, HU × voxels; None without a ring."""
        hu = self.hu[near.box]
        inside, background = hu[near.region], _ring_mean(hu[near.ring])
        return None if background is None else float(inside.sum(dtype=np.float64) - background * inside.size)

    def standard_error(self, near: _Near) -> float | None:
        """Of the excess; None where there are too few places beside the lesion, or no ring."""
        uneven = self._ring_error(near)
        if uneven is None or not near.region.any():
            return None
        rows, columns = (np.flatnonzero(near.region.any(axes)) for axes in ((0, 2), (0, 1)))
        width = max(np.ptp(rows), np.ptp(columns)) + 1
        found = []
        for down, right in _PLACES:
            offset = (0, round(down * width), round(right * width))
            box = tuple(slice(s.start + o, s.stop + o) for s, o in zip(near.box, offset, strict=True))
            if any(s.start < 0 or s.stop > size for s, size in zip(box, self.hu.shape, strict=True)):
                continue
            hu, free = self.hu[box], self._ids[box] == 0
            tissue = hu >= NOT_TISSUE_HU
            if not (free & tissue)[near.region].all():
                continue
            background = _ring_mean(hu[near.ring & free & tissue])
            if background is not None:
                found.append(float(hu[near.region].sum(dtype=np.float64) - background * near.region.sum()))
        if len(found) < _LEAST_PLACES:
            return None
        # The median, because some places hold a boundary of organs or calcium that no lesion is.
        noise = 1.4826 * float(np.median(np.abs(found)))
        return math.hypot(noise, uneven * int(near.region.sum()))

    def _ring_error(self, near: _Near) -> float | None:
        """Standard error of the ring's mean by those of its eighths, HU, because tissue is uneven; None without one."""
        hu = self.hu[near.box][near.ring]
        if hu.size < LEAST_RING:
            return None
        usual = _usual(hu)
        _, rows, columns = (axis[usual] for axis in np.nonzero(near.ring))
        angle = np.arctan2(rows - rows.mean(), columns - columns.mean())
        eighth = np.floor((angle / math.pi + 1) * 4).astype(int) % 8
        counts = np.bincount(eighth, minlength=8)
        means = np.bincount(eighth, hu[usual], minlength=8)[counts > 0] / counts[counts > 0]
        return float(np.std(means, ddof=1) / math.sqrt(means.size)) if means.size > 1 else None


def _ring_mean(hu: np.ndarray) -> float | None:
    """Mean of a ring's usual voxels; None of too few."""
    return float(hu[_usual(hu)].mean()) if hu.size >= LEAST_RING else None


def _usual(hu: np.ndarray) -> np.ndarray:
    """Which values lie within three spreads of the median."""
    middle = np.median(hu)
    spread = 1.4826 * np.median(np.abs(hu - middle))
    return np.abs(hu - middle) <= 3 * max(spread, 1.0)
