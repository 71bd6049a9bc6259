"""Sites of calcium by names from readers and public label sets."""

import pytest

from CACScoringLib.core.errors import MaskError
from CACScoringLib.core.labels import NOT_CORONARY, SITES, SNOMED_CODES, Artery, NonCoronary, label_called, site_called

NAMES = {
    Artery.LM: ("LMCA", "Left_Main_Stem", "lm: left main"),
    Artery.LAD: ("LAD_2", "Left Anterior Descending Artery", "D1"),
    Artery.LCX: ("LCx", "left-circumflex-artery", "OM1"),
    Artery.RCA: ("RCA1", "right coronary artery", "PDA"),
    Artery.OTHER: ("other", "Ramus intermedius"),
    Artery.UNASSIGNED: ("not assigned to an artery",),
    NonCoronary.AORTIC_VALVE: ("aortic valve and root", "AVC"),
    NonCoronary.MITRAL_ANNULUS: ("Mitral Valve", "mitral annular calcification"),
    NonCoronary.THORACIC_AORTA: ("Aorta",),
    NonCoronary.OTHER: ("Elsewhere", "non-coronary"),
}


@pytest.mark.parametrize(("site", "name"), [(site, name) for site, names in NAMES.items() for name in names])
def test_names_of_sites(site, name):
    assert site_called(name) is site
    assert label_called(name) == int(site)


@pytest.mark.parametrize("name", ["Left coronary artery", "coronary artery", "Segment_1", "1", ""])
def test_names_of_no_site(name):
    assert site_called(name) is None
    with pytest.raises(MaskError, match="is no site"):
        label_called(name)


def test_rejected_calcium():
    assert {label_called(name) for name in ("not-coronary", "Not coronary: stent", "not_coronary")} == {NOT_CORONARY}


def test_each_code_stands_for_a_single_site():
    codes = [code for values in SNOMED_CODES.values() for code in values]
    assert set(SNOMED_CODES) == set(SITES)
    assert len(codes) == len(set(codes))
