"""Chest radiographs from DICOM files (CR, DX, digitised film): pixels as displayed, their size, and the view.

Modality LUT, VOI LUT or window, and the inversion of MONOCHROME1 are applied in this order (PS3.4 N.2). The first of
several LUTs or windows is used, and a LUT rather than a window, as in pydicom.
"""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from ..core.acquisition import Acquisition, with_pseudonym
from ..core.ct import ScanWarning
from ..core.errors import CTError, NotCTError, NotVolumeError, UnreadableError
from ..core.text import printable
from ..io.dicom import DicomSlice, read_bounded
from ..io.headers import pixel_warnings
from ..io.pixels import real_bits, stored_values
from ..io.series_acquisition import acquisition_of
from .view import ChestRadiograph

RADIOGRAPHIES = ("CR", "DX", "RG")
"""Modalities: computed and digital radiography, digitised film."""

MAYBE_RADIOGRAPHIES = ("OT", "SC", "RF", "PX", "XC")
"""Modalities of other images that may be radiographs: accepted with a warning."""

CHESTS = ("CHEST", "THORAX", "LUNG", "HEART", "RIB", "TORSO")
"""Words in the body part of a chest radiograph."""

MIN_SIDE_MM, MAX_SIDE_MM = 100.0, 700.0
"""Plausible range in mm of a picture's sides; pixel sizes that give others are ignored."""

_VIEW_POSITIONS = {"PA": "PA", "AP": "AP"} | dict.fromkeys(["LL", "RL", "LATERAL", "LAT", "LLD", "RLD"], "lateral")
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")


def read_dicom(path: Path) -> ChestRadiograph:
    """Read a radiograph from a DICOM file. Raises CTError if it is none, or its pixels are unreadable."""
    ds = read_bounded(path)
    header = DicomSlice(path, ds)
    warnings = _check_kind(header)
    try:
        values = stored_values(header)
        picture, more = _display(ds, header, values)
    except CTError:
        raise
    except Exception as error:  # broken headers and tables raise whatever NumPy's and pydicom's conversions meet
        reason = printable(str(error).splitlines()[0]) if str(error) else type(error).__name__
        message = f"The grey values of {path.name} cannot be interpreted ({reason}). Export it as PNG from a viewer."
        raise UnreadableError(message) from error
    if picture.ndim != 2 or min(picture.shape) < 2 or not np.isfinite(picture).all():
        raise UnreadableError(f"{path.name} does not hold a single greyscale image of numbers. Export it again.")
    warnings += more
    view = _view(header)
    pixel_mm, certain = _pixel_mm(header)
    picture, pixel_mm = _upright(header, picture, pixel_mm)
    pixel_mm, more = check_pixel_size(pixel_mm, picture.shape, certain)
    return ChestRadiograph(picture, pixel_mm, view, _acquisition(header), (*warnings, *more), path)


def _check_kind(header: DicomSlice) -> tuple[ScanWarning, ...]:
    """Return warnings about the kind of image. Raises CTError for anything but a single grey radiograph."""
    name, modality = header.path.name, (header.text("Modality") or "").upper()
    if modality == "CT":
        raise NotCTError(f"{name} is a slice of a CT. Score the whole CT, or make a radiograph with cac drr.")
    if modality and modality not in RADIOGRAPHIES + MAYBE_RADIOGRAPHIES:
        raise NotCTError(f"{name} is of modality {modality}; a chest radiograph (CR or DX) is needed.")
    if header.is_multi_frame:
        frames = header.text("NumberOfFrames") or "many"
        raise NotVolumeError(f"{name} holds {frames} frames. Give a single radiograph.")
    kind = (header.text("PhotometricInterpretation") or "MONOCHROME2").upper()
    if (header.number("SamplesPerPixel") or 1) != 1 or kind not in _MONOCHROME:
        raise NotVolumeError(f"{name} is in colour ({kind}); a radiograph is grey. Export the radiograph itself.")
    part = (header.text("BodyPartExamined") or "").upper()
    warnings = []
    if modality not in RADIOGRAPHIES:
        claim = f"is of modality {modality}" if modality else "does not state its modality"
        message = f"{name} {claim}; it is taken to be a radiograph. Check the image."
        warnings.append(ScanWarning("modality", message))
    if part and not any(word in part for word in CHESTS):
        message = f"According to its header this is a radiograph of {part}, not of the chest."
        warnings.append(ScanWarning("body-part", message))
    return (*warnings, *pixel_warnings([header]))


