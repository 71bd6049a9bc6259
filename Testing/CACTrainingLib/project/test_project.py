"""Test a project's folder: creation, scans, uses, moved scans, damage, and concurrent and killed programs."""

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import annotating_program
import pytest
import SimpleITK as sitk
from annotating_program import Annotating
from chest_ct import write_ct
from dicom_files import chest_hu, write_series

from CACScoringLib.core.errors import CTError, ProjectError, ProjectWriteError
from CACScoringLib.core.tables import read_table
from CACTrainingLib.project import files as project_files
from CACTrainingLib.project.annotation_files import ImportedAnnotations, SliceLabel
from CACTrainingLib.project.annotations import annotators, patient_kinds, read_annotated_mask, slice_annotations
from CACTrainingLib.project.project import NewScan, Project, content_hash, is_project
from CACTrainingLib.project.split import USES, split_patients


@pytest.fixture
def data(tmp_path):
    """Folder with three scans of two patients."""
    for n in range(3):
        write_ct(tmp_path / "data" / f"scan{n}.nii.gz", n)
    return tmp_path / "data"


def three_scans(data: Path) -> list[NewScan]:
    return [NewScan(f"scan{n}", f"patient {n // 2}", data / f"scan{n}.nii.gz") for n in range(3)]


@pytest.fixture
def project(tmp_path, data):
    project = Project.create(tmp_path / "project", "Trial")
    assert not project.add(three_scans(data)).failed
    return project


class TestMakingAndOpening:
    def test_an_empty_folder_becomes_a_project_and_another_does_not(self, tmp_path):
        (tmp_path / "empty").mkdir()
        assert Project.create(tmp_path / "empty").scans == ()
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years", encoding="utf-8")
        with pytest.raises(ProjectError, match="not empty"):
            Project.create(tmp_path / "mine")
        with pytest.raises(ProjectError, match="not empty"):
            Project.create(tmp_path / "empty")
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
        assert Project.create(tmp_path / "Cologne 1", "").name == "Cologne 1"

    def test_a_folder_without_project_is_none(self, data):
        with pytest.raises(ProjectError, match=r"is not a project: it has no project\.json"):
            Project.open(data)
        assert not is_project(data)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"schema": "cac-project/2", "name": "x"}', r"schema is 'cac-project/2'.*Update"),
            ('{"schema": "cac-pro', "cannot be used.*annotations are untouched"),
            ("[]", "cannot be used"),
            ('{"schema": "cac-project/1", "name": 1}', "cannot be used"),
        ],
    )
    def test_foreign_or_damaged_project_file_is_reported_and_unchanged(self, project, text, message):
        file = project.folder / "project.json"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ProjectError, match=message) as error:
            Project.open(project.folder)
        assert "project" in str(error.value)
        assert file.read_text(encoding="utf-8") == text

    @pytest.mark.parametrize("content", [None, b"", b"id,name\0\0\0"])
    def test_a_lost_list_of_scans_is_taken_from_its_backup(self, project, content):
        file = project.folder / "scans.csv"
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        opened = Project.open(project.folder)
        assert [scan.id for scan in opened.scans] == ["0001", "0002"]
        assert "last change" in opened.warnings[0]
        opened.set_use({"patient 0": "test"})
        assert Project.open(project.folder).warnings == ()
        broken = [path.read_bytes() for path in project.folder.glob("scans.broken-*.csv")]
        assert broken == ([] if content is None else [content])

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("0002,", "2,", r"Line 3 .*'2' is not an id"),
            ("0002,", "../../x,", "is not an id"),
            ("0002,", "0001,", "'0001' .*is there twice"),
            ("0002,", "0002,more,", "it has 10 cells, not 9"),
            ("0002,", "0002,\x1b[31m", "name or patient holds control characters"),
            ("id,name", "id,nom", "the columns are id, nom"),
            (",scan,", ",magic,", "source of 0001 is 'magic'"),
            ("scan,,", "scan,somewhere,", "use of 0001 is 'somewhere'"),
        ],
    )
    def test_a_wrong_row_is_refused_by_line_and_value(self, project, old, new, message):
        file = project.folder / "scans.csv"
        text = file.read_text(encoding="utf-8").replace(old, new, 1)
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ProjectError, match=message):
            Project.open(project.folder)
        assert file.read_text(encoding="utf-8") == text

    def test_a_list_saved_by_another_program_is_read(self, project):
        file = project.folder / "scans.csv"
        lines = file.read_text(encoding="utf-8").splitlines()
        turned = [",".join(reversed(line.split(","))) for line in lines]
        file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*turned, ""]).encode())
        assert Project.open(project.folder).scans == project.scans


