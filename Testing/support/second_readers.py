"""What other implementations than those that wrote them read in DICOM objects: dcmqi, dcmtk, and GDCM in SimpleITK."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import Dataset

from CACScoringLib.core.labels import Artery, site_called
from CACScoringLib.exchange.codes import CORONARY, PLACES
from CACScoringLib.exchange.measurements import Group, score_groups, score_numbers
from CACScoringLib.exchange.segmentation import counted_labels
from CACScoringLib.results import ScoreResult

Numbers = dict[tuple[str, ...], float]
"""Measured values; by the group's tracking identifier and the concept's code, or by the code of the site and that."""


def check_objects(folder: Path, result: ScoreResult, scratch: Path) -> None:
    """Read every object of a folder by others, and compare with the result that it was made from.

    scratch: an empty folder. Skips the test where dcmqi or dcmtk is missing.
    """
    assert_same(counted_labels(result), segments_by_dcmqi(folder / "segmentation.dcm", scratch / "segments"))
    assert_same(result.decomposition.calcium_map, map_by_dcmqi(folder / "calcium_map.dcm", scratch / "map"))
    frames_by_gdcm = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "segmentation.dcm")))
    assert (frames_by_gdcm != 0).sum() == (sitk.GetArrayFromImage(counted_labels(result)) != 0).sum()
    groups = score_groups(result)
    stated = {(g.name, name.value): float(value) for g in groups for name, value, *_ in score_numbers(g)}
    assert measurements_by_dcmtk(folder / "measurements.dcm") == stated
    assert set(measurements_by_dcmqi(folder / "measurements.dcm", scratch)) == set(stated)
    assert scores_by_dcmtk(folder / "cardiovascular-report.dcm") == _coronary(groups)
    pdf = pydicom.dcmread(folder / "report.pdf.dcm")
    content = bytes(pdf.EncapsulatedDocument)[: pdf.EncapsulatedDocumentLength]
    assert pdf_by_dcmtk(folder / "report.pdf.dcm", scratch / "report.pdf") == content
    for path in folder.glob("key_*.dcm"):
        assert (sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0] == pydicom.dcmread(path).pixel_array).all()


def segments_by_dcmqi(path: Path, folder: Path) -> sitk.Image:
    """Labels of `Site`, on the grid that dcmqi gives them, from the names and the numbers of the segments."""
    folder.mkdir()
    run("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder, "--mergeSegments", "-t", "nrrd")
    about = json.loads((folder / "meta.json").read_text())["segmentAttributes"]
    assert len(about) == 1, "segments overlap"
    numbers = {segment["labelID"]: int(site_called(segment["SegmentLabel"])) for segment in about[0]}
    return sitk.ChangeLabel(sitk.Cast(sitk.ReadImage(str(folder / "1.nrrd")), sitk.sitkUInt8), numbers)


def map_by_dcmqi(path: Path, folder: Path) -> sitk.Image:
    folder.mkdir()
    run("paramap2itkimage", "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd")
    return sitk.ReadImage(str(folder / "pmap.nrrd"))


def measurements_by_dcmqi(path: Path, folder: Path) -> Numbers:
    """dcmqi gives what stands in Numeric Value, a decimal string of 16 characters."""
    run("tid1500reader", "--inputDICOM", path, "--outputMetadata", folder / "measurements.json")
    groups = json.loads((folder / "measurements.json").read_text())["Measurements"]
    return {
        (group["TrackingIdentifier"], item["quantity"]["CodeValue"]): float(item["value"])
        for group in groups
        for item in group["measurementItems"]
    }


def measurements_by_dcmtk(path: Path) -> Numbers:
    """With Floating Point Value, the full precision."""
    found = {}
    (groups,) = [i for i in content_by_dcmtk(path).ContentSequence if _name(i) == "126010"]
    for group in groups.ContentSequence:
        (tracked,) = [i.TextValue for i in group.ContentSequence if _name(i) == "112039"]
        numbers = [i for i in group.ContentSequence if i.ValueType == "NUM"]
        found |= {(tracked, _name(i)): _number(i) for i in numbers}
    return found


def scores_by_dcmtk(path: Path) -> Numbers:
    (scoring,) = [i for i in content_by_dcmtk(path).ContentSequence if _name(i) == "122603"]
    found = {}
    for item in scoring.ContentSequence:
        (site,) = [i for i in item.ContentSequence if _name(i) == "363698007"]
        found[site.ConceptCodeSequence[0].CodeValue, _name(item)] = _number(item)
    return found


def content_by_dcmtk(path: Path) -> Dataset:
    """An object as dcmtk's dcm2json tells it."""
    return Dataset.from_json(run("dcm2json", "+fc", path))


def pdf_by_dcmtk(path: Path, target: Path) -> bytes:
    run("dcm2pdf", path, target)
    return target.read_bytes()


def run(program: str, *arguments: str | Path) -> str:
    """What a program writes; the test is skipped where it is missing, and fails where it does."""
    found = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{program} is not installed (dcmqi from PyPI, Debian package dcmtk)")
    done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, f"{program} ended with {done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}"
    return done.stdout


def assert_same(expected: sitk.Image, found: sitk.Image) -> None:
    """A voxel of one is that of the other, at the same place; what `found` does not reach is 0."""
    near = sitk.Resample(found, expected, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0, expected.GetPixelID())
    assert (sitk.GetArrayViewFromImage(near) == sitk.GetArrayViewFromImage(expected)).all()
    corner = expected.TransformPhysicalPointToContinuousIndex(found.GetOrigin())
    assert np.abs(np.subtract(corner, np.rint(corner))).max() < 1e-3, "voxels lie between those of the scan"


def _coronary(groups: list[Group]) -> Numbers:
    """What the cardiovascular report states: the clinical score of the arteries and the total."""
    own = [g for g in groups if not g.by_map and (g.site is None or isinstance(g.site, Artery))]
    places = [(CORONARY if g.site is None else PLACES[g.site]).value for g in own]
    named = zip(own, places, strict=True)
    return {(place, name.value): float(value) for g, place in named for name, value, *_ in score_numbers(g)}


def _name(item: Dataset) -> str:
    return next(
        (str(code.get("CodeValue") or code.LongCodeValue) for code in item.get("ConceptNameCodeSequence", ())), ""
    )


def _number(item: Dataset) -> float:
    measured = item.MeasuredValueSequence[0]
    return float(measured.FloatingPointValue if "FloatingPointValue" in measured else measured.NumericValue)
