"""A confirmation is a record: who, when, what was shown; and a changed journal is found."""

import json
from datetime import datetime

import numpy as np
import pytest

from CACScoringLib.core.errors import JournalError
from CACScoringLib.core.labels import Labelled, NonCoronary
from CACScoringLib.readings.blinding import begin_blind
from CACScoringLib.readings.journals import CONSENSUS, SHARED, file_of
from CACScoringLib.record.reading import read_result
from CACScoringLib.review.journal import Journal
from CACTrainingLib.browser.open_reviews import OpenReview
from CACTrainingLib.browser.project import cases_of
from CACTrainingLib.browser.verification import verify_journals
from CACTrainingLib.cli.main import main


@pytest.fixture
def case(results):
    return next(case for case in cases_of(results, None) if case.name == "one")


def act(review, action, reader="Ann", method="threshold", looked_at=None, **parts):
    request = {"action": action, "method": method, "version": review.version, "seconds": 1.0, **parts}
    review.act(reader, review.request_of(request | {"looked_at": {method: looked_at or []}}))


def opened(case, reading="shared"):
    return OpenReview(case, reading, case.scan())


def ids_of(review):
    return [lesion.id for lesion in review.review.lesions("threshold")]


def confirmed(case, looked_at=1):
    review = opened(case)
    act(review, "accept", looked_at=ids_of(review)[:looked_at])
    return review


class TestConfirmation:
    def test_confirmation_states_reader_time_and_lesions_shown(self, case):
        review = opened(case)
        first, *unseen = ids_of(review)
        act(review, "accept", looked_at=[first])
        record = read_result(review.export("Ann", dicom=False))
        confirmation = record.review.confirmations["threshold"]
        assert confirmation.reader == "Ann"
        assert datetime.fromisoformat(confirmation.time).utcoffset() is not None
        assert (confirmation.sites, confirmation.not_looked_at) == (len(unseen) + 1, tuple(unseen))
        method = record.methods["threshold"]
        looks = {lesion.id: lesion.looked_at for lesion in method.lesions}
        assert looks == {first: True, **dict.fromkeys(unseen, False)}
        assert method.reviewed

    def test_sites_outside_the_arteries_that_were_not_shown_stay_automatic(self, case):
        review = opened(case)
        first, *unseen = ids_of(review)
        labelled = review.review.review("threshold").labelled
        flat = review.review.review("threshold").flat_voxels(unseen)
        valve = np.where(np.isin(labelled.flat, flat), NonCoronary.AORTIC_VALVE, labelled.values).astype(np.uint8)
        review.review.give_all("threshold", Labelled(labelled.flat, valve))
        act(review, "accept", looked_at=[first])
        elsewhere = read_result(review.export("Ann", dicom=False)).non_coronary
        assert not elsewhere.reviewed
        assert {lesion.looked_at for lesion in elsewhere.lesion_list} == {False}
        act(review, "accept", looked_at=unseen)
        assert read_result(review.export("Ann", dicom=False)).non_coronary.reviewed

    def test_the_export_states_the_run_and_the_review(self, case):
        record = read_result(confirmed(case).export("Ann", dicom=False))
        assert record.provenance.created >= record.review.confirmations["threshold"].time
        assert record.review.run == read_result(case.folder).provenance
        assert record.review.journal.sha256 in Journal(file_of(case, "shared"), case.result_sha256()).hashes

    def test_confirmation_is_complete_once_all_was_shown_ends_with_the_mark_and_returns_with_undo(self, case):
        review = confirmed(case)
        act(review, "accept", reader="Bob", looked_at=ids_of(review))
        confirmation = review.review.confirmations["threshold"]
        assert (confirmation.reader, confirmation.not_looked_at) == ("Bob", ())
        assert review.review.non_coronary.reviewed
        act(review, "reviewed", on=False)
        assert review.review.confirmations == {}
        act(review, "undo", reader="Bob")
        assert review.review.confirmations["threshold"].reader == "Bob"

    def test_an_edit_of_a_confirmed_score_is_confirmed_by_who_edits(self, case):
        review = confirmed(case)
        lesion = ids_of(review)[1]
        act(review, "assign", reader="Bob", lesions=[lesion], site=3)
        confirmation = review.review.confirmations["threshold"]
        assert confirmation.reader == "Bob"
        assert lesion not in confirmation.not_looked_at, "it was shown to who assigned it"

    def test_confirmation_is_kept_when_the_review_is_opened_again(self, case):
        review = confirmed(case, looked_at=2)
        again = opened(case).review
        assert again.confirmations == review.review.confirmations
        assert again.looked_at("threshold") == review.review.looked_at("threshold") != set()

    def test_lesions_that_a_program_labels_were_not_shown(self, case):
        begin_blind(case, SHARED)
        assert opened(case).review.looked_at("threshold") == set()
        review = opened(case)
        assert review.review.looked_at("threshold") == set()
        assert opened(case).review.looked_at("threshold") == set()