def _display(ds: pydicom.Dataset, header: DicomSlice, values: np.ndarray) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """Return the picture, bright for more attenuation, and warnings."""
    padding = _padding(header, values)
    values = apply_modality_lut(real_bits(values, header, padding), ds)
    relation = (header.text("PixelIntensityRelationship") or "").upper()
    sign = header.number("PixelIntensityRelationshipSign")
    warnings = []
    if (header.text("PresentationIntentType") or "").upper() == "FOR PROCESSING":
        picture, warning = _attenuation_from_raw(ds, values.astype(np.float64), relation, sign)
        warnings.append(warning)
    else:
        picture = _first_voi(ds, values).astype(np.float64)
        # PS3.3 C.8.11.3: Presentation LUT Shape INVERSE goes with MONOCHROME1; both mean one inversion.
        if (header.text("PhotometricInterpretation") or "").upper() == "MONOCHROME1":
            picture = -picture
        if relation == "LIN":
            message = "The grey values follow the X-ray intensity, not its logarithm, on which the models are trained."
            warnings.append(ScanWarning("linear-intensity", message))
    if padding.any() and not padding.all():  # outside the collimated field, as without attenuation
        picture[padding] = picture[~padding].min()
    return picture.astype(np.float32), tuple(warnings)


def _attenuation_from_raw(
    ds: pydicom.Dataset, values: np.ndarray, relation: str, sign: float | None
) -> tuple[np.ndarray, ScanWarning]:
    """Convert a detector's raw values (FOR PROCESSING) to attenuation."""
    message = "The file holds the detector's values (FOR PROCESSING), not an image prepared for reading"
    if relation == "LIN" and sign == 1:
        floor = max(float(values.max()) * 1e-5, 1e-12)
        return -np.log(np.maximum(values, floor)), ScanWarning("raw-pixels", f"{message}; their logarithm is taken.")
    if relation == "LOG" and sign in (1, -1):
        return -sign * values, ScanWarning("raw-pixels", f"{message}; they are taken as its logarithm.")
    if str(ds.get("PhotometricInterpretation", "")).upper() == "MONOCHROME1":
        values = -values
    message += "; how they relate to the X-ray intensity is not stated. Check that bone is bright."
    return values, ScanWarning("raw-pixels", message)


def _first_voi(ds: pydicom.Dataset, values: np.ndarray) -> np.ndarray:
    """Apply the first VOI LUT, else the first window, if any."""
    tables = ds.get("VOILUTSequence")
    if not tables or "LUTDescriptor" not in tables[0] or "LUTData" not in tables[0]:
        return apply_voi_lut(values, ds, prefer_lut=False)
    entries, first, bits = (int(number) for number in tables[0].LUTDescriptor)
    # pydicom uses the bits of the table's values, in which larger stored values would wrap around.
    tables[0].LUTDescriptor = [entries, first, max(bits, 16)]
    return apply_voi_lut(np.clip(np.rint(values), first, first + 2**16 - 1).astype(np.int64), ds)


def _padding(header: DicomSlice, values: np.ndarray) -> np.ndarray:
    """Return the mask of padding pixels."""
    value = header.number("PixelPaddingValue")
    if value is None:
        return np.zeros(values.shape, bool)
    limit = header.number("PixelPaddingRangeLimit")
    low, high = sorted((value, value if limit is None else limit))
    return (values >= low) & (values <= high)


