"""Tests of scoring a cohort's scan in a worker: its result is complete and in the right folder."""

import pytest
from lesion_scans import write_ct

from CACScoringLib.cohort import scoring
from CACScoringLib.cohort.scoring import RECORD, ScanJob, prepare_scoring, score_job
from CACScoringLib.core.files import FACTS_FILE
from CACScoringLib.models.choice import LoadedModels, ModelChoice, chosen_models
from CACScoringLib.rescoring import rescore
from CACScoringLib.run import RunSettings
from CACScoringLib.scans.source import ScanSource


@pytest.fixture
def scan(tmp_path):
    ct = write_ct(tmp_path / "p1" / "scan.nii.gz")
    return ScanSource("p1", "", ct, heart=ct.with_name("heart.nrrd"))


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def score():
    return prepare_scoring(RunSettings(), chosen_models(ModelChoice(threshold_only=True)))


@pytest.fixture
def while_scoring(monkeypatch):
    """Function that sets a function to call while a scan is scored."""
    score_scan = scoring.run_scan

    def set_up(happens):
        monkeypatch.setattr(scoring, "run_scan", lambda *arguments: (happens(*arguments), score_scan(*arguments)))

    return set_up


def test_the_first_of_two_simultaneous_results_stays(scan, out, score, while_scoring):
    while_scoring(scoring.run_scan)
    job = ScanJob(scan, out / "p1", "key")
    first = score(job)
    assert (first.reused, first.reason) == (False, None)
    assert score(job).reused
    assert {"scores.json", RECORD} <= {file.name for file in (out / "p1").iterdir()}
    assert not list(out.glob(".*"))


def test_results_are_not_written_to_the_mount_point_of_a_disconnected_drive(scan, out, score, while_scoring):
    """Refuse the empty folder that a disconnected drive leaves."""
    sign = out / "cohort.json"
    assert "Mount it" in score(ScanJob(scan, out / "p1", "key", sign)).reason
    sign.touch()
    while_scoring(lambda *_: sign.unlink())
    assert "Mount it" in score(ScanJob(scan, out / "p1", "key", sign)).reason
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ValueError("odd"), "Unexpected ValueError at test_scoring.py"),
        (OSError(28, "No space left on device", "x"), "No space left"),
    ],
)
def test_exceptions_become_the_reason(scan, out, while_scoring, fault, words):
    def fail(*_):
        raise fault

    while_scoring(fail)
    assert words in score_job(RunSettings(), LoadedModels(), ScanJob(scan, out / "p1", "key")).reason


def test_after_a_new_calibration_results_are_scored_by_facts_or_else_from_the_ct(scan, out, score, monkeypatch):
    """Clinical results have no calibration, so that their facts refuse one; these do as a new one would."""
    first = score(ScanJob(scan, out / "p1", "key"))
    read = []

    def by_facts(folder, lesions, reader, progress, models):
        read.append(folder)
        return rescore(folder, lesions, reader, progress)

    monkeypatch.setattr(scoring, "rescore", by_facts)
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "run_scan", None)
        second = score(ScanJob(scan, out / "p1", "new", former=("key",)))
    assert (second.by_facts, second.facts_fault, read) == (True, "", [out / "p1"])
    assert second.scores.methods == first.scores.methods
    assert scoring.read_record(out / "p1").settings == "new"
    assert score(ScanJob(scan, out / "p1", "new")).reused

    (out / "p1" / FACTS_FILE).unlink()
    third = score(ScanJob(scan, out / "p1", "newer", former=("key", "new")))
    assert not third.by_facts
    assert third.facts_fault
    assert third.scores.methods == first.scores.methods
    assert (out / "p1" / FACTS_FILE).is_file()


def test_results_of_other_settings_are_not_scored_by_facts(scan, out, score, monkeypatch):
    score(ScanJob(scan, out / "p1", "key"))
    monkeypatch.setattr(scoring, "rescore", None)
    assert not score(ScanJob(scan, out / "p1", "other", former=("new",))).by_facts
