"""Stability: changes on analytic scans, comparison of lesions, and tables of known scores."""

from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of
from in_this_process import InThisProcess
from study_tables import csv_lines

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import AIR_HU, CTScan, scan_from_image
from CACScoringLib.core.grid import Grid
from CACScoringLib.scans.source import ScanSource
from CACTrainingLib.evaluation import jobs
from CACTrainingLib.evaluation.jobs import StudyError
from CACTrainingLib.studies import stability
from CACTrainingLib.studies.stability import AS_IT_IS, AVERAGED, StabilitySettings, evaluate_stability

HEART = (slice(3, 6), slice(15, 20), slice(30, 36))


def body(shape=(10, 40, 90), spacing_mm=2.0) -> CTScan:
    """Return tissue with 25 columns of air on its right, 5 on its left, and 2 rows before and none behind it."""
    hu = np.full(shape, AIR_HU, np.int16)
    hu[:, 2:, 25:85] = 40
    hu[HEART] = np.arange(3)[:, None, None] * 100
    return scan_from_image(image_of(hu, (1.0, 1.0, spacing_mm)), Acquisition("memory", slice_thickness_mm=spacing_mm))


def heart_of(scan: CTScan, slices: slice = HEART[0]) -> sitk.Image:
    mask = np.zeros(scan.hu.shape, np.uint8)
    mask[(slices, *HEART[1:])] = 1
    return Grid.of(scan.image).image(mask)


def test_changes_keep_the_heart_where_it_is():
    scan = body()
    changed = dict(stability.changes(scan, heart_of(scan), seed=3))
    sizes = {name: image.GetSize() for name, image in changed.items()}
    assert sizes == {
        "air cut off, right": (70, 40, 10),
        "air cut off, left": (85, 40, 10),
        "air cut off, front": (90, 38, 10),
        "air added": (130, 80, 10),
        "lowest slice cut off": (90, 40, 9),
        "highest slice cut off": (90, 40, 9),
        **dict.fromkeys(("2 HU more", "2 HU less", "noise of 3 HU", "half a voxel moved"), (90, 40, 10)),
    }
    place = scan.image.TransformIndexToPhysicalPoint((33, 17, 5))
    for name, image in changed.items():
        if name != "half a voxel moved":
            hu = image[image.TransformPhysicalPointToIndex(place)]
            assert abs(hu - 200) <= (15 if "noise" in name else 2), name
    noise = sitk.GetArrayFromImage(changed["noise of 3 HU"]).astype(float) - scan.hu
    assert noise[scan.hu > 0].std() == pytest.approx(3.0, rel=0.05)
    assert min(sitk.GetArrayViewFromImage(image).min() for image in changed.values()) == AIR_HU
    assert changed["half a voxel moved"].GetOrigin() == (0.5, 0.5, 0.0)


def test_slices_of_the_heart_are_not_cut_off():
    scan = body()
    names = [name for name, _ in stability.changes(scan, heart_of(scan, slice(0, 10)), seed=0)]
    assert not any("slice" in name for name in names)


def test_averaged_slices_are_means_and_twice_as_thick():
    thick = stability.averaged(body())
    assert thick.image.GetSize() == (90, 40, 5)
    assert thick.slice_spacing_mm == thick.acquisition.slice_thickness_mm == 4.0
    assert thick.hu[2, 17, 33] == 150, "slices 4 and 5 have 100 and 200 HU"
    assert stability.averaged(body(spacing_mm=5.0)) is None


@pytest.mark.parametrize(
    ("lesions", "others", "expected"),
    [([0, 20], [4, 20], 0), ([0, 20], [20], 1), ([0], [6], 2), ([], [0, 20], 2), ([], [], 0)],
)
def test_lesions_come_and_go_beyond_5_mm(lesions, others, expected):
    first, second = ([["RCA", x, 0.0, 0.0, 9.0] for x in places] for places in (lesions, others))
    assert stability.count_unmatched(first, second) == expected


