"""Faults of whole scans: plausible files that must be refused, or scored with a new warning."""

from __future__ import annotations

import gzip
from pathlib import Path
from random import Random

import numpy as np
import pydicom
import SimpleITK as sitk
from dicom_files import save
from pydicom.uid import generate_uid

from . import scored
from .target import Target, of

_HEADER_BYTES = 352
_IDENTITY = ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID")


def _edit(paths: list[Path], **tags: object) -> None:
    for path in paths:
        dataset = pydicom.dcmread(path)
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        save(dataset, path)


def _part(folder: Path, random: Random) -> list[Path]:
    """Some of the slices, most often neighbours; never all."""
    files = sorted(folder.glob("*.dcm"))
    if random.random() < 0.3:
        return random.sample(files, random.randrange(1, len(files)))
    first = random.randrange(len(files))
    return files[first : first + random.choice((1, 1, 2, 5, len(files) - 1))][: len(files) - 1]


def _mixed_patients(folder: Path, random: Random) -> str:
    keywords = random.sample(_IDENTITY, random.choice((1, 1, 2, 4)))
    part = _part(folder, random)
    _edit(part, **dict.fromkeys(keywords, "19990101"))
    return f"another {', '.join(keywords)} in {len(part)} slices"


def _another_rescale(folder: Path, random: Random) -> str:
    part = _part(folder, random)
    dataset = pydicom.dcmread(part[0])
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    if random.random() < 0.5:
        slope *= random.choice((-1, 0.5, 0.9, 1.1, 2, 10))
    else:
        intercept += random.choice((-9216, -1024, -100, 50, 100, 1024))
    _edit(part, RescaleSlope=slope, RescaleIntercept=intercept)
    return f"slope {slope:g} and intercept {intercept:g} in {len(part)} slices"


def _second_phase(folder: Path, random: Random) -> str:
    """A second phase of all or some slices, beside the first or in its place."""
    part = sorted(folder.glob("*.dcm")) if random.random() < 0.3 else _part(folder, random)
    keyword, values = random.choice((("TriggerTime", (300, 700)), ("NominalPercentageOfCardiacPhase", (40, 75))))
    beside = len(part) == len(list(folder.glob("*.dcm"))) or random.random() < 0.5
    _edit(list(folder.glob("*.dcm")), **{keyword: values[0]})
    for path in part:
        dataset = pydicom.dcmread(path)
        setattr(dataset, keyword, values[1])
        dataset.PixelData = np.roll(np.frombuffer(dataset.PixelData, "<u2"), 3).tobytes()
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        save(dataset, path.with_name(f"second {path.name}") if beside else path)
    return f"{keyword} in {len(part)} slices{' beside those of the first phase' * beside}"


def _write_floats(folder: Path) -> None:
    scored.write_ct(folder, "nii")
    image = sitk.ReadImage(str(folder / "ct.nii"))
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32), str(folder / "ct.nii"))


def _packed(path: Path, data: bytes, random: Random) -> str:
    """Write a NIfTI file as it is, or compressed in its place."""
    path.write_bytes(data)
    if random.random() < 0.5:
        return path.name
    path.unlink()
    path.with_name("ct.nii.gz").write_bytes(gzip.compress(data, 1))
    return "ct.nii.gz"


def _no_numbers(path: Path, random: Random) -> str:
    data = path.read_bytes()
    voxels = np.frombuffer(data, "<f4", offset=_HEADER_BYTES).copy()
    value, count = random.choice((np.nan, np.inf, -np.inf)), random.choice((1, 1, 5, 300))
    voxels[[random.randrange(voxels.size) for _ in range(count)]] = value
    return f"{value} in up to {count} voxels of {_packed(path, data[:_HEADER_BYTES] + voxels.tobytes(), random)}"


def _another_geometry(path: Path, random: Random) -> str:
    """Change sform, qform or pixdim (nifti1.h) of a file where they agree."""
    data = bytearray(path.read_bytes())
    sform = np.frombuffer(data, "<f4", 12, 280).reshape(3, 4).copy()
    kind = random.choice(("flip", "exchange", "scale", "move", "pixdim", "turn"))
    axis = random.randrange(3)
    if kind == "flip":
        sform[:, axis] *= -1
    elif kind == "exchange":
        sform[[axis, (axis + 1) % 3]] = sform[[(axis + 1) % 3, axis]]
    elif kind == "scale":
        sform[:, axis] *= random.choice((0.5, 0.9, 1.01, 2))
    elif kind == "move":
        sform[axis, 3] += random.choice((-30, 5, 100))
    elif kind == "pixdim":
        spacing = np.frombuffer(data, "<f4", 1, 80 + 4 * axis) * random.choice((0.5, 0.9, 1.01, 2))
        data[80 + 4 * axis : 84 + 4 * axis] = spacing.astype("<f4").tobytes()
    else:
        data[256:268] = np.array(random.choice(((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0.6, 0.8))), "<f4").tobytes()
    data[280:328] = sform.tobytes()
    return f"{kind} axis {axis} of {_packed(path, bytes(data), random)}"


def _refused(_: Path) -> str:
    return "was scored"


def _doubted(folder: Path) -> str:
    return "" if scored.new_warnings(folder) else "was scored without a new warning"


def _write_series(folder: Path) -> None:
    scored.write_ct(folder, "dicom")


def _write_nifti(folder: Path) -> None:
    scored.write_ct(folder, "nii")


TARGETS = {
    "mixed patients": Target(_write_series, of("ct", _mixed_patients), scored.score, _refused),
    "rescale": Target(_write_series, of("ct", _another_rescale), scored.score, _refused),
    "phases": Target(_write_series, of("ct", _second_phase), scored.score, _doubted),
    "not numbers": Target(_write_floats, of("ct.nii", _no_numbers), scored.score, _refused),
    "sform": Target(_write_nifti, of("ct.nii", _another_geometry), scored.score, _refused),
}
