"""Blind readings, and journals that two programs write to."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
from review_server import write_cohort

from CACScoringLib.core.errors import JournalError, UnreadableError
from CACScoringLib.core.labels import Artery
from CACScoringLib.readings.cases import cases_in
from CACScoringLib.readings.journals import PLAN, file_of, journal_of, labels_of_reading, readers_of, reading_by
from CACScoringLib.readings.recorded_review import RecordedReview, begin_blind, blind_content, hidden
from CACScoringLib.record.score_record import record_from_text
from CACScoringLib.review import journal as journal_module
from CACScoringLib.review.output import IN_PANEL
from CACScoringLib.review.scan_review import ScanReview
from CACScoringLib.review.state import ReviewFolder

ANN = reading_by("Ann")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"), ["one"])


@pytest.fixture
def case(cohort):
    """The cohort's scan, which nobody has read."""
    (case,) = cases_in(cohort)
    shutil.rmtree(file_of(case, ANN).parent, ignore_errors=True)
    return case


class Reading(RecordedReview):
    """A reading by Ann in memory."""

    def __init__(self, case):
        state = ReviewFolder(case.folder, case.scan())
        make = partial(ScanReview, state, IN_PANEL)
        super().__init__(case, ANN, make, lambda: ("Ann", "edit", 1.0))


class TestBlind:
    def test_all_candidates_begin_undecided_and_nothing_reveals_them(self, case):
        before = labels_of_reading(case, ANN)
        assert any((labelled.values < Artery.UNASSIGNED).any() for labelled in before.values())
        begin_blind(case, ANN)
        reading = Reading(case)
        for method, labelled in before.items():
            after = reading.review.review(method).labelled
            np.testing.assert_array_equal(after.flat, labelled.flat)
            assert set(after.values.tolist()) == {int(Artery.UNASSIGNED)}
        assert not reading.review.can_undo
        assert not reading.review.undo()
        begin_blind(case, ANN)
        assert len(journal_of(case, ANN).entries) == 1, "it is begun once"

    def test_the_scene_holds_no_result_of_the_networks(self, case):
        state = ReviewFolder(case.folder, case.scan())
        content = blind_content(state._content)
        record, scored = record_from_text(content.record, "it"), state.record
        assert record.methods.keys() == {"threshold"}
        method = record.methods["threshold"]
        assert (method.status, method.left_out) == ("candidates", ())
        of_run = scored.methods["threshold"]
        ids = {lesion.id for lesion in of_run.listed}
        assert {lesion.id for lesion in method.lesions} == ids
        for lesion in method.lesions:
            assert (lesion.site, lesion.verdict, lesion.mass_mg) == (Artery.UNASSIGNED, None, None)
        assert (record.categories, record.non_coronary, record.warnings, record.truth) == (None, None, (), None)
        assert content.calcium_map is content.map_lesions is content.territories is content.pericardium is None

    def test_messages_show_no_name(self, case):
        text = f"{case.ct} is not there; {case.folder} and {case.name} are."
        assert hidden(case, "Case 1", text) == "Case 1 is not there; Case 1 and Case 1 are."


class TestJournal:
    def test_a_change_by_another_program_is_not_overwritten(self, case):
        first, second = Reading(case), Reading(case)
        lesion = first.review.lesions("threshold")[0].id
        first.review.assign("threshold", [lesion], Artery.RCA)
        with pytest.raises(JournalError, match="another program has changed"):
            second.review.assign("threshold", [lesion], Artery.LCX)
        assert len(journal_of(case, ANN).entries) == 1
        assert Reading(case).review.result("threshold").total == first.review.result("threshold").total

    def test_a_full_disk_loses_nothing(self, case, monkeypatch):
        reading = Reading(case)
        reading.note("time", "Ann", "", 5.0)

        def full(descriptor):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as disk:
            disk.setattr(journal_module.os, "fsync", full)
            with pytest.raises(JournalError, match=r"not saved: .*No space"):
                reading.note("time", "Ann", "", 5.0)
        assert len(journal_of(case, ANN).entries) == 1
        reading.note("time", "Ann", "", 5.0)
        assert [entry.number for entry in journal_of(case, ANN).entries] == [1, 2]

    def test_it_belongs_to_a_result_whenever_that_was_computed_and_to_a_plan(self, case, tmp_path):
        root = shutil.copytree(case.folder.parent, tmp_path / "results")
        (case,) = cases_in(root)
        Reading(case).note("time", "Ann", "", 5.0)
        (root / PLAN).write_text("reader", encoding="utf-8")
        with pytest.raises(JournalError, match="another reading plan"):
            journal_of(case, ANN)
        (root / PLAN).unlink()
        file = case.folder / "scores.json"
        content = json.loads(file.read_text(encoding="utf-8")) | {"provenance": {"created": "later"}, "seconds": {}}
        file.write_text(json.dumps(content), encoding="utf-8")
        assert len(journal_of(case, ANN).entries) == 1
        content["methods"]["threshold"]["total"]["agatston"] = 12.0
        file.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(JournalError, match="another result"):
            journal_of(case, ANN)
        file.write_text("{", encoding="utf-8")
        with pytest.raises(UnreadableError, match="Score the scan again"):
            journal_of(case, ANN)

    def test_a_site_that_the_reader_confirms_stays_confirmed(self, case):
        def suggested(reading, lesion):
            lesions = reading.review.review("threshold").table.lesions
            return reading.review.review("threshold").suggested_site(next(x for x in lesions if x.id == lesion.id))

        reading = Reading(case)
        lesion = next(x for x in reading.review.lesions("threshold") if x.site < Artery.UNASSIGNED)
        total = reading.review.result("threshold").total
        assert suggested(reading, lesion) == lesion.site
        reading.review.assign("threshold", [lesion.id], lesion.site)
        reading.review.assign("threshold", [lesion.id], lesion.site)
        assert suggested(reading, lesion) is suggested(Reading(case), lesion) is None
        assert reading.review.result("threshold").total == total
        assert len(journal_of(case, ANN).entries) == 1, "the second time changes nothing"
        assert reading.review.undo()
        assert suggested(reading, lesion) == suggested(Reading(case), lesion) == lesion.site

    def test_readers_are_those_with_a_reading(self, case):
        assert readers_of([case]) == []
        reading = Reading(case)
        reading.note("time", "Ann", "", 5.0)
        assert readers_of([case]) == ["Ann"]
        assert file_of(case, ANN).is_file()
