"""Reviews of a cohort's scans count in its table and on its page, and a rerun keeps them."""

import json
import shutil

import pytest
from in_this_process import InThisProcess
from lesion_scans import ONE_LESION, write_ct, write_labels

from CACScoringLib.cli import main as cli
from CACScoringLib.cohort import cohort
from CACScoringLib.cohort.folder import TABLE
from CACScoringLib.cohort.report import write_cohort_report
from CACScoringLib.cohort.reviewed import count_reviews, reviewed_result
from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.files import LAST_FILE
from CACScoringLib.core.tables import read_table
from CACScoringLib.record.score_record import read_result


def run(folder):
    heart = "p1,scan.nii.gz,heart.nrrd"
    (folder / "scans.csv").write_text(f"name,ct,heart\n{heart}\n", encoding="utf-8")
    command = ["cohort", str(folder / "scans.csv"), "--output", str(folder / "out"), "--threshold-only"]
    assert cli.main([*command, "--workers", "1", "--progress", "none"]) == 0


def row(folder):
    (line,) = read_table(folder / "out" / TABLE).lines
    return line


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A cohort of a scan with two lesions, and a score of labels of one of them by Ann in `out/p1/labels`."""
    folder = tmp_path_factory.mktemp("reviewed")
    ct, labels = write_ct(folder / "scan.nii.gz", 2), write_labels(folder / "labels.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort, "Workers", InThisProcess)
        run(folder)
        assert row(folder).text("threshold_automatic_status") == ""
        parts = ["--heart", str(folder / "heart.nrrd"), "--lesions", str(labels), "--reader", "Ann"]
        settings = ["--settings", '{"results": {"scene": false}}', "--progress", "none"]
        output = folder / "out" / "p1" / "labels"
        assert cli.main(["score", str(ct), *parts, "--threshold-only", *settings, "--output", str(output)]) == 0
    return folder


@pytest.fixture
def folder(scored, tmp_path, monkeypatch):
    monkeypatch.setattr(cohort, "Workers", InThisProcess)
    shutil.copytree(scored, tmp_path, dirs_exist_ok=True)
    return tmp_path


def check_reviewed(line):
    assert (line.text("threshold_status"), line.text("threshold_reviewed")) == ("reviewed", "True")
    assert line.number_in("threshold_agatston") == pytest.approx(ONE_LESION)
    assert line.number_in("threshold_agatston_LAD") == pytest.approx(ONE_LESION)
    assert line.text("threshold_automatic_status") == "candidates"
    assert line.number_in("threshold_automatic_agatston") == pytest.approx(2 * ONE_LESION)
    assert line.text("reader") == "Ann"
    assert line.text("confirmed")


def test_labels_of_a_reader_count_in_the_table_on_the_page_and_after_a_rerun(folder):
    page = write_cohort_report(folder / "out").read_text(encoding="utf-8")
    check_reviewed(row(folder))
    assert "1 reviewed" in page
    assert f"median {ONE_LESION:.1f}" in page
    run(folder)
    check_reviewed(row(folder))
    before = (folder / "out" / TABLE).read_bytes()
    count_reviews(folder / "out")
    assert (folder / "out" / TABLE).read_bytes() == before


def test_a_withdrawn_review_counts_no_more(folder):
    count_reviews(folder / "out")
    check_reviewed(row(folder))
    shutil.rmtree(folder / "out" / "p1" / "labels")
    count_reviews(folder / "out")
    line = row(folder)
    assert (line.text("threshold_status"), line.text("threshold_automatic_status")) == ("candidates", "")
    assert line.number_in("threshold_agatston") == pytest.approx(2 * ONE_LESION)
    assert line.text("reader") == ""


def changed(folder, name, **parts):
    """Add the review of Ann under another name, with other parts of `scores.json`."""
    scan = folder / "out" / "p1"
    content = json.loads((scan / "labels" / LAST_FILE).read_text(encoding="utf-8"))
    for key, part in parts.items():
        content[key] = content[key] | part
    (scan / name).mkdir()
    (scan / name / LAST_FILE).write_text(json.dumps(content), encoding="utf-8")


def reviewer(folder):
    scan = folder / "out" / "p1"
    record = reviewed_result(scan, read_result(scan))
    return None if record is None else record.review.confirmation.reader


def by(reader, time, **more):
    confirmation = {"reader": reader, "time": time, "sites": 1}
    return {"confirmations": {"threshold": confirmation}, **more}


def test_of_several_reviews_a_consensus_counts_else_the_last_one(folder):
    changed(folder, "later", review=by("Bob", "2100-01-01T00:00:00+00:00"))
    assert reviewer(folder) == "Bob"
    alone = {"file": "reader_Cyd-0a1b2c3d.jsonl", "entries": 1}
    changed(folder, "alone", review=by("Cyd", "2101-01-01T00:00:00+00:00", journal=alone))
    assert reviewer(folder) == "Bob"
    readings = [{"reader": "Cyd", "time": "2099-01-01T00:00:00+00:00", "agatston": 1.0, "sites": {}}]
    changed(folder, "consensus", review=by("Dee", "2099-01-02T00:00:00+00:00", readings=readings))
    assert reviewer(folder) == "Dee"


def test_reviews_of_another_scan_and_damaged_ones_do_not_count(folder):
    scan = folder / "out" / "p1"
    changed(folder, "other", input={"voxels_sha256": "0" * 64})
    shutil.rmtree(scan / "labels")
    (scan / "damaged").mkdir()
    (scan / "damaged" / LAST_FILE).write_text("{", encoding="utf-8")
    assert reviewer(folder) is None


def test_a_cohort_without_its_table_is_refused(folder):
    (folder / "out" / TABLE).unlink()
    with pytest.raises(OutputError, match="Run the cac cohort"):
        count_reviews(folder / "out")
