"""Tests of a cohort's folder: safe names, one run at a time, no mixture of settings."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whole_records import record_of, whole_record

from CACScoringLib.cohort.folder import RECORD, open_cohort, safe_name
from CACScoringLib.cohort.scoring import ScanRecord, files_key, write_record
from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.files import RESULT_FILES
from CACScoringLib.scans.source import ScanSource

MADE_WITH = {"score": {"rules": {"threshold_hu": 130.0}}, "models": {}}


def scan(name, ct="a.nii", **more):
    return ScanSource(name, "", ct, key=str(ct), **more)


def folders(path, *scans, made_with=MADE_WITH, overwrite=False):
    with open_cohort(path, made_with, overwrite) as folder:
        return [path.name for path in folder.folders_of(scans)]


def result(folder, text=None):
    folder.mkdir(exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(whole_record()) if text is None else text, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("patient_00001/scan_1", "patient_00001-scan_1"),
        ("../../etc/passwd", "etc-passwd"),
        ("/", "scan"),
        (".hidden", "hidden"),
        ("a b?*|<>\"'", "a_b"),
        ("con", "scan-con"),
        ("Müller 李", "Müller_李"),
        ("x" * 300, "x" * 50),
    ],
)
def test_safe_names(name, expected):
    assert safe_name(name) == expected


@pytest.mark.long
@given(st.text(max_size=300))
def test_a_safe_name_is_one_folder_that_can_be_made(name):
    safe = safe_name(name)
    assert os.path.basename(safe) == safe  # noqa: PTH119
    assert safe not in ("", ".", "..")
    assert not safe.startswith((".", "-"))
    assert not set(safe) & set('/\\:*?"<>|\0\n')
    assert len(os.fsencode(f".{safe}-9999.partial-12345678")) <= 255


def test_names_that_are_used_or_differ_only_in_case_get_numbers(tmp_path):
    scans = [scan("A", "1"), scan("a", "2"), scan("A", "3"), scan("cohort.csv", "4"), scan("A-2", "5")]
    expected = ["A", "a-2", "A-3", "cohort.csv-2", "A-2-2"]
    assert folders(tmp_path / "out", *scans) == expected
    assert folders(tmp_path / "out", scan("a", "0"), scans[1]) == ["a-4", "a-2"], "it keeps its folder"


def test_foreign_folders_are_not_used(tmp_path):
    (tmp_path / "out" / "x").mkdir(parents=True)
    assert folders(tmp_path / "out", scan("x"), overwrite=True) == ["x-2"]


def test_overwriting_removes_all_results_first(tmp_path):
    out = tmp_path / "out"
    folders(out, scan("x"), scan("y", "2"))
    for name in RESULT_FILES:
        result(out / "x")
        (out / "x" / name).touch()
    result(out / "y")
    (out / "y" / "notes.txt").write_text("mine", encoding="utf-8")
    with open_cohort(out, {"models": {"heart": "new"}}, True) as folder:
        assert folder.result(scan("x"), out / "x") is None
    assert not (out / "x").exists()
    assert [p.name for p in (out / "y").iterdir()] == ["notes.txt"]
    assert json.loads((out / RECORD).read_text(encoding="utf-8"))["made_with"] == {"models": {"heart": "new"}}


def test_a_scan_out_of_reach_keeps_its_result(tmp_path, monkeypatch):
    """Keep the result while a network drive is disconnected."""
    ct, out = tmp_path / "ct.nii", tmp_path / "out"
    ct.touch()
    with open_cohort(out, MADE_WITH, False) as folder:
        [place] = folder.folders_of([scan("x", ct)])
        result(place)
        assert folder.result(scan("x", ct), place) is None, "its input is unknown"
        write_record(place, ScanRecord("content", files_key(scan("x", ct)), folder.settings_key))
        stat = type(ct).stat

        def unreachable(path, **options):
            if path == ct:
                raise PermissionError(13, "Permission denied")
            return stat(path, **options)

        monkeypatch.setattr(type(ct), "stat", unreachable)
        assert folder.result(scan("x", ct), place).scores == record_of(whole_record())


def test_incomplete_results_of_other_machines_are_kept(tmp_path):
    out = tmp_path / "out"
    folders(out, scan("x"))
    (out / ".x.partial-abc").mkdir()
    with open_cohort(out, MADE_WITH, False, local=False):
        assert [path.name for path in out.glob(".*partial*")] == [".x.partial-abc"]


def test_one_run_at_a_time(tmp_path):
    with open_cohort(tmp_path / "out", MADE_WITH, False), pytest.raises(OutputError, match="Another cohort"):
        folders(tmp_path / "out", scan("x"))
    folders(tmp_path / "out", scan("x"))


@pytest.mark.parametrize(
    "record",
    [
        "",
        '{"schema": "cac-phantom/1", "settings": {}}',
        '{"schema": "cac-cohort/1", "made_with": {}, "scans": {"../other": {}}}',
    ],
)
def test_another_cohorts_record_is_refused(tmp_path, record):
    """Refuse the cohort.json of digital patients, and names that lead out of the folder."""
    (tmp_path / RECORD).write_text(record, encoding="utf-8")
    (tmp_path.parent / "other").mkdir(exist_ok=True)
    with pytest.raises(OutputError, match=RECORD):
        folders(tmp_path, scan("x"), overwrite=True)
    assert (tmp_path / RECORD).read_text(encoding="utf-8") == record


def test_incomplete_results_are_removed_after_an_interruption(tmp_path):
    """Remove the temporary folder of a process that was killed before it could."""
    leftover = tmp_path / "out" / ".s2.partial-ab12cd34"

    def interrupted():
        with open_cohort(tmp_path / "out", MADE_WITH, False):
            leftover.mkdir()
            (leftover / "scores.json").write_text("{", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not leftover.exists()


MAP = {"models": {"decomposition": "map 0123456789ab"}, "calibrations": {"decomposition": "a"}, "scene": False}


def opened(path, made_with):
    with open_cohort(path, made_with, False) as folder:
        return folder.settings_key, folder.former_keys


def test_a_new_calibration_keeps_results_to_be_scored_by_facts(tmp_path):
    first, former = opened(tmp_path, MAP)
    assert former == ()
    new = MAP | {"models": {"decomposition": "ours 0123456789ab"}, "calibrations": {"decomposition": "b"}}
    second, former = opened(tmp_path, new)
    assert second != first
    assert former == (first,)
    assert opened(tmp_path, new) == (second, (first,)), "after an interruption"
    _, former = opened(tmp_path, MAP | {"calibrations": {"decomposition": "c"}})
    assert set(former) == {first, second}


@pytest.mark.parametrize(
    "change",
    [
        {"models": {"decomposition": "map fedc76543210"}},
        {"calibrations": {"decomposition": "a", "radiomics": "b"}},
        {"identify": True},
    ],
)
def test_other_changes_are_refused(change, tmp_path):
    opened(tmp_path, MAP)
    with pytest.raises(OutputError):
        opened(tmp_path, MAP | change)


def test_scenes_are_not_made_of_facts(tmp_path):
    opened(tmp_path, MAP | {"scene": True})
    with pytest.raises(OutputError):
        opened(tmp_path, MAP | {"scene": True, "calibrations": {"decomposition": "b"}})
