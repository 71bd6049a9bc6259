import pytest

from CACScoringLib.archive.journal import ARRIVING, DONE, GROWN, SCORED, Journal
from CACScoringLib.archive.series import FoundSeries
from CACScoringLib.core.files import OutputError


def found(images=4, uid="1.2.3"):
    return FoundSeries("1.2", uid, images)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.json"


@pytest.fixture
def journal(path):
    return Journal(path, {"rule": 130})


def only(journal):
    (entry,) = journal
    return entry


def test_a_series_is_entered_once(journal):
    journal.observe([found()], 10)
    journal.observe([found()], 20)
    entry = only(journal)
    assert (entry.number, entry.images, entry.since, entry.state) == (1, 4, 10, ARRIVING)
    assert entry.series == found()


def test_uids_are_erased_when_they_are_needed_no_more(journal, path):
    journal.observe([found(uid="1.2.3.777777777777")], 10)
    journal.settle(only(journal), SCORED)
    assert only(journal).series.series_uid == "1.2.3.777777777777"
    journal.settle(only(journal), DONE, objects=2)
    with pytest.raises(ValueError, match="erased"):
        _ = only(journal).series
    assert b"777777777777" not in path.read_bytes()


@pytest.mark.parametrize("state", [SCORED, DONE])
def test_images_after_the_score_are_told(journal, state):
    journal.observe([found()], 10)
    journal.settle(only(journal), state)
    journal.observe([found()], 20)
    assert only(journal).state == state
    journal.observe([found(6)], 30)
    assert (only(journal).state, only(journal).images) == (GROWN, 4)
    assert "4 images" in only(journal).reason


def test_only_its_owner_reads_it(journal, path):
    assert path.stat().st_mode & 0o077 == 0


def test_results_of_other_settings_are_not_mixed(journal, path):
    with pytest.raises(OutputError, match="other settings"):
        Journal(path, {"rule": 200})


def test_what_is_no_journal_is_refused(path):
    for text in ("none", "{}", "[]", '{"schema": "cac-watch/1", "made_with": {}, "series": {"a": {"number": 1}}}'):
        path.write_text(text)
        with pytest.raises(OutputError, match="not the journal"):
            Journal(path, {})