class TestAdding:
    def test_a_scan_is_added_once_whatever_its_name(self, project, data, tmp_path):
        copy = shutil.copy(data / "scan1.nii.gz", tmp_path / "copy.nii.gz")
        result = project.add([NewScan("copy", "another", Path(copy)), three_scans(data)[0]])
        assert (result.duplicates, result.added) == ((("copy", "0002"), ("scan0", "0001")), ())
        assert len(Project.open(project.folder).scans) == 3

    def test_failing_scans_do_not_stop_the_others(self, project, data, tmp_path):
        def broken():
            raise CTError("the labels are of another scan")

        steps = []
        half = write_ct(tmp_path / "half.nii.gz", 21)
        half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
        series = sorted(write_series(tmp_path / "series", chest_hu(seed=21)))
        series[len(series) // 2].unlink()
        result = project.add(
            [
                NewScan("gone", "p", data / "gone.nii.gz"),
                NewScan("half", "p", half),
                NewScan("slices", "p", tmp_path / "series"),
                NewScan("torn", "p", write_ct(tmp_path / "a.nii.gz", 8), annotations=broken),
                NewScan("odd", "p", write_ct(tmp_path / "b.nii.gz", 9), source="web"),
                NewScan("good", "p", write_ct(tmp_path / "c.nii.gz", 10)),
            ],
            lambda *step: steps.append(step),
        )
        assert [name for name, _ in result.failed] == ["gone", "half", "slices", "torn", "odd"]
        assert "does not exist" in result.failed[0][1]
        assert "labels are of another scan" in result.failed[3][1]
        assert [scan.name for scan in result.added] == ["good"]
        assert steps == [(n, 6) for n in range(1, 7)]
        assert list((project.folder / "scans").iterdir()) == []

    def test_names_are_kept_exactly_even_those_that_spreadsheets_run(self, project, tmp_path):
        names = ["=1+1", 'say "ja"', "a,b", "Ünal; B", "  ".join("ab"), "007"]
        new_scans = [NewScan(name, name, write_ct(tmp_path / f"{n}.nii.gz", 50 + n)) for n, name in enumerate(names)]
        project.add(new_scans)
        reread = Project.open(project.folder).scans[3:]
        assert [scan.name for scan in reread] == names == [scan.patient for scan in reread]

    def test_paths_inside_the_project_are_relative(self, project):
        ct = write_ct(project.folder / "cts" / "own.nii.gz", 7)
        project.add([NewScan("own", "p", ct, truth=ct.parent / "truth.json")])
        row = read_table(project.folder / "scans.csv").lines[-1]
        assert (row.text("ct"), row.text("truth")) == ("cts/own.nii.gz", "cts/truth.json")
        moved = project.folder.rename(project.folder.with_name("moved"))
        assert (Project.open(moved).scans[-1].ct, Project.open(moved).missing()) == (moved / "cts" / "own.nii.gz", [])

    def test_a_new_scan_of_a_patient_gets_the_patients_use(self, project, tmp_path):
        project.set_use({"patient 1": "test"})
        project.add([NewScan("later", "patient 1", write_ct(tmp_path / "later.nii.gz", 5))])
        assert project.scans[-1].use == "test"

    def test_annotations_that_come_along_are_there_with_the_scan(self, project, tmp_path):
        ct = write_ct(tmp_path / "known.nii.gz", 5)
        regions = sitk.ReadImage(ct) > 300
        labels = {2: SliceLabel.VISIBLE, 3: SliceLabel.UNSURE}
        imported = ImportedAnnotations("COCA readers", labels, regions, None)
        project.add([NewScan("known", "p", ct, annotations=lambda: imported)])
        assert annotators(project, "0004") == ["COCA readers"]
        slices = slice_annotations(project, "0004", "COCA readers")
        assert slices.labels == labels
        assert not slices.can_undo
        mask = read_annotated_mask(project, "0004", "COCA readers", "regions")
        assert (sitk.GetArrayFromImage(mask) == sitk.GetArrayFromImage(regions)).all()
        assert read_annotated_mask(project, "0004", "COCA readers", "heart") is None
        assert [path.name for path in (project.folder / "scans").iterdir()] == ["0004"]

    def test_ids_of_folders_that_are_there_are_not_given_again(self, project, tmp_path):
        (project.folder / "scans" / "0012").mkdir()

        project.add([NewScan("x", "p", write_ct(tmp_path / "x.nii.gz", 5))])
        assert project.scans[-1].id == "0013"

    def test_two_programs_add_at_once_and_nothing_is_lost(self, project, tmp_path):
        cts = [write_ct(tmp_path / f"{n}.nii.gz", 20 + n) for n in range(8)]
        programs = [Project.open(project.folder) for _ in range(4)]
        shares = [[NewScan(f"{n}", f"{n}", cts[n]) for n in range(m, 8, 4)] for m in range(4)]
        with ThreadPoolExecutor() as threads:
            list(threads.map(Project.add, programs, shares))
        scans = Project.open(project.folder).scans
        assert [scan.id for scan in scans] == [f"{n:04d}" for n in range(1, 12)]
        assert {scan.name for scan in scans[3:]} == {f"{n}" for n in range(8)}
        project.reload()
        assert project.scans == scans


class TestFullDisk:
    def test_project_stays_unchanged_and_the_message_names_the_remedy(self, project, tmp_path, monkeypatch):
        def fsync(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        before = {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}
        new_scans = [NewScan("x", "p", write_ct(tmp_path / "x.nii.gz", 5))]
        monkeypatch.setattr(project_files.os, "fsync", fsync)
        for change in (
            lambda: project.add(new_scans),
            lambda: project.set_use({"patient 0": "test"}),
            lambda: project.split(),
            lambda: project.remove("0001"),
        ):
            with pytest.raises(ProjectWriteError, match=r"scans?\.csv.* could not be written: No space.*Free some"):
                change()
            opened = Project.open(project.folder)
            assert ([scan.id for scan in opened.scans], opened.scans) == (["0001", "0002", "0003"], project.scans)
        after = {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}
        assert after == before

    def test_a_program_that_was_killed_holds_nothing_up(self, project, monkeypatch):
        monkeypatch.setattr(project_files, "LOCK_SECONDS", 0.05)
        code = (
            "import sys, time; from pathlib import Path; from CACTrainingLib.project.files import project_lock\n"
            "with project_lock(Path(sys.argv[1])):\n    print('locked', flush=True)\n    time.sleep(60)"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", code, str(project.folder)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout.readline() == "locked\n"
            with pytest.raises(ProjectWriteError, match="Another program"):
                project.set_use({"patient 0": "test"})
            holder.kill()
        project.set_use({"patient 0": "test"})


class TestRemoving:
    def test_a_scan_is_moved_with_its_annotations(self, project, data):
        slice_annotations(project, "0002", "Anna").set(3, SliceLabel.VISIBLE)
        project.remove("0002")
        assert [scan.id for scan in Project.open(project.folder).scans] == ["0001", "0003"]
        (journal,) = (project.folder / "removed").glob("0002-*/annotators/Anna/slices.jsonl")
        assert '"visible"' in journal.read_text(encoding="utf-8")
        (row,) = read_table(journal.parents[2] / "scan.csv").lines
        assert row.text("name") == "scan1"
        assert not Project.open(project.folder).warnings


class TestUses:
    def test_unknown_uses_and_patients_change_nothing(self, project):
        with pytest.raises(ProjectError, match="'tests' is not a use"):
            project.set_use({"patient 0": "tests"})
        with pytest.raises(ProjectError, match="no patient 'nobody'"):
            project.set_use({"patient 0": "test", "nobody": "test"})
        assert not any(scan.use for scan in Project.open(project.folder).scans)

    def test_a_split_is_stored_and_kept(self, project, tmp_path):
        project.add([NewScan(f"{n}", f"new {n}", write_ct(tmp_path / f"{n}.nii.gz", 30 + n)) for n in range(3)])
        project.set_use({"patient 1": "test"})
        new_uses = project.split()
        assert set(new_uses) == {"patient 0", "new 0", "new 1", "new 2"}
        uses = {scan.patient: scan.use for scan in Project.open(project.folder).scans}
        assert uses == {**new_uses, "patient 1": "test"}
        assert Counter(uses.values()) == {"training": 3, "validation": 1, "test": 1}
        assert project.split(seed=5) == {}

    def test_every_kind_gives_its_share(self):
        kinds = {f"p{n}": int(n < 10) for n in range(40)}
        uses = split_patients(dict.fromkeys(kinds, ""), (0.6, 0.2, 0.2), 0, kinds)
        for kind, counts in ((1, (6, 2, 2)), (0, (18, 6, 6))):
            kind_counts = Counter(use for patient, use in uses.items() if kinds[patient] == kind)
            assert tuple(kind_counts[use] for use in USES) == counts
        assert uses == split_patients(dict.fromkeys(reversed(kinds), ""), (60, 20, 20), 0, kinds)
        assert uses != split_patients(dict.fromkeys(kinds, ""), (0.6, 0.2, 0.2), 1, kinds)

    @pytest.mark.parametrize("shares", [(0, 0, 0), (1, -0.1, 0.1), (1, float("nan"), 0), (0.5, 0.5)])
    def test_bad_shares_are_refused(self, shares):
        with pytest.raises(ProjectError, match="shares"):
            split_patients({"p": ""}, shares, 0, {})

    @pytest.mark.parametrize(("count", "uses"), [(2, "training validation"), (3, "training validation test")])
    @pytest.mark.parametrize("seed", range(2))
    def test_few_patients_with_calcium_are_in_validation_too(self, count, uses, seed):
        kinds = {f"p{n}": 2 if n < count else 1 for n in range(20)}
        new_uses = split_patients(dict.fromkeys(kinds, ""), (0.6, 0.2, 0.2), seed, kinds)
        assert {new_uses[f"p{n}"] for n in range(count)} == set(uses.split())
        assert Counter(new_uses.values()) == {"training": 12, "validation": 4, "test": 4}

    def test_patient_kinds_follow_labels_and_truth(self, project, tmp_path):
        truth = tmp_path / "truth.json"
        slices = [{"k": 0, "visible": None}, {"k": 1, "visible": False}]
        truth.write_text(json.dumps({"slices": slices}), encoding="utf-8")
        project.add([NewScan("digital", "d", write_ct(tmp_path / "d.nii.gz", 5), source="digital", truth=truth)])
        slice_annotations(project, "0001", "Anna").set(3, SliceLabel.NOT_VISIBLE)
        slice_annotations(project, "0002", "Ben").set(3, SliceLabel.VISIBLE)
        slice_annotations(project, "0003", "Ben").set(3, SliceLabel.UNSURE)
        assert patient_kinds(project) == {"patient 0": 2, "patient 1": 0, "d": 1}


class TestMovedScans:
    def test_moved_scans_are_missing_until_relocated(self, project, data):
        moved = data.rename(data.with_name("elsewhere"))
        opened = Project.open(project.folder)
        assert [scan.id for scan in opened.missing()] == ["0001", "0002", "0003"]
        steps = []
        assert opened.relocate(data, moved, lambda *step: steps.append(step)) == 3
        assert steps == [(1, 3), (2, 3), (3, 3)]
        assert opened.missing() == Project.open(project.folder).missing() == []
        assert opened.scan("0001").ct == moved / "scan0.nii.gz"

    def test_a_different_scan_at_the_new_path_changes_nothing(self, project, data):
        moved = data.rename(data.with_name("elsewhere"))
        write_ct(moved / "scan1.nii.gz", 77)
        with pytest.raises(ProjectError, match=r"1 of 3 .*nothing was changed: scan1 at .*scan1\.nii\.gz"):
            project.relocate(data, moved)
        assert len(Project.open(project.folder).missing()) == 3

    @pytest.mark.skipif(os.name == "nt", reason="the project comes from Windows")
    def test_a_project_from_another_system_finds_its_scans(self, project, data):
        file = project.folder / "scans.csv"
        text = file.read_text(encoding="utf-8").replace(data.as_posix(), "D:/scans")
        file.write_text(text, encoding="utf-8")
        opened = Project.open(project.folder)
        assert len(opened.missing()) == 3
        assert opened.relocate(Path("D:\\scans"), data) == 3
        assert Project.open(project.folder).scans == project.scans


class TestContent:
    def test_hash_of_a_dicom_series_ignores_names_of_files(self, tmp_path):
        files = write_series(tmp_path / "a", chest_hu())
        (tmp_path / "b" / "deep").mkdir(parents=True)
        for n, file in enumerate(reversed(files)):
            shutil.copy(file, tmp_path / "b" / ("deep" if n % 2 else ".") / f"IM{n}")
        (tmp_path / "b" / "notes.txt").write_text("no slice", encoding="utf-8")
        assert content_hash(tmp_path / "a", None) == content_hash(tmp_path / "b", None)
        (tmp_path / "b" / "IM0").unlink()
        assert content_hash(tmp_path / "a", None) != content_hash(tmp_path / "b", None)


MAX_STEPS = 8
"""Maximum number of steps before a program is killed in the middle of the next one."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills programs as POSIX does")
@pytest.mark.long
def test_killed_fifty_times_at_any_moment(tmp_path, monkeypatch):
    """All finished steps are saved, and the interrupted one completely or not, as in a project that nobody kills."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    processes, random_delays, kinds = multiprocessing.get_context("forkserver"), random.Random(7), []
    processes.set_forkserver_preload(["annotating_program"])
    for n in range(annotating_program.POOL):
        write_ct(tmp_path / f"scan{n}.nii", n)
    project, unharmed = (Project.create(tmp_path / name).folder for name in ("project", "unharmed"))
    unharmed = Annotating(unharmed)
    for seed in range(50):
        done, draw = processes.RawValue("i", 0), random.Random(seed)
        process = processes.Process(target=annotating_program.work, args=(project, seed, done))
        process.start()
        steps = random_delays.randint(0, MAX_STEPS)
        while done.value < steps and process.is_alive():
            time.sleep(0.001)
        time.sleep(random_delays.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        for _ in range(done.value):
            step = unharmed.next_step(draw)
            unharmed.do(*step)
            kinds.append(step[0])
        present = Annotating(project).state()
        if present != unharmed.state():
            unharmed.do(*unharmed.next_step(draw))
        assert present == unharmed.state(), seed
    assert set(kinds) == {"label", "undo", "mask", "add", "remove", "use", "split"}


class TestLeftovers:
    def test_old_leftovers_are_removed_and_new_ones_stay(self, tmp_path):
        project = Project.create(tmp_path / "project")
        ct = tmp_path / "ct.nii"
        write_ct(ct)
        long_ago = time.time() - 2 * 24 * 3600
        leftovers = [f"{name}.partial-abc" for name in (".scans.csv", ".scans.csv.bak", "scans/.old", "scans/.new")]
        for name in leftovers:
            (project.folder / name).mkdir()
            (project.folder / name / "half").write_text("half", encoding="utf-8")
        for name in leftovers[:3]:
            os.utime(project.folder / name, (long_ago, long_ago))
        project.add([annotating_program.NewScan("ct", "p", ct)])
        assert [name for name in leftovers if (project.folder / name).exists()] == leftovers[3:]
        assert Project.open(project.folder).warnings == ()
