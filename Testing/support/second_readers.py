"""Read DICOM objects with other implementations than wrote them: dcmqi, dcmtk, and GDCM in SimpleITK."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset

from CACScoringLib.core.labels import site_called
from CACScoringLib.exchange.images import counted_labels
from CACScoringLib.exchange.measurements import fat_numbers, feature_numbers, score_groups, score_numbers
from CACScoringLib.results import ScoreResult

Numbers = dict[tuple[str, ...], float]
"""Measured values by the group's tracking identifier and the concept's code."""


def check_objects(folder: Path, result: ScoreResult, scratch: Path) -> None:
    """Read every object of a folder with other implementations, and compare with its result.

    The scratch folder is empty. Skips the test without dcmqi or dcmtk.
    """
    assert_same(counted_labels(result), segments_by_dcmqi(folder / "segmentation.dcm", scratch / "segments"))
    frames_by_gdcm = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "segmentation.dcm")))
    assert (frames_by_gdcm != 0).sum() == (sitk.GetArrayFromImage(counted_labels(result)) != 0).sum()
    numbers = {g.name: [*score_numbers(g), *feature_numbers(g)] for g in score_groups(result)}
    if result.record.epicardial_fat is not None:
        numbers["Epicardial fat"] = fat_numbers(result.record.epicardial_fat)
    stated = {(group, name.value): float(value) for group, values in numbers.items() for name, value, *_ in values}
    assert measurements_by_dcmtk(folder / "measurements.dcm") == stated
    assert set(measurements_by_dcmqi(folder / "measurements.dcm", scratch)) == set(stated)


def segments_by_dcmqi(path: Path, folder: Path) -> sitk.Image:
    """Labels of `Site` on dcmqi's grid, from the names and numbers of the segments."""
    folder.mkdir()
    run("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder, "--mergeSegments", "-t", "nrrd")
    about = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["segmentAttributes"]
    assert len(about) == 1, "segments overlap"
    numbers = {segment["labelID"]: int(site_called(segment["SegmentLabel"])) for segment in about[0]}
    return sitk.ChangeLabel(sitk.Cast(sitk.ReadImage(str(folder / "1.nrrd")), sitk.sitkUInt8), numbers)


def measurements_by_dcmqi(path: Path, folder: Path) -> Numbers:
    """Values in Numeric Value, a decimal string of 16 characters."""
    run("tid1500reader", "--inputDICOM", path, "--outputMetadata", folder / "measurements.json")
    groups = json.loads((folder / "measurements.json").read_text(encoding="utf-8"))["Measurements"]
    return {
        (group["TrackingIdentifier"], item["quantity"]["CodeValue"]): float(item["value"])
        for group in groups
        for item in group["measurementItems"]
    }


def measurements_by_dcmtk(path: Path) -> Numbers:
    """Values in Floating Point Value, in full precision."""
    numbers_of_groups = {}
    (groups,) = [i for i in content_by_dcmtk(path).ContentSequence if _name(i) == "126010"]
    for group in groups.ContentSequence:
        (tracked,) = [i.TextValue for i in group.ContentSequence if _name(i) == "112039"]
        numbers = [i for i in group.ContentSequence if i.ValueType == "NUM"]
        numbers_of_groups |= {(tracked, _name(i)): _number(i) for i in numbers}
    return numbers_of_groups


def content_by_dcmtk(path: Path) -> Dataset:
    """Read an object with dcmtk's dcm2json."""
    return Dataset.from_json(run("dcm2json", "+fc", path))


def run(program: str, *arguments: str | Path) -> str:
    """Run a program and return its output; skip the test without it, fail the test if it fails."""
    path = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if path is None:
        pytest.skip(f"{program} is not installed (dcmqi from PyPI, Debian package dcmtk)")
    process = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, errors="replace")
    assert process.returncode == 0, f"{program}, {process.returncode}: {(process.stdout + process.stderr)[-1000:]}"
    return process.stdout


def assert_same(expected: sitk.Image, actual: sitk.Image) -> None:
    """Assert equal voxels at equal positions; voxels outside `actual` are 0."""
    resampled = sitk.Resample(actual, expected, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0, expected.GetPixelID())
    assert (sitk.GetArrayViewFromImage(resampled) == sitk.GetArrayViewFromImage(expected)).all()
    corner = expected.TransformPhysicalPointToContinuousIndex(actual.GetOrigin())
    assert np.abs(np.subtract(corner, np.rint(corner))).max() < 1e-3, "voxels lie between those of the scan"


def _name(item: Dataset) -> str:
    return next(
        (str(code.get("CodeValue") or code.LongCodeValue) for code in item.get("ConceptNameCodeSequence", ())), ""
    )


def _number(item: Dataset) -> float:
    measured = item.MeasuredValueSequence[0]
    return float(measured.FloatingPointValue if "FloatingPointValue" in measured else measured.NumericValue)
