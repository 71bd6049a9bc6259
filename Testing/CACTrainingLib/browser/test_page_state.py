"""Tests of the work list's rows: what to look at first, and scans that could not be scored."""

from pathlib import Path

import pytest

from CACScoringLib.core.warning_codes import SEVERE
from CACScoringLib.readings.cases import ReviewCase
from CACScoringLib.readings.work_list import WorkList
from CACTrainingLib.browser.page_state import rows_of

REFUSED = [("nine", "nine.nii.gz: no heart was found.")]


@pytest.fixture
def cases(tmp_path):
    def case(name: str, **facts) -> ReviewCase:
        folder = tmp_path / name
        given = {"status": "automatic", "agatston": 20.0, "has_category": True, "category_probability": 0.8}
        return ReviewCase(id=name, name=name, patient="", ct=Path("ct.nii.gz"), folder=folder, **given | facts)

    assert "heart-cut" in SEVERE, "it can be severe"
    severe = {"warnings": ("automatic", "heart-cut", "not-gated"), "severe": ("heart-cut",), "reasons": ("Cut.",)}
    return [
        case("usual", warnings=("automatic", "heart-cut")),
        case("unsure", category_probability=0.5),
        case("undecided", is_undecided=True, reasons=("Is lesion 3 coronary calcium?",)),
        case("withheld", withheld=True, reasons=("Withheld.",)),
        case("severe", **severe),
    ]


def test_rows_say_what_to_look_at_first(cases):
    rows = {row["name"]: row for row in rows_of(WorkList(cases, ["Ann"]), "Ann")}
    order = sorted(rows, key=lambda name: -rows[name]["need"])
    assert order == ["severe", "withheld", "undecided", "unsure", "usual"]
    assert [rows[name]["reasons"] for name in order[:3]] == [
        ["Cut."],
        ["Withheld."],
        ["Is lesion 3 coronary calcium?"],
    ]
    assert (rows["severe"]["severe"], rows["severe"]["other_warnings"]) == (True, 1)
    assert (rows["usual"]["severe"], rows["usual"]["other_warnings"]) == (False, 1), "mild in this result"


def test_a_random_share_is_marked_and_comes_before_what_needs_nothing(cases):
    work = WorkList(cases[:2], ["Ann"], checked_share=0.5)
    rows = rows_of(work, "Ann")
    drawn = [row["name"] for row in rows if row["drawn"]]
    assert len(drawn) == 1
    assert max(rows, key=lambda row: row["need"])["name"] == drawn[0]


def test_refused_scans_are_listed_with_their_reason(cases):
    rows = rows_of(WorkList(cases, ["Ann"], refused=REFUSED), "Ann")
    assert (rows[-1]["name"], rows[-1]["state"], rows[-1]["problem"]) == ("nine", "refused", REFUSED[0][1])
    assert set(rows[-1]) == set(rows[0])


def test_blind_readers_see_neither_reasons_nor_refused_scans(cases):
    rows = rows_of(WorkList(cases, ["Ann", "Bob"], double=True, blind=True, refused=REFUSED), "Ann")
    assert len(rows) == len(cases)
    assert not any(row["reasons"] or row["severe"] or row["drawn"] or row["need"] for row in rows)
