"""Digital patients raise no severe warning that is not drawn into them."""

import pytest
from digital_pairs import HEIGHTS_MM, POSES, SCANNER

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.pipeline import score_scan
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient

COUNT = 100
DRAWN = {"possible-metal": "metal"}
"""Severe warnings that are right where a distractor of the patient has this attribute."""


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, COUNT, 10))
def test_no_severe_warning_that_is_not_drawn(first):
    """Coarse scans by the clinical rule alone, ten to a test, each in the middle of the chest."""
    unexplained = []
    for number in range(first, first + 10):
        patient = draw_patient(number)
        scan = scan_patient(patient, SCANNER, POSES[0], 1, scan_grid(SCANNER, HEIGHTS_MM))
        ct = scan_from_image(scan.grid.image(scan.hu), Acquisition("memory", kvp=120.0, slice_thickness_mm=5.0))
        codes = {warning.code for warning in score_scan(ct).record.warnings if warning.severe}
        drawn = {code for code, kind in DRAWN.items() if any(getattr(d, kind) for d in patient.distractors)}
        unexplained += [(number, code) for code in codes - drawn]
    assert unexplained == []
