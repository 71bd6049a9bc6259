"""Fixtures of scenes and of a result to add to them."""

from pathlib import Path

import numpy as np
import pytest
import slicer
from labelled_chest import ct_image, labels_of

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.mrml.scene_content import content_of_result
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.score_record import HeartRecord, InputRecord, ScoreRecord
from CACScoringLib.results import ScoreResult
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.mass import mass_columns
from CACScoringLib.scoring.scores import method_score


@pytest.fixture
def result():
    """A result with scores known on paper and a patient's name."""
    acquisition = Acquisition("NRRD", patient_name="Doe^Jane")
    scan = scan_from_image(ct_image(), acquisition, Path("/scans/chest 7.nrrd"))
    rules = ScoringRules(calibration_mg_per_mm3_hu=0.0008)
    lesions = find_lesions(scan.image, labels_of(scan.image), rules)
    # Masses follow from the calibration, as they do where the tissue about a lesion has 0 HU.
    masses = [(0.0008 * pseudo_mass, 0.0) for pseudo_mass in lesions.columns["pseudo_mass_hu_mm3"]]
    measured = lesions.with_columns(**mass_columns(masses))
    inside = np.zeros(scan.hu.shape, bool)
    inside[1:6, 1:10, 1:9] = True
    region = HeartRegion(inside, None, "given")
    record = ScoreRecord(
        input=InputRecord.of(scan),
        acquisition=acquisition,
        heart=HeartRecord("given"),
        warnings=(),
        models=(),
        methods={"threshold": method_score("reviewed", rules, measured, has_masses=True)},
    )
    return ScoreResult(record, scan, region)


@pytest.fixture
def content(result):
    return content_of_result(result)


@pytest.fixture
def scene():
    # The module logic registers the conversion rules of segmentations, as the application does on start.
    slicer.vtkSlicerSegmentationsModuleLogic()
    return slicer.vtkMRMLScene()
