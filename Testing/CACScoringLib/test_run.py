"""Read, score, write: what every command that scores a CT has in common."""

import json
from dataclasses import replace

import automatic_patient
import numpy as np
import panel_results
import pytest
import SimpleITK as sitk

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.errors import MaskError
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery
from CACScoringLib.models.choice import LoadedModels
from CACScoringLib.pipeline import ScoreSettings
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.review.scan_review import ScanReview
from CACScoringLib.review.state import ReviewFolder
from CACScoringLib.run import RunSettings, SamplePatient, ScanInput, read_lesions, run_scan

MASSES = {Artery.LAD: 12.0}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small chest, its heart, and labels of its lesions."""
    folder = tmp_path_factory.mktemp("scan")
    image = panel_results.chest_image()
    sitk.WriteImage(image, folder / "ct.nrrd")
    sitk.WriteImage(panel_results.heart_mask(image), folder / "heart.nrrd")
    sitk.WriteImage(labels(image, Artery.RCA), folder / "lesions.nrrd")
    return ScanInput(folder / "ct.nrrd", heart=folder / "heart.nrrd", lesions=folder / "lesions.nrrd")


def labels(image, artery):
    """Everything above 200 HU as lesions of one artery."""
    return Grid.of(image).image((sitk.GetArrayFromImage(image) > 200).astype(np.uint8) * artery)


def sample():
    image = panel_results.chest_image()
    return SamplePatient(scan_from_image(image, Acquisition("NRRD")), labels(image, Artery.LAD), 0.5, MASSES)


def run(scan_input, folder, settings=None, models=None, progress=None):
    settings, models = settings or RunSettings(), models or LoadedModels()
    result, _ = run_scan(scan_input, settings, models, OutputFolder(folder), progress)
    return result, json.loads((folder / "scores.json").read_text(encoding="utf-8"))


def test_nothing_is_written_of_a_scan_that_cannot_be_scored(files, tmp_path):
    with pytest.raises(MaskError):
        run(replace(files, heart=files.ct), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_results_call_the_scan_by_the_given_name(files, tmp_path):
    assert run(replace(files, name="patient 1"), tmp_path / "out")[1]["input"]["name"] == "patient 1"


class TestWhoReviewed:
    """A score is reviewed if a reader vouches for its lesions, and not because somebody gave labels."""

    @pytest.fixture(scope="class")
    @staticmethod
    def automatic(tmp_path_factory):
        folder = tmp_path_factory.mktemp("patient") / "automatic"
        return folder, automatic_patient.write(folder)

    def status(self, path, reader=None):
        scan = scan_from_image(automatic_patient.image(), Acquisition("NRRD"))
        return read_lesions(path, scan, reader)[1]

    def test_own_automatic_lesions_stay_automatic_until_a_reader_is_named(self, automatic):
        folder, result = automatic
        labels, status, warnings = read_lesions(folder / "lesions.nii.gz", result.scan, None)
        assert (status, [w.code for w in warnings]) == ("automatic", ["lesions-automatic"])
        again = automatic_patient.scored(lesions=labels, status=status).methods["threshold"]
        assert (again.status, again.reviewed) == ("automatic", False)
        arteries, none = result.methods["threshold"].arteries, {"interval_90": None, "mass_interval_90": None}
        for artery, score in arteries.items():
            assert replace(score, **none) == replace(again.arteries[artery], **none)
        assert self.status(folder / "lesions.nii.gz", "A. Reader") == "reviewed"

    def test_lesions_that_somebody_changed_or_made_are_given(self, automatic):
        folder, _ = automatic
        changed = sitk.ReadImage(folder / "lesions.nii.gz")
        changed[0, 0, 0] = int(Artery.RCA)
        sitk.WriteImage(changed, folder / "changed.nii.gz")
        assert self.status(folder / "changed.nii.gz") == "given"
        sitk.WriteImage(sitk.GetImageFromArray(sitk.GetArrayViewFromImage(changed)), folder / "foreign.nrrd")
        assert self.status(folder / "foreign.nrrd") == "given"

    @pytest.mark.long
    def test_lesions_exported_after_a_review_stay_reviewed(self, automatic):
        folder, result = automatic
        review = ScanReview(ReviewFolder(folder, result.scan))
        review.export(folder / "draft")
        assert self.status(folder / "draft" / "lesions.nii.gz") == "automatic"
        review.accept("threshold")
        review.export(folder / "reviewed")
        assert self.status(folder / "reviewed" / "lesions.nii.gz") == "reviewed"

    @pytest.mark.parametrize(("reader", "status"), [(None, "given"), ("A. Reader", "reviewed")])
    def test_a_result_states_its_review(self, files, tmp_path, reader, status):
        _, content = run(files, tmp_path / "out", RunSettings(reader=reader))
        method = content["methods"]["threshold"]
        assert (method["status"], method["reviewed"]) == (status, reader is not None)
        assert ("lesions-given" in [w["code"] for w in content["warnings"]]) == (reader is None)


class TestSample:
    def test_a_phantom_brings_lesions_calibration_and_truth(self, files, tmp_path):
        _, content = run(ScanInput(sample, heart=files.heart), tmp_path / "out")
        assert content["methods"]["threshold"]["arteries"]["LAD"]["lesions"] == 3
        assert content["rules"]["threshold"]["calibration_mg_per_mm3_hu"] == 0.5
        assert content["truth"]["mass_mg"]["LAD"] == MASSES[Artery.LAD]

    def test_given_inputs_come_first(self, files, tmp_path):
        settings = RunSettings(ScoreSettings(rules=ScoringRules(calibration_mg_per_mm3_hu=0.25)))
        scan_input = ScanInput(sample, heart=files.heart, lesions=files.lesions)
        _, content = run(scan_input, tmp_path / "out", settings)
        assert content["methods"]["threshold"]["arteries"]["RCA"]["lesions"] == 3
        assert content["rules"]["threshold"]["calibration_mg_per_mm3_hu"] == 0.25