def _view(header: DicomSlice) -> str | None:
    """Return the view from View Position, view code, patient orientation or positioner angle, in this order."""
    position = (header.text("ViewPosition") or "").upper().replace(" ", "")
    if position in _VIEW_POSITIONS:
        return _VIEW_POSITIONS[position]
    codes = header.value("ViewCodeSequence")
    meaning = str(codes[0].get("CodeMeaning", "")).lower() if isinstance(codes, pydicom.Sequence) else ""
    for word, view in (("lateral", "lateral"), ("postero", "PA"), ("antero", "AP")):
        if meaning.startswith(word) or (word == "lateral" and word in meaning):
            return view
    if _ends(header)[0] in ("A", "P"):
        return "lateral"
    angle = header.number("PositionerPrimaryAngle")
    if angle is None or header.number("PositionerSecondaryAngle"):
        return None
    angle = abs((angle + 180) % 360 - 180)
    return "PA" if angle <= 20 else "AP" if angle >= 160 else "lateral" if 70 <= angle <= 110 else None


def _ends(header: DicomSlice) -> tuple[str, str]:
    """Return the first letters of the patient directions of rows and columns, empty if unknown."""
    ends = (header.text("PatientOrientation") or "").upper().split()
    return (ends[0][:1], ends[1][:1]) if len(ends) == 2 else ("", "")


def _upright(
    header: DicomSlice, picture: np.ndarray, spacing: tuple[float, float] | None
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Turn the head up and the patient's left, or back, to the right, if the header has the orientation."""
    along_rows, along_columns = _ends(header)
    if along_rows in ("H", "F") and along_columns in ("L", "R", "A", "P"):
        picture, along_rows, along_columns = picture.T, along_columns, along_rows
        spacing = spacing and spacing[::-1]
    if along_columns == "H":
        picture = picture[::-1]
    if along_rows in ("R", "A"):
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture), spacing


def _pixel_mm(header: DicomSlice) -> tuple[tuple[float, float] | None, bool]:
    """Return the distance of columns and rows on the detector, and True if it is certain."""
    for keyword in ("ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        if spacing := header.numbers(keyword, 2):
            return (spacing[1], spacing[0]), True
    spacing = header.numbers("PixelSpacing", 2)
    if spacing is None:
        return None, True
    calibrated = header.text("PixelSpacingCalibrationType") is not None
    magnification = header.number("EstimatedRadiographicMagnificationFactor") or 1.0 if calibrated else 1.0
    return (spacing[1] * magnification, spacing[0] * magnification), magnification != 1


def check_pixel_size(
    pixel_mm: tuple[float, float] | None, shape: tuple[int, ...], certain: bool = True
) -> tuple[tuple[float, float] | None, tuple[ScanWarning, ...]]:
    """Return the distance of columns and rows, None if implausible for a chest radiograph, and warnings."""
    if pixel_mm is None:
        return None, ()
    sides = (pixel_mm[0] * shape[1], pixel_mm[1] * shape[0])
    if not all(MIN_SIDE_MM <= side <= MAX_SIDE_MM for side in sides):
        message = f"A size of {sides[0]:.4g} × {sides[1]:.4g} mm is impossible for a chest radiograph and ignored."
        return None, (ScanWarning("pixel-size-implausible", message),)
    if certain:
        return pixel_mm, ()
    message = "Pixel Spacing without a magnification is taken as that on the detector, which may be 5 to 15% off."
    return pixel_mm, (ScanWarning("pixel-size-uncertain", message),)


def _acquisition(header: DicomSlice) -> Acquisition:
    """Return the header's facts, with the age at the study if no age is given."""
    facts = with_pseudonym(acquisition_of([header]))
    if facts.patient_age_years is not None:
        return facts
    try:
        birth, study = (
            datetime.datetime.strptime(header.text(key) or "", "%Y%m%d") for key in ("PatientBirthDate", "StudyDate")
        )
    except ValueError:
        return facts
    years = study.year - birth.year - ((study.month, study.day) < (birth.month, birth.day))
    return replace(facts, patient_age_years=years) if 0 <= years <= 120 else facts