def test_a_consensus_states_the_score_of_each_reader(case):
    for reader, site in (("Ann", 2), ("Bob", 3)):
        review = opened(case, f"reader {reader}")
        ids = ids_of(review)
        act(review, "assign", reader, lesions=ids[:1], site=site)
        act(review, "accept", reader, looked_at=ids)
    consensus = opened(case, CONSENSUS)
    consensus.begin_consensus(["reader Ann", "reader Bob"])
    act(consensus, "assign", lesions=ids[:1], site=2)
    act(consensus, "accept")
    folder = consensus.export("Ann", dicom=False)
    ann, bob = read_result(folder).review.readings
    assert (ann.reader, bob.reader) == ("Ann", "Bob")
    assert (ann.sites[str(ids[0])], bob.sites[str(ids[0])]) == ("LAD", "LCX")
    assert ann.agatston == bob.agatston > 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "reviewed by Ann (consensus of Ann, Bob)" in page
    assert f"Before the consensus, Ann had {ann.agatston:.1f}" in page


class TestVerification:
    @pytest.fixture
    def journal(self, case):
        review = confirmed(case)
        act(review, "reject", lesions=ids_of(review)[:1])
        review.export("Ann", dicom=False)
        return file_of(case, "shared")

    def test_an_unchanged_journal_is_proven_and_a_changed_line_named(self, results, journal, capsys):
        unchanged = journal.read_text().splitlines()
        assert main(["review", str(results), "--verify"]) == 0
        assert json.loads(unchanged[-1])["sha256"] in capsys.readouterr().out
        for number in (1, 2, 3, 4):
            content = json.loads(unchanged[number - 1])
            content |= {"result": "0"} if number == 1 else {"reader": "Eve"}
            lines = [*unchanged[: number - 1], json.dumps(content), *unchanged[number:]]
            journal.write_text("\n".join(lines) + "\n")
            assert main(["review", str(results), "--verify"]) == 3
            assert f"{journal}: line {number} was changed after it was written" in capsys.readouterr().out

    def test_removed_lines_are_found_also_at_the_end(self, results, journal):
        lines = journal.read_text().splitlines()
        journal.write_text("\n".join([*lines[:2], *lines[3:]]) + "\n")
        ((text, _is_whole),) = verify_journals(results)
        assert "line 2 was replaced, or lines before line 3 were removed" in text
        journal.write_text("\n".join(lines[:2]) + "\n")
        (_text, is_whole), (missing, _is_whole) = verify_journals(results)
        assert is_whole
        assert "reviewed/scores.json was exported with" in missing

    def test_a_changed_journal_is_not_opened(self, case, journal):
        journal.write_text(journal.read_text().replace('"Ann"', '"Eve"', 1))
        with pytest.raises(JournalError, match=r"line 2 was changed.*Restore the file from a copy"):
            opened(case)

    def test_results_without_a_review(self, results, capsys):
        assert main(["review", str(results), "--verify"]) == 2
        assert "holds no review" in capsys.readouterr().err
