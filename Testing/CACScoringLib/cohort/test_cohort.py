"""Tests of `cac cohort` from end to end, on small synthetic scans."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import pytest
import SimpleITK as sitk
from dicom_files import chest_hu, write_series
from handmade_networks import untrained
from in_this_process import InThisProcess, WorkerKilled
from lesion_scans import ONE_LESION, write_ct

from CACScoringLib.cli import main as cli
from CACScoringLib.cli.main import BAD_INPUT
from CACScoringLib.cohort import cohort
from CACScoringLib.cohort.scoring import RECORD, ScanOutcome
from CACScoringLib.core.files import RESULT_FILES
from CACScoringLib.models.store import update_card
from CACScoringLib.scans.source import scan_digest


def test_reasons_of_failures_name_no_patient():
    line = "  3: chest, 9 slices, UID 1.2.3, patient Okonkwo, A, acquired 20260103 101500, in /data/p"
    assert cohort._without_uids(line) == "  3: chest, 9 slices, in /data/p"


TWENTY_PIXELS = '{"scoring": {"rules": {"minimum_pixels": 20}}}'


def write_table(path, *rows):
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.fixture(scope="module")
def scored_once(tmp_path_factory):
    """A folder with the table `cohort.csv` of three scans with 1 to 3 lesions and a broken one, and the output `out`.

    `stdout` and `stderr` hold what the command printed.
    """
    folder, rows = tmp_path_factory.mktemp("cohort"), []
    for number in (1, 2, 3):
        write_ct(folder / f"p{number}" / "scan.nii.gz", number, number)
        rows.append({"ct": f"p{number}/scan.nii.gz", "heart": f"p{number}/heart.nrrd", "name": f"p{number}"})
    (folder / "broken.nii.gz").write_bytes(b"not an image")
    rows.insert(1, {"ct": "broken.nii.gz", "heart": "", "name": "broken"})
    table = write_table(folder / "cohort.csv", *rows)
    printed, reported = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(reported):
        patch.setattr(cohort, "Workers", InThisProcess)
        assert run(table, folder / "out", "--progress", "json") == BAD_INPUT
    (folder / "stdout").write_text(printed.getvalue(), encoding="utf-8")
    (folder / "stderr").write_text(reported.getvalue(), encoding="utf-8")
    return folder


@pytest.fixture
def table(scored_once, tmp_path):
    """A copy of the table, whose scans have been scored into the folder `out` beside it."""
    shutil.copytree(scored_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "cohort.csv"


def run(table, output, *options):
    """Run `cac cohort`, by the clinical rule unless models are named."""
    rule = [] if "--model" in options else ["--threshold-only"]
    return cli.main(["cohort", str(table), "--output", str(output), "--workers", "1", *rule, *options])


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(cohort, "Workers", InThisProcess)


def events(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def rows_of(output, name="cohort.csv"):
    with (output / name).open(newline="", encoding="utf-8-sig") as stream:
        return list(csv.DictReader(stream))


def states(output):
    return {row["name"]: row["state"] for row in rows_of(output)}


def test_a_table_of_scans_is_scored_despite_a_broken_scan(scored_once):
    out = scored_once / "out"
    rows = rows_of(out)
    assert [row["name"] for row in rows] == ["p1", "broken", "p2", "p3"]
    assert [row["state"] for row in rows] == ["done", "failed", "done", "done"]
    scores = [row["threshold_agatston"] for row in rows]
    assert [float(score) for score in scores if score] == pytest.approx([ONE_LESION, 2 * ONE_LESION, 3 * ONE_LESION])
    [failure] = rows_of(out, "failures.csv")
    assert (failure["name"], failure["code"], failure["reason"]) == ("broken", "unreadable", rows[1]["reason"])
    assert {p.name for p in out.iterdir() if p.is_dir()} == {"p1", "p2", "p3"}

    assert "3 scored, 0 scored before, 1 failed" in (scored_once / "stdout").read_text(encoding="utf-8")
    lines = (scored_once / "stderr").read_text(encoding="utf-8").splitlines()
    progress_events = [json.loads(line) for line in lines]
    waiting, running, done = (event for event in progress_events if event["event"] == "scan" and event["index"] == 2)
    assert (waiting["state"], running["state"], done["state"]) == ("waiting", "running", "done")
    assert done["agatston"] == {"threshold": pytest.approx(2 * ONE_LESION)}
    assert (Path(done["folder"]), Path(done["ct"])) == (out / "p2", scored_once / "p2" / "scan.nii.gz")
    assert [e["done"] for e in progress_events if e["event"] == "counted"] == [0, 1, 2, 3, 4]
    assert {"event": "done", "output": str(out)} in progress_events
    assert "1 of 4 scans could not be scored" in progress_events[-1]["message"]
    assert rows[0]["scan"] == scan_digest("p1/scan.nii.gz")


@pytest.mark.usefixtures("quick")
def test_scans_with_the_same_files_are_named(tmp_path, capsys):
    for name, lesions in (("a", 1), ("b", 1), ("c", 2)):
        write_ct(tmp_path / name / "scan.nii.gz", lesions)
    rows = [{"ct": f"{name}/scan.nii.gz", "heart": f"{name}/heart.nrrd", "name": name} for name in "abc"]
    assert run(write_table(tmp_path / "t.csv", *rows), tmp_path / "out", "--progress", "json") == 0
    (warning,) = [event for event in events(capsys) if event.get("code") == "scans-repeated"]
    assert warning["message"] == "Scans hold the same files: a = b."


def test_each_scan_has_the_files_and_scores_of_the_command_score(scored_once, tmp_path):
    out, scan = scored_once / "out", scored_once / "p2"
    row = rows_of(out)[2]
    heart = ["--heart", str(scan / "heart.nrrd"), "--threshold-only", "--settings", '{"results": {"scene": false}}']
    cli.main(["score", str(scan / "scan.nii.gz"), *heart, "--output", str(tmp_path / "single")])
    single, of_cohort = (
        json.loads((p / "scores.json").read_text(encoding="utf-8")) for p in (tmp_path / "single", out / "p2")
    )
    assert {p.name for p in (out / "p2").iterdir()} == {p.name for p in (tmp_path / "single").iterdir()} | {RECORD}
    assert single["methods"] == of_cohort["methods"]
    assert single["warnings"] == of_cohort["warnings"]
    assert of_cohort["input"]["name"] == "p2"
    assert float(row["threshold_agatston"]) == single["methods"]["threshold"]["total"]["agatston"]
    assert row["warnings"].split() == [w["code"] for w in single["warnings"]]
    assert (row["slices"], row["slice_spacing_mm"], row["file_format"]) == ("10", "3.0", "NIfTI")


@pytest.mark.usefixtures("quick")
def test_a_second_run_skips_results_and_retries_failures(scored_once, table, tmp_path, capsys):
    out = tmp_path / "out"
    first = (out / "cohort.csv").read_text(encoding="utf-8").replace(str(scored_once), str(tmp_path))
    mtimes = {p: p.stat().st_mtime_ns for p in out.rglob("scores.json")}
    write_ct(tmp_path / "broken.nii.gz")  # repaired, but its heart is not found
    assert run(table, out, "--progress", "json") == BAD_INPUT
    scan_events = [e for e in events(capsys) if e["event"] == "scan" and e["state"] != "waiting"]
    assert [(e["name"], e["state"]) for e in scan_events[:3]] == [(name, "skipped") for name in ("p1", "p2", "p3")]
    assert scan_events[1]["agatston"] == {"threshold": pytest.approx(2 * ONE_LESION)}
    assert [(e["name"], e["state"]) for e in scan_events[3:]] == [("broken", "running"), ("broken", "failed")]
    assert {p: p.stat().st_mtime_ns for p in mtimes} == mtimes
    assert (out / "cohort.csv").read_text(encoding="utf-8").splitlines()[3:] == first.splitlines()[3:]
    assert "lung" in rows_of(out, "failures.csv")[0]["reason"]


@pytest.mark.usefixtures("quick")
def test_severe_warnings_are_printed_with_the_scans_that_have_them(table, tmp_path, capsys):
    out = tmp_path / "out"
    for name in ("p1", "p3"):
        content = json.loads((out / name / "scores.json").read_text(encoding="utf-8"))
        content["warnings"] += [{"code": "contrast-enhanced", "message": "Bright.", "severe": True}]
        (out / name / "scores.json").write_text(json.dumps(content), encoding="utf-8")
    run(table, out, "--progress", "none")
    *cautions, error = capsys.readouterr().err.splitlines()
    assert "1 of 4 scans could not be scored" in error
    assert any(line.startswith("CAUTION: contrast-enhanced in 2 of 4 scans: p1, p3. ") for line in cautions)


@pytest.mark.usefixtures("quick")
def test_a_scan_that_changed_or_has_another_mask_is_scored_again(table, tmp_path, capsys):
    out = tmp_path / "out"
    write_ct(tmp_path / "p1" / "scan.nii.gz", 3)
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace("p2/heart", "p3/heart"), encoding="utf-8")
    heart = sitk.ReadImage(tmp_path / "p2" / "heart.nrrd")
    heart[:, :, :4] = 0
    sitk.WriteImage(heart, tmp_path / "p3" / "heart.nrrd")
    run(table, out)
    assert "3 scored, 0 scored before" in capsys.readouterr().out
    scores = [float(row["threshold_agatston"]) for row in rows_of(out) if row["state"] == "done"]
    assert scores == pytest.approx([3 * ONE_LESION, ONE_LESION, 2 * ONE_LESION])


@pytest.mark.usefixtures("quick")
def test_a_scan_of_another_date_and_the_same_content_is_not_scored_again(table, tmp_path):
    out = tmp_path / "out"
    mtime = (out / "p1" / "scores.json").stat().st_mtime_ns
    for seconds in (-(10**8), 10**8):  # a clock may be wrong either way
        changed = time.time() + seconds
        os.utime(tmp_path / "p1" / "scan.nii.gz", (changed, changed))
        run(table, out)
        assert states(out)["p1"] == "done"
    assert (out / "p1" / "scores.json").stat().st_mtime_ns == mtime


@pytest.mark.long
@pytest.mark.usefixtures("quick")
def test_other_settings_need_another_folder_or_overwrite(table, tmp_path, capsys):
    out = tmp_path / "out"
    before = (out / "cohort.csv").read_text(encoding="utf-8")
    assert run(table, out, "--settings", TWENTY_PIXELS) == cli.BAD_USAGE
    error = capsys.readouterr().err
    assert "minimum_pixels was 1 and is 20" in error
    assert "--overwrite" in error
    assert (out / "cohort.csv").read_text(encoding="utf-8") == before
    assert run(table, out, "--settings", TWENTY_PIXELS, "--overwrite", "--scene") == BAD_INPUT
    assert float(rows_of(out)[0]["threshold_agatston"]) == 0
    assert {p.name for p in (out / "p1").iterdir()} <= set(RESULT_FILES)
    assert (out / "p1" / "scene.mrb").exists()


@pytest.mark.usefixtures("quick")
def test_a_folder_is_searched_and_a_series_choice_in_a_table_is_a_failure_without_uids(tmp_path, capsys):
    for number in (3, 4):
        write_series(tmp_path / "data" / "p", chest_hu(), tags={"SeriesNumber": number}, name=f"{number}-{{}}".format)
    (tmp_path / "data" / "x.nii.gz").write_bytes(b"")
    assert run(tmp_path / "data", tmp_path / "out") == cli.BAD_INPUT
    assert "No scan could be scored" in capsys.readouterr().err
    failures = {row["name"]: row["reason"] for row in rows_of(tmp_path / "out", "failures.csv")}
    assert set(failures) == {"p-3", "p-4", "x"}
    assert "lung" in failures["p-3"]
    assert "is empty" in failures["x"]
    run(write_table(tmp_path / "t.csv", {"ct": "data/p"}), tmp_path / "out2")
    [reason] = [row["reason"] for row in rows_of(tmp_path / "out2", "failures.csv")]
    assert "2 CT series" in reason
    assert "; 3: " in reason
    assert "1.2.826" not in reason
    row = {"ct": "data/p", "series": "1.2.826.99"}
    run(write_table(tmp_path / "t.csv", row, {"ct": "data/p", "series": "7.1"}), tmp_path / "out3")
    reasons = [row["reason"] for row in rows_of(tmp_path / "out3", "failures.csv")]
    assert reasons[0].startswith("The folder holds no CT series. Its CT series:")
    assert reasons[1].startswith("The folder holds no CT series '7.1'. Its CT series:")
    written = "".join(file.read_text(encoding="utf-8", errors="replace") for file in (tmp_path / "out3").glob("*.*"))
    assert "1.2.826" not in written + str(list((tmp_path / "out3").iterdir()))


@pytest.mark.parametrize("source", ["nothing", "scan.nii.gz", "empty"])
@pytest.mark.usefixtures("quick")
def test_nothing_to_score(tmp_path, capsys, source):
    (tmp_path / "empty").mkdir()
    write_ct(tmp_path / "scan.nii.gz")
    assert run(tmp_path / source, tmp_path / "out") == cli.BAD_INPUT
    assert source in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.usefixtures("quick")
def test_a_recalibrated_model_is_no_other_setting(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    cards = {n: untrained(n, f"my-{n}", tmp_path / "installed") for n in ("slices", "decomposition")}
    monkeypatch.setattr(cohort, "prepare_scoring", lambda *_: lambda job: ScanOutcome(reason="not scored here"))
    options = [option for network in cards for option in ("--model", f"my-{network}")]
    run(table, tmp_path / "other", *options)
    run(table, tmp_path / "other", *options)
    assert "other settings" not in capsys.readouterr().err
    update_card(cards["decomposition"], {"floor_hu": 33.0}, {})
    assert run(table, tmp_path / "other", *options) == cli.BAD_INPUT  # no scan is scored here
    assert "other settings" not in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_a_killed_worker_does_not_affect_other_scans(tmp_path, monkeypatch, capsys):
    """Let the scan "killer" end its worker each time, and "unlucky" only the first time."""
    for name in ("killer", "one", "unlucky"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.nii").touch()
    attempts = []

    def score(job):
        attempts.append(job.scan.name)
        if job.scan.name == "killer" or (attempts.count("unlucky") == 1 and attempts[-1] == "unlucky"):
            raise WorkerKilled
        return ScanOutcome(reason="It is empty.")

    monkeypatch.setattr(cohort, "prepare_scoring", lambda *_: score)
    assert run(tmp_path / "in", tmp_path / "out", "--progress", "json") == cli.BAD_INPUT
    assert attempts == ["killer", "one", "unlucky", "killer", "unlucky"]
    reasons = {row["name"]: row["reason"] for row in rows_of(tmp_path / "out", "failures.csv")}
    assert "also when it ran alone" in reasons.pop("killer")
    assert set(reasons.values()) == {"It is empty."}
    scan_events = [e for e in events(capsys) if e["event"] == "scan" and e["name"] == "unlucky"]
    assert [e["state"] for e in scan_events] == ["waiting", "running", "waiting", "running", "failed"]
    assert "tried again" in scan_events[2]["reason"]


def interrupt(table, output, signal_number):
    """Run the command in a process, send a signal after the second scan, and return the exit code and the output."""
    command = [sys.executable, "-m", "CACScoringLib.cli", "cohort", str(table), "--output", str(output)]
    command += ["--threshold-only", "--workers", "1", "--progress", "json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    text, done = "", 0
    # In a shell's background, the process would otherwise inherit an ignored SIGINT.
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, text=True, env=environment, stderr=subprocess.PIPE, preexec_fn=listen) as process:
        for line in process.stderr:
            text += line
            done += '"state": "done"' in line
            if done == 2:
                process.send_signal(signal_number)
                break
        text += process.stderr.read()  # ends after the workers, which share the pipe
    return process.returncode, text


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX here")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_cohort_is_resumed(tmp_path, sent, capsys, monkeypatch):
    write_ct(tmp_path / "a" / "scan.nii.gz")
    names = [f"s{number}" for number in range(12)]
    for name in names:
        shutil.copy(tmp_path / "a" / "scan.nii.gz", tmp_path / f"{name}.nii.gz")
    rows = [{"ct": f"{name}.nii.gz", "heart": "a/heart.nrrd", "name": name} for name in names]
    table, out = write_table(tmp_path / "t.csv", *rows), tmp_path / "out"
    code, text = interrupt(table, out, sent)
    if sent == signal.SIGKILL:
        assert code == -sent
    else:
        assert code == cli.INTERRUPTED
        assert json.loads(text.splitlines()[-1])["event"] == "failed"
        assert list(states(out).values()).count("done") >= 2
        assert not list(out.glob(".*.partial-*"))
    assert "Traceback" not in text
    finished = {p.parent.name for p in out.rglob("scores.json") if not p.parent.name.startswith(".")}
    assert 2 <= len(finished) < 12
    monkeypatch.setattr(cohort, "Workers", InThisProcess)
    assert run(table, out, "--progress", "json") == 0
    scan_events = [e for e in events(capsys) if e["event"] == "scan"]
    assert {e["name"] for e in scan_events if e["state"] == "skipped"} == finished
    assert {e["name"] for e in scan_events if e["state"] == "done"} == {*names} - finished
    assert [row["state"] for row in rows_of(out)] == ["done"] * 12
    assert not list(out.glob(".*.partial-*"))


def test_a_dry_run_lists_scans_and_writes_nothing(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cohort, "Workers", InThisProcess)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    capsys.readouterr()
    assert run(table, tmp_path / "out", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [
        ["scored", "p1:"],
        ["new", "broken:"],
        ["scored", "p2:"],
        ["scored", "p3:"],
    ]
    assert lines[-1].startswith("4 scans, of which 3 have a result.")
    assert run(table, tmp_path / "elsewhere", "--dry-run") == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
