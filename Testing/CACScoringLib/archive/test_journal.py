import pytest

from CACScoringLib.archive.journal import ARRIVING, DONE, SCORED, ArchiveJournal
from CACScoringLib.archive.series import SeriesSummary
from CACScoringLib.core.errors import OutputError


def summary(images=4, uid="1.2.3"):
    return SeriesSummary("1.2", uid, images)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.json"


@pytest.fixture
def journal(path):
    return ArchiveJournal(path, {"rule": 130})


def only_entry(journal):
    (entry,) = journal
    return entry


def test_uids_are_erased_when_they_are_needed_no_more(journal, path):
    journal.observe([summary(uid="1.2.3.777777777777")], 10)
    journal.settle(only_entry(journal), SCORED)
    assert only_entry(journal).series.series_uid == "1.2.3.777777777777"
    journal.settle(only_entry(journal), DONE, objects=2)
    with pytest.raises(ValueError, match="erased"):
        _ = only_entry(journal).series
    assert b"777777777777" not in path.read_bytes()


def test_numbers_are_consecutive_when_series_arrive_and_grow_at_once(journal):
    journal.observe([summary(2, "1.1")], 10)
    journal.observe([summary(4, "1.1"), summary(4, "1.2")], 20)
    assert [entry.number for entry in journal] == [1, 2]
    journal.settle(list(journal)[1], SCORED)
    assert [entry.state for entry in journal] == [ARRIVING, SCORED]


def test_only_its_owner_reads_the_journal(journal, path):
    assert path.stat().st_mode & 0o077 == 0


def test_results_of_other_settings_are_not_mixed(journal, path):
    with pytest.raises(OutputError, match="other settings"):
        ArchiveJournal(path, {"rule": 200})


def test_other_files_are_refused(path):
    for text in ("none", "{}", "[]", '{"schema": "cac-watch/1", "made_with": {}, "series": {"a": {"number": 1}}}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(OutputError, match="not the journal"):
            ArchiveJournal(path, {})
