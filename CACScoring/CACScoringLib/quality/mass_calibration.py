"""Mass calibration of a scan: how many mg/cm³ of hydroxyapatite one HU is.

It follows in this order: from an insert of known density in the scan, or a number that the user gives; the factors that
the scanner states in DICOM; the user's table; published measurements by scanner, body width and tube voltage.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.acquisition import Acquisition
from ..core.ct import CTScan
from ..core.errors import CTError, MaskError, TableError
from ..core.slice_checks import BODY_HU
from ..core.tables import read_table
from ..record.findings import MassCalibration

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

TABLE_OPENING_MM = 12.0
"""Width of the opening that separates the body from the table, to measure its width."""

INSERT_WATER_HU = 20.0
"""Error of water within a body, which an insert alone does not show."""


def scan_calibration(
    scan: CTScan, heart_mask: np.ndarray, given_mg_per_mm3_hu: float | None = None, table: Path | None = None
) -> MassCalibration:
    """Return the best calibration of a scan without an insert.

    Args:
        scan: The CT.
        heart_mask: bool [k, j, i] on its grid; the body's width is measured there.
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
    if table is not None and (listed := from_table(table, acquisition, width)) is not None:
        return listed
    return published(acquisition, width)


def _of_device(factors: list[float], width_cm: float | None) -> MassCalibration:
    if width_cm is None:
        spread = 50 * (max(factors) - min(factors)) / factors[1]
        return MassCalibration("dicom-device", factors[1], float(np.hypot(SCANNER_PERCENT, spread)))
    size = int(width_cm >= SMALL_CM) + int(width_cm > LARGE_CM)
    return MassCalibration("dicom-device", factors[size], SCANNER_PERCENT, width_cm)


