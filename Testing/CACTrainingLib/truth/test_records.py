"""Records from results and truth, against the same figures computed from the files."""

import json
import shutil
from dataclasses import replace

import pytest
import SimpleITK as sitk
from digital_pairs import CALCIFIED, CLEAN, POSITIVE_FROM
from study_samples import record as made_record

from CACScoringLib.core.errors import CTError, MaskError
from CACScoringLib.core.labels import ARTERIES, Artery
from CACScoringLib.scoring.uncertainty import TOTAL
from CACTrainingLib.truth.records import HU_MM3, make_record


@pytest.fixture(scope="module")
def calcified(digital_results):
    return first_scan(digital_results, CALCIFIED)


@pytest.fixture(scope="module")
def clean(digital_results):
    return first_scan(digital_results, CLEAN)[2]


def first_scan(results, patient):
    """The patient's first scan, the folder of its results, and its record."""
    scan, folder = next(result for result in zip(*results, strict=True) if result[0].patient == str(patient))
    return scan, folder, make_record(scan, folder)


def array(folder, name):
    return sitk.GetArrayFromImage(sitk.ReadImage(folder / f"{name}.nii.gz"))


def content_of(folder):
    return json.loads((folder / "scores.json").read_text(encoding="utf-8"))


VOXEL_MM3 = (400 / 128) ** 2 * 5


@pytest.mark.long
def test_masses_are_mg(calcified):
    scan, folder, record = calcified
    truth = json.loads(scan.truth.read_text(encoding="utf-8"))
    per_mg = 1000 * truth["calcium_hu_per_mg_cm3"]
    hu, regions = array(scan.truth.parent, "ct").astype(float), array(scan.truth.parent, "regions")
    # Every voxel is larger than the least area, so that none is dropped.
    dense = (hu >= 130) & (regions > 0)
    assert dense.any()
    assert record.values["reader"][TOTAL][0] == pytest.approx(hu[dense].sum() * VOXEL_MM3 / per_mg)
    by_artery = {a: record.values["reader"][a][0] for a in ARTERIES}
    assert by_artery["LAD"] == pytest.approx(hu[dense & (regions == Artery.LAD)].sum() * VOXEL_MM3 / per_mg)
    calcium = array(scan.truth.parent, "calcium_map")
    assert record.values["noise_free"][TOTAL][0] == pytest.approx(
        calcium[calcium > 0].sum() * VOXEL_MM3 / 1000, rel=1e-4
    )
    counted = array(folder, "calcium_map")[array(folder, "map_lesions") > 0]
    in_map = pytest.approx(counted.sum() * VOXEL_MM3 / per_mg, rel=1e-4)
    assert record.values["map"][TOTAL][0] == in_map == sum(mass for _, mass, _ in record.map_lesions)
    assert any(is_coronary for _, _, is_coronary in record.map_lesions)
    total = content_of(folder)["methods"]["threshold"]["total"]
    assert record.values["automatic"][TOTAL][0] == pytest.approx(total["pseudo_mass_hu_mm3"] / per_mg)
    assert record.values["automatic"][TOTAL][1] == pytest.approx(total["agatston"])


@pytest.mark.long
def test_slices(calcified, clean):
    scan, folder, record = calcified
    truth = json.loads(scan.truth.read_text(encoding="utf-8"))
    probabilities = content_of(folder)["slice_probabilities"]
    expected = [label["visible"] for label in truth["slices"] if probabilities[label["k"]] is not None]
    assert [is_visible for is_visible, _ in record.slices] == expected
    assert record.slice_threshold == POSITIVE_FROM
    assert record.values["slices"][TOTAL][0] == sum(p is not None for p in probabilities)
    assert not any(is_visible for is_visible, _ in clean.slices)


@pytest.mark.long
def test_heart(calcified):
    scan, folder, record = calcified
    predicted, true = array(folder, "heart") > 0, array(scan.truth.parent, "heart") > 0
    assert record.heart["dice"] == pytest.approx(2 * (predicted & true).sum() / (predicted.sum() + true.sum()))
    assert record.heart["surface_mm"] < record.heart["hausdorff_mm"]


@pytest.fixture
def users_scan(calcified):
    """The same scan as a user's: a CT with a reader's masks, without truth."""
    scan, folder, record = calcified
    reader_scan = replace(
        scan, truth=None, lesions=scan.truth_file("regions.nii.gz"), heart=scan.truth_file("heart.nii.gz")
    )
    return reader_scan, folder, record


@pytest.mark.long
def test_a_readers_masks_stand_for_the_truth_that_nobody_knows(users_scan):
    scan, folder, digital = users_scan
    record = make_record(scan, folder)
    assert (record.unit, record.truth_mg, record.kind) == (HU_MM3, None, "visible")
    assert "noise_free" not in record.values
    hu_per_mg = digital.facts.hu_mm3_per_mass
    assert record.values["reader"][TOTAL][0] == pytest.approx(hu_per_mg * digital.values["reader"][TOTAL][0])
    assert record.values["reader"][TOTAL][1] == digital.values["reader"][TOTAL][1]
    assert record.heart == digital.heart
    regions = array(scan.ct.parent, "regions")
    probabilities = content_of(folder)["slice_probabilities"]
    expected = [bool(regions[k].any()) for k, p in enumerate(probabilities) if p is not None]
    assert [is_visible for is_visible, _ in record.slices] == expected
    assert {holds for _, _, holds in record.map_lesions} == {None}


@pytest.mark.long
def test_results_without_a_map_are_refused(calcified, tmp_path):
    scan, folder, _ = calcified
    content = content_of(folder)
    content["methods"].pop("decomposition")
    (tmp_path / "scores.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CTError, match="clinical rule alone"):
        make_record(scan, tmp_path)


@pytest.mark.long
def test_results_of_another_scan_are_refused(digital_results, tmp_path):
    scans, folders = digital_results
    shutil.copytree(folders[0], tmp_path / "other")
    image = sitk.ReadImage(folders[0] / "map_lesions.nii.gz")
    sitk.WriteImage(image[:, :, 1:], tmp_path / "other" / "map_lesions.nii.gz")
    with pytest.raises(MaskError, match="grid"):
        make_record(scans[0], tmp_path / "other")


DISTRACTORS = ("aortic wall",)


@pytest.mark.parametrize(
    ("visible", "true_mg", "distractors", "kind"),
    [
        (True, 3.0, (), "visible"),
        (False, 0.2, DISTRACTORS, "hidden"),
        (False, 0.0, DISTRACTORS, "distractor"),
        (False, 0.0, (), "clean"),
        (False, None, (), None),
        (None, None, (), None),
    ],
)
def test_kind(visible, true_mg, distractors, kind):
    truth_mg = None if true_mg is None else {TOTAL: true_mg}
    assert made_record(visible=visible, truth_mg=truth_mg, distractors=distractors).kind == kind