def test_the_range_is_divided_by_the_mean():
    assert stability.relative_range([90.0, 100.0, 110.0]) == 0.2
    assert stability.relative_range([0.0, 0.0]) == 0.0


def row_of(change, automatic, of_map=10.0, lesions=(0.0,), refused=None):
    if refused:
        return {"change": change, "refused": refused}
    middles = [["LAD", x, 0.0, 0.0, 5.0] for x in lesions]
    return {"change": change, "refused": None, "automatic": automatic, "map": of_map, "lesions": middles}


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Two scans of known scores, one that cannot be read, and the number of scans scored so far."""
    rows = {
        "stable": [
            row_of(AS_IT_IS, 50.0),
            row_of("air added", 50.0),
            row_of("2 HU more", 50.0),
            row_of(AVERAGED, 40.0, 9.0),
        ],
        "unstable": [
            row_of(AS_IT_IS, 90.0),
            row_of("air added", 110.0, 12.0, (0.0, 50.0)),
            row_of("2 HU more", 0.0, refused="no heart"),
        ],
    }
    scored = []

    def scores(_, job):
        scored.append(job[0].name)
        if job[0].name not in rows:
            raise ValueError("unreadable")
        return {"scores": rows[job[0].name]}

    table = tmp_path / "scans.csv"
    for name in (*rows, "broken"):
        (tmp_path / f"{name}.nrrd").touch()
    table.write_text("ct,name\n" + "".join(f"{name}.nrrd,{name}\n" for name in (*rows, "broken")), encoding="utf-8")
    monkeypatch.setattr(jobs, "Workers", InThisProcess)
    monkeypatch.setattr(stability, "scoring_models", lambda _: {})
    monkeypatch.setattr(stability, "with_networks", lambda do_job, *_: partial(do_job, None))
    monkeypatch.setattr(stability, "_scores", scores)
    return StabilitySettings(table, tmp_path / "out"), scored


def lines_of(folder, name):
    return csv_lines(folder / "tables" / f"{name}.csv")[1:]


def test_tables_of_known_scores(study):
    settings, scored = study
    page = evaluate_stability(settings)
    assert "1 scan failed" in page.read_text(encoding="utf-8")
    assert lines_of(settings.output, "stability_scans") == [
        ["stable", "50.0", "50.0", "50.0", "0.0", "1", "0", "0 of 2", "10.0", "0.0"],
        ["unstable", "90.0", "90.0", "110.0", "0.2", "1", "1", "1 of 1", "10.0", "0.182"],
    ]
    assert lines_of(settings.output, "stability_changes") == [
        ["air added", "2", "0.2", "1", "0.182", "0"],
        ["2 HU more", "1", "0.0", "0", "0.0", "1"],
    ]
    assert lines_of(settings.output, "stability_thickness") == [["stable", "50.0", "40.0", "10.0", "9.0"]]
    assert len((settings.output / stability.SCORES).read_text(encoding="utf-8").splitlines()) == 1 + 7
    scored.clear()
    evaluate_stability(settings)
    assert scored == ["broken"], "only what failed is done again"


def test_scans_of_one_name_are_kept_apart(study, monkeypatch):
    settings, _ = study
    scans = [ScanSource("ct", "", settings.data, key=key) for key in ("first/ct.nrrd", "second/ct.nrrd")]
    monkeypatch.setattr(stability, "scans_of", lambda *_: (scans, ()))
    monkeypatch.setattr(stability, "_scores", lambda _, job: {"scores": [row_of(AS_IT_IS, float(len(job[0].key)))]})
    evaluate_stability(settings)
    assert [line[:2] for line in lines_of(settings.output, "stability_scans")] == [
        ["first/ct.nrrd", "13.0"],
        ["second/ct.nrrd", "14.0"],
    ]
    monkeypatch.setattr(stability, "scans_of", lambda *_: ([], ()))
    with pytest.raises(StudyError, match="there is none"):
        evaluate_stability(settings)
