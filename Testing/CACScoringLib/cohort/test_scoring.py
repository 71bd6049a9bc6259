"""One scan of a cohort, in a worker: its result is whole, and lies where it belongs."""

import pytest
from lesion_scans import write_ct

from CACScoringLib.cohort import scoring
from CACScoringLib.cohort.scans import CohortScan
from CACScoringLib.cohort.scoring import RECORD, ScanJob, prepare_scoring, score_job
from CACScoringLib.models.choice import LoadedModels, ModelChoice, chosen_models
from CACScoringLib.run import RunSettings


@pytest.fixture
def scan(tmp_path):
    ct = write_ct(tmp_path / "p1" / "scan.nii.gz")
    return CohortScan("p1", ct, "p1", heart=ct.with_name("heart.nrrd"))


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def score():
    return prepare_scoring(RunSettings(), chosen_models(ModelChoice(threshold_only=True)))


@pytest.fixture
def scored_after(monkeypatch):
    """Takes what happens while a scan is scored."""
    score_scan = scoring.run_scan

    def set_up(happens):
        monkeypatch.setattr(scoring, "run_scan", lambda *given: (happens(*given), score_scan(*given)))

    return set_up


def test_of_two_workers_that_score_a_scan_the_first_result_stays_whole(scan, out, score, scored_after):
    scored_after(scoring.run_scan)
    job = ScanJob(scan, out / "p1", "key")
    first = score(job)
    assert (first.reused, first.reason) == (False, None)
    assert score(job).reused
    assert {"scores.json", RECORD} <= {file.name for file in (out / "p1").iterdir()}
    assert not list(out.glob(".*"))


def test_results_do_not_go_where_the_folder_was_before_its_drive_was_gone(scan, out, score, scored_after):
    """In place of a drive that is gone its mount point is left, an empty folder."""
    sign = out / "cohort.json"
    assert "Mount it" in score(ScanJob(scan, out / "p1", "key", sign)).reason
    sign.touch()
    scored_after(lambda *_: sign.unlink())
    assert "Mount it" in score(ScanJob(scan, out / "p1", "key", sign)).reason
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ValueError("odd"), "Unexpected ValueError at test_scoring.py"),
        (OSError(28, "No space left on device", "x"), "No space left"),
    ],
)
def test_whatever_a_scan_raises_is_its_reason(scan, out, scored_after, fault, words):
    def fail(*_):
        raise fault

    scored_after(fail)
    assert words in score_job(RunSettings(), LoadedModels(), ScanJob(scan, out / "p1", "key")).reason
