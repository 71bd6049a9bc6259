"""Records from results and truth, against the same figures computed from the files."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk
from digital_pairs import CALCIFIED, CLEAN, POSITIVE_FROM
from study_samples import record as made_record

from CACScoringLib.core.errors import MaskError
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import ARTERIES, Artery
from CACScoringLib.scoring.uncertainty import TOTAL
from CACTrainingLib.references.segmentations import lesions_on_grid
from CACTrainingLib.truth.comparison import Job, compare
from CACTrainingLib.truth.evaluation import WITHOUT_MAP, usable
from CACTrainingLib.truth.records import HU_MM3
from CACTrainingLib.truth.scored_scan import CORONARY_MG_CM3


@pytest.fixture(scope="module")
def calcified(digital_results):
    return first_scan(digital_results, CALCIFIED)


@pytest.fixture(scope="module")
def clean(digital_results):
    return first_scan(digital_results, CLEAN)[2]


def first_scan(results, patient):
    """The patient's first scan, the folder of its results, and its record."""
    scan, folder = next(result for result in zip(*results, strict=True) if result[0].patient == str(patient))
    return scan, folder, compare(Job(scan, folder))


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
    in_map = [row for row in record.lesions if row.method == "map" and row.found and not row.of_reference]
    counted = array(folder, "calcium_map")[array(folder, "map_lesions") > 0]
    mass_of_map = pytest.approx(counted.sum() * VOXEL_MM3 / per_mg, rel=1e-4)
    assert record.values["map"][TOTAL][0] == mass_of_map == sum(row.mass for row in in_map)
    assert any(row.true for row in in_map)
    total = content_of(folder)["methods"]["threshold"]["total"]
    assert record.values["automatic"][TOTAL][0] == pytest.approx(total["pseudo_mass_hu_mm3"] / per_mg)
    assert record.values["automatic"][TOTAL][1] == pytest.approx(total["agatston"])


@pytest.mark.long
def test_coronary_calcium_is_that_of_the_calibration(calcified):
    """Of one density in every scan, whatever HU it adds at the tube voltage."""
    scan, folder, _ = calcified
    density = array(scan.truth.parent, "calcium_map")
    factor = json.loads(scan.truth.read_text(encoding="utf-8"))["calcium_hu_per_mg_cm3"]
    coronary = Job(scan, folder).coronary
    assert (coronary == (density >= CORONARY_MG_CM3)).all()
    assert coronary.sum() != (density * factor >= CORONARY_MG_CM3).sum()


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
    reader_scan = replace(scan, truth=None, heart=scan.truth_file("heart.nii.gz"))
    return reader_scan, folder, record


@pytest.mark.long
def test_a_readers_masks_stand_for_the_truth_that_nobody_knows(users_scan):
    scan, folder, digital = users_scan
    record = compare(Job(scan, folder))
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


@pytest.mark.long
def test_results_without_a_map_are_refused(calcified, tmp_path):
    scan, folder, _ = calcified
    content = content_of(folder)
    content["methods"].pop("decomposition")
    (tmp_path / "scores.json").write_text(json.dumps(content), encoding="utf-8")
    shutil.copy(folder / "lesions.nii.gz", tmp_path)
    shutil.copy(folder / "heart.nii.gz", tmp_path)
    assert usable(scan, compare(Job(scan, tmp_path))).refused == WITHOUT_MAP


@pytest.mark.long
def test_results_of_another_scan_are_refused(digital_results, tmp_path):
    scans, folders = digital_results
    shutil.copytree(folders[0], tmp_path / "other")
    image = sitk.ReadImage(folders[0] / "map_lesions.nii.gz")
    sitk.WriteImage(image[:, :, 1:], tmp_path / "other" / "map_lesions.nii.gz")
    with pytest.raises(MaskError, match="grid"):
        compare(Job(scans[0], tmp_path / "other"))


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


def slices_of(calcified):
    """Visibility of calcium by slice."""
    truth = json.loads(calcified[0].truth.read_text(encoding="utf-8"))
    return {int(s["k"]): bool(s["visible"]) for s in truth["slices"]}


@pytest.mark.long
class TestRecords:
    """Records of clinical scans from slice labels and regions."""

    def record(self, calcified, labels, **more):
        about = {"labels": None if labels is None else tuple(labels.items()), "outlines": None} | more
        return compare(Job(replace(calcified[0], truth=None, **about), calcified[1]))

    def test_no_slice_with_heart_shows_any(self, calcified):
        none = dict.fromkeys(slices_of(calcified), False)
        record = self.record(calcified, none, total=0.0)
        assert (record.visible, record.visible_arteries) == (False, ())
        assert record.values["reader"]["total"][0] == 0
        assert not any(is_visible for is_visible, _ in record.slices)
        assert len(record.slices) > 5

    def test_a_slice_shows_calcium_that_nobody_painted(self, calcified, tmp_path):
        record = self.record(calcified, slices_of(calcified))
        assert record.visible
        assert record.visible_arteries is None, "nobody said in which artery"
        empty = sitk.ReadImage(str(calcified[0].truth_file("regions.nii.gz"))) * 0
        sitk.WriteImage(empty, str(tmp_path / "empty.nii.gz"))
        assert (
            self.record(calcified, slices_of(calcified), outlines=partial(lesions_on_grid, tmp_path / "empty.nii.gz"))
            == record
        )
        seen_none = self.record(calcified, None, outlines=partial(lesions_on_grid, tmp_path / "empty.nii.gz"))
        assert (seen_none.visible, seen_none.values["reader"]["total"][0]) == (False, 0)

    def test_voxels_below_the_clinical_threshold_do_not_count(self, calcified, tmp_path):
        """A region that covers all of a slice below 130 HU."""
        regions = sitk.ReadImage(str(calcified[0].truth_file("regions.nii.gz")))
        array = sitk.GetArrayFromImage(regions)
        ct = sitk.GetArrayFromImage(sitk.ReadImage(str(calcified[0].ct)))
        faint = np.where(ct < 130, np.uint8(2), np.uint8(0))
        assert array.any()
        assert faint.any()
        sitk.WriteImage(Grid.of(regions).image(faint), str(tmp_path / "faint.nii.gz"))
        record = self.record(calcified, None, outlines=partial(lesions_on_grid, tmp_path / "faint.nii.gz"))
        assert record.values["reader"]["total"][0] == 0
        assert record.visible, "the reader says that something is there"
