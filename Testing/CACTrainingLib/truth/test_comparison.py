"""A scan compared with its reference: the same calcium gives the same score in every format."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import SimpleITK as sitk
from digital_pairs import CALCIFIED, known_networks, write_coarse
from reference_files import write_coca_gated, write_coca_nongated, write_denser, write_label_maps, write_orcascore

from CACScoringLib.core.decoding import restore
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.labels import Artery
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_ct
from CACScoringLib.pipeline import score_scan
from CACScoringLib.run import RunSettings, write_result
from CACTrainingLib.references.registry import read_reference
from CACTrainingLib.truth.comparison import Job, compare
from CACTrainingLib.truth.records import ComparedScan

QUANTITIES = ("agatston", "clinical_agatston", "volume_mm3", "pseudo_mass_hu_mm3", "lesions")
"""Quantities that add up over lesions."""


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("denser")
    write_coarse(CALCIFIED, folder / "digital")
    return write_denser(folder / "digital", folder / "scan")


@pytest.fixture(scope="module")
def results(scan, tmp_path_factory):
    """Folder of the scan's results."""
    folder = tmp_path_factory.mktemp("results") / "scan"
    result = score_scan(read_ct(scan / "ct.nii.gz"), networks=known_networks())
    write_result(OutputFolder(folder), result, RunSettings(), Progress())
    return folder


def job_of(reference, results, output):
    return Job(reference.scans[0], results, reference.vessels, output)


def compared(reference, results, output):
    return compare(job_of(reference, results, output))


def rows(scan, method, of_reference):
    """Lesions of the reference, or those that count, by a method."""
    rows = [row for row in scan.lesions if (row.method, row.of_reference) == (method, of_reference)]
    return rows if of_reference else [row for row in rows if row.found]


def test_all_formats_give_the_same_scores(scan, results, tmp_path):
    scores = {"1A": (0, 1, 2, 3, 6)}
    nongated = write_coca_nongated(tmp_path, {1: scan}, scores)
    references = {
        "labels": read_reference(write_label_maps(tmp_path / "maps", {"a": scan})),
        "gated": read_reference(write_coca_gated(tmp_path / "gated", {0: scan})),
        "orcascore": read_reference(write_orcascore(tmp_path / "orcascore", {"TRV1P1": scan})),
        "nongated": read_reference(nongated),
    }
    comparisons = {name: compared(reference, results, tmp_path) for name, reference in references.items()}
    first = comparisons["labels"]
    assert first.total > 0
    assert sum(first.vessels.values()) == pytest.approx(first.total)
    for name in ("gated", "orcascore"):
        assert comparisons[name].total == pytest.approx(first.total, rel=1e-4), name
        assert comparisons[name].measured("automatic") == first.measured("automatic")
    assert comparisons["gated"].vessels == pytest.approx(first.vessels, rel=1e-4)
    assert comparisons["orcascore"].vessels["LM and LAD"] == pytest.approx(
        first.vessels["LM"] + first.vessels["LAD"], rel=1e-4
    )
    table = comparisons["nongated"]
    assert (table.total, table.vessels["LCX"], table.has_outlines) == (6.0, 2.0, False)
    assert all(row.found for row in rows(first, "automatic", True))
    assert restore(json.loads(json.dumps(asdict(first))), ComparedScan) == first


def test_false_positives_are_identified_by_voxels(scan, results, tmp_path):
    """Removing the reference's largest lesion makes the method's lesion there a false positive of the same score."""
    folder = write_label_maps(tmp_path, {"a": scan})
    full = compared(read_reference(folder), results, tmp_path)
    image = sitk.ReadImage(str(folder / "a-lesions.nii.gz"))
    labels = sitk.GetArrayFromImage(image)
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    removed = int(values[counts.argmax()])
    sitk.WriteImage(sitk.ChangeLabel(image, {removed: 9}), str(folder / "a-lesions.nii.gz"))
    reduced = compared(read_reference(folder), results, tmp_path)
    former, after = ([row for row in rows(scan, "automatic", False) if not row.true] for scan in (full, reduced))
    new = [row for row in after if row.agatston not in {row.agatston for row in former}]
    assert {row.at for row in new} == {"mitral_annulus"}
    assert sum(row.agatston for row in new) == pytest.approx(full.total - reduced.total, rel=0.01)
    assert len(rows(reduced, "map", False)) == len(rows(full, "map", False))