def from_table(path: Path, acquisition: Acquisition, width_cm: float | None) -> MassCalibration | None:
    """Return the calibration of the only line of a table that fits; None if no line fits.

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
    """Return the published calibration, by maker (the mean of all if unknown), body width and tube voltage (120 kVp if
    unknown or outside 70 to 140)."""
    maker = (acquisition.manufacturer or "").lower()
    maker_factors = [pair for name, pair in PUBLISHED_MG_PER_CM3_PER_HU.items() if maker.startswith(name)]
    makers = maker_factors or [pair for name, pair in PUBLISHED_MG_PER_CM3_PER_HU.items() if name != "toshiba"]
    at_120 = float(np.interp(width_cm or 35.0, PUBLISHED_WIDTHS_CM, np.mean(makers, axis=0)))
    percent = SCANNER_PERCENT if maker_factors else UNKNOWN_SCANNER_PERCENT
    kvp = acquisition.calcium_kvp
    if kvp is None or not 70 <= kvp <= 140:
        return MassCalibration("published", at_120, UNKNOWN_SCANNER_PERCENT, width_cm)
    percent = float(np.hypot(percent, 0.0 if abs(kvp - 120) <= 0.5 else OTHER_VOLTAGE_PERCENT))
    return MassCalibration("published", at_120 / relative_calcium_hu(kvp), percent, width_cm)


def insert_calibration(
    hu: np.ndarray, insert: np.ndarray, density_mg_per_cm3: float, water_hu: float = 0.0
) -> MassCalibration:
    """Calibrate by a phantom insert of known hydroxyapatite density: ρ / (HU_insert − HU_water).

    Args:
        hu: CT in HU, [k, j, i].
        insert: Mask on its grid, bool [k, j, i], well inside the insert.
        density_mg_per_cm3: Density ρ of the insert, mg/cm³.
        water_hu: HU of water; how far it may be off is the uncertainty.

    Raises:
        MaskError: If the mask does not fit or is empty.
        CTError: If the density is not above zero or the insert is not denser than water.
    """
    if not density_mg_per_cm3 > 0:
        raise CTError(f"The calibration insert's density must be above zero, but is {density_mg_per_cm3:g} mg/cm³.")
    if insert.shape != hu.shape:
        raise MaskError(f"The calibration insert's mask has the shape {insert.shape}, the CT {hu.shape}.")
    values = hu[insert]
    if not values.size:
        raise MaskError("The calibration insert's mask is empty.")
    if not values.mean() > water_hu:
        raise CTError(f"The calibration insert measures {values.mean():.0f} HU, not above water ({water_hu:g} HU).")
    c = 1000 * (density_mg_per_cm3 / 1000 / float(values.mean() - water_hu))
    return MassCalibration("insert", c, 100 * INSERT_WATER_HU * c / density_mg_per_cm3)


def calcium_hu_per_mg_cm3(kvp: float) -> float:
    """Return the HU that 1 mg/cm³ of hydroxyapatite adds to water; errors as of `relative_calcium_hu`."""
    return HU_PER_MG_CM3_AT_120_KVP * relative_calcium_hu(kvp)


def relative_calcium_hu(kvp: float) -> float:
    """Return the HU of calcium at a tube voltage relative to 120 kVp.

    The ratio of the voltage's equivalent threshold to 130 HU (Gräni 2018, 10.1093/ehjci/jey019, as coded by peers:
    (2nd)), linear between the published voltages. Raises ValueError outside 70 to 140 kVp.
    """
    if not 70.0 <= kvp <= 140.0:
        raise ValueError(f"Tube voltage {kvp:g} kVp: the calcium's HU are known from 70 to 140 kVp only.")
    return float(np.interp(kvp, _KVP, _THRESHOLD_HU)) / 130.0


def lateral_width_cm(scan: CTScan, heart_mask: np.ndarray) -> float | None:
    """Measure the width of the body in the heart's middle slice, arms included if they touch it.

    Returns None if the field of view cuts the body off, at the image's sides or at the edge of a padded circle.
    """
    slices = np.flatnonzero(heart_mask.any((1, 2)))
    if not slices.size:
        return None
    k = int(slices[slices.size // 2])
    spacing_i, spacing_j, _ = scan.image.GetSpacing()
    hu = scan.hu[k]
    radius = (max(1, round(TABLE_OPENING_MM / 2 / spacing_j)), max(1, round(TABLE_OPENING_MM / 2 / spacing_i)))
    tissue = sitk.BinaryMorphologicalOpening(sitk.GetImageFromArray((hu > BODY_HU).astype(np.uint8)), radius[::-1])
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(tissue), sortByObjectSize=True)
    body = sitk.GetArrayFromImage(parts) == 1
    columns = np.flatnonzero(body.any(0))
    if not columns.size:
        return None
    if columns[0] == 0 or columns[-1] == body.shape[1] - 1 or _cut_by_circle(hu, body):
        return None
    return float((columns[-1] - columns[0] + 1) * spacing_i / 10)


def _cut_by_circle(hu: np.ndarray, body: np.ndarray) -> bool:
    """True if a body [j, i] reaches the edge of the circle inside which a padded image was reconstructed."""
    corners = hu[[0, 0, -1, -1], [0, -1, 0, -1]]
    if np.ptp(corners) > 0 or corners[0] > -900:
        return False
    j, i = np.nonzero(body)
    middle_j, middle_i = (n / 2 - 0.5 for n in hu.shape)
    reach = np.hypot((j - middle_j) / (hu.shape[0] / 2), (i - middle_i) / (hu.shape[1] / 2))
    return bool(reach.max() > 0.98)


def usual_calibration(kvp: float | None) -> float:
    """Return the mass calibration in mg/(mm³·HU) at a tube voltage, at 120 kVp if it is unknown or unpublished."""
    is_published = kvp is not None and 70.0 <= kvp <= 140.0
    return 1 / (1000 * calcium_hu_per_mg_cm3(kvp if is_published and kvp is not None else 120.0))