def test_outlines_are_scored_by_the_rules_of_the_result(scan, results, tmp_path):
    reference = read_reference(write_label_maps(tmp_path / "maps", {"a": scan}))
    folder = shutil.copytree(results, tmp_path / "result")
    content = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    content["rules"]["threshold"]["reference_spacing_mm"] *= 2
    (folder / "scores.json").write_text(json.dumps(content), encoding="utf-8")
    expected = compared(reference, results, tmp_path).total / 2
    assert compared(reference, folder, tmp_path).total == pytest.approx(expected)


def test_what_an_automatic_score_leaves_out_is_not_counted(scan, results, tmp_path):
    """The largest candidate is excluded and labelled as such; the others lie in an artery."""
    reference = read_reference(write_label_maps(tmp_path / "maps", {"a": scan}))
    job = job_of(reference, tmp_path / "automatic", tmp_path)
    shutil.copytree(results, job.folder)
    content = json.loads((results / "scores.json").read_text("utf-8"))
    threshold = content["methods"]["threshold"]
    *counted, left_out = sorted(threshold["lesions"], key=lambda lesion: lesion["voxels"])
    for score in (threshold["total"], threshold["arteries"][left_out["artery"]]):
        score |= {name: score[name] - left_out[name] for name in QUANTITIES}
    left_out |= {"suggested_artery": "LAD", "confidence": 1.0, "not_coronary_probability": 0.6, "probability": 0.4}
    threshold |= {"status": "automatic", "lesions": counted, "left_out": [left_out]}
    (job.folder / "scores.json").write_text(json.dumps(content), "utf-8")
    image = sitk.ReadImage(str(results / "lesions.nii.gz"))
    pieces = sitk.ConnectedComponent(image > 0, True)
    x, y, z = left_out["centroid_ras_mm"]
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(pieces)
    distances = {piece: np.linalg.norm(np.array(shape.GetCentroid(piece)) - (-x, -y, z)) for piece in shape.GetLabels()}
    excluded = pieces == min(distances, key=distances.get)
    labels = excluded * int(Artery.UNASSIGNED) + ((image > 0) & ~excluded) * int(Artery.LAD)
    sitk.WriteImage(sitk.Cast(labels, sitk.sitkUInt8), str(job.folder / "lesions.nii.gz"))
    full, reduced = compared(reference, results, tmp_path), compare(job)
    before, after = (rows(scan, "automatic", False) for scan in (full, reduced))
    assert len(after) == len(before) - 1
    assert all(row.found for row in rows(full, "automatic", True))
    by_reference = rows(reduced, "automatic", True)
    assert [row.found for row in by_reference] == [False] + [True] * (len(by_reference) - 1)
    assert all(row.found for row in rows(reduced, "map", True))
    assert sum(not row.true for row in after) == sum(not row.true for row in before)


def test_results_that_do_not_fit_are_refused(scan, results, tmp_path):
    reference = read_reference(write_label_maps(tmp_path / "maps", {"a": scan}))
    job = job_of(reference, tmp_path / "copy", tmp_path)
    shutil.copytree(results, job.folder)
    empty = sitk.ReadImage(str(results / "lesions.nii.gz")) * 0
    sitk.WriteImage(empty, str(job.folder / "lesions.nii.gz"))
    with pytest.raises(CTError, match=r"lesions.nii.gz does not fit scores.json"):
        compare(job)
    content = json.loads((results / "scores.json").read_text("utf-8"))
    content["methods"]["threshold"]["status"] = "reviewed"
    (job.folder / "scores.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(CTError, match="with a reader's lesions"):
        compare(replace(job))  # reads its files again
