"""Atomic writes of files, folders and results, and removal of partial ones."""

import os

import pytest

from CACScoringLib.core import files
from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.files import (
    RESULT_FILES,
    OutputFolder,
    atomic_folder,
    atomic_write,
    parse_json,
    write_bytes_atomically,
    write_text_atomically,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end_under_its_name(tmp_path):
    target = tmp_path / "a.nii.gz"
    target.write_text("before", encoding="utf-8")
    with atomic_write(target) as half:
        assert half.name == "a.nii.gz"
        half.write_text("after", encoding="utf-8")
        assert target.read_text(encoding="utf-8") == "before"
    assert target.read_text(encoding="utf-8") == "after"
    assert names(tmp_path) == ["a.nii.gz"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_leaves_only_the_earlier_file(tmp_path, error):
    target = tmp_path / "a"
    target.write_text("before", encoding="utf-8")

    def fail():
        with atomic_write(target) as half:
            half.write_text("aft", encoding="utf-8")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text(encoding="utf-8") == "before"
    assert names(tmp_path) == ["a"]


def test_a_folder_appears_at_the_end_and_replaces_none(tmp_path):
    target = tmp_path / "a"
    with atomic_folder(target) as half:
        (half / "one").touch()
        assert not target.exists()
    assert names(target) == ["one"]
    with pytest.raises(OSError, match="a"), atomic_folder(target) as half:
        (half / "two").touch()
    assert names(target) == ["one"]
    assert names(tmp_path) == ["a"]


def test_text_is_written_unchanged(tmp_path):
    write_text_atomically(tmp_path / "a", "ä\r\n\udce4\n")
    assert (tmp_path / "a").read_bytes() == "ä\r\n".encode() + b"\\udce4\n"


def test_durable_files_are_flushed_before_the_rename(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("sync"), sync(number)))
    monkeypatch.setattr(files, "sync_folder", lambda folder: done.append(folder))
    monkeypatch.setattr(type(tmp_path), "replace", lambda self, to: (done.append("rename"), replace(self, to)))
    write_bytes_atomically(tmp_path / "a", b"1", durable=True)
    assert done == ["sync", "rename", tmp_path]
    write_bytes_atomically(tmp_path / "a", b"1")
    assert done[3:] == ["rename"]


def write(folder, **files):
    for stem, text in files.items():
        (folder / f"{stem}.json").write_text(text, encoding="utf-8")


def text_of(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("exists", [True, False])
def test_the_second_of_two_runs_into_a_new_folder_fails_and_keeps_the_first(tmp_path, exists):
    target = tmp_path / "out"
    if exists:
        target.mkdir()
    first, second = OutputFolder(target), OutputFolder(target)

    def run_both():
        with second.being_written() as late:
            with first.being_written() as early:
                write(early, scores="first", lesions="first")
            write(late, scores="second", heart="second")

    with pytest.raises(OutputError, match="Another run has written"):
        run_both()
    assert names(target) == ["lesions.json", "scores.json"]
    assert text_of(target / "scores.json") == "first"
    assert names(tmp_path) == ["out"]


class KilledError(BaseException):
    """Stand-in for SIGKILL: not caught, and no temporary folder is removed."""


def killed_at(monkeypatch, folder, number):
    """Kill the replacement of a folder's result at the n-th change of files; return True if it got there."""
    count = 0

    def counted(change):
        def changed(self, *arguments, **named):
            nonlocal count
            count += 1
            if count == number:
                raise KilledError
            return change(self, *arguments, **named)

        return changed

    kind = type(folder)
    with monkeypatch.context() as patched:
        for name in ("rename", "replace", "unlink", "rmdir"):
            patched.setattr(kind, name, counted(getattr(kind, name)))
        patched.setattr("shutil.rmtree", lambda *_, **__: None)
        try:
            with OutputFolder(folder, overwrite=True).being_written() as files:
                write(files, scores="second", other="second")
                (files / "report.html").write_text("second", encoding="utf-8")
        except KilledError:
            return True
    return False


def test_a_killed_replacement_leaves_a_single_complete_result(tmp_path, monkeypatch):
    first = {"scores.json": "first", "lesions.csv": "first", "notes.txt": "mine"}
    second = {"scores.json": "second", "other.json": "second", "report.html": "second", "notes.txt": "mine"}
    outcomes = []
    for number in range(1, 100):
        folder = tmp_path / str(number) / "out"
        folder.mkdir(parents=True)
        for name, text in first.items():
            (folder / name).write_text(text, encoding="utf-8")
        if not killed_at(monkeypatch, folder, number):
            break
        with pytest.raises(OutputError, match="not empty"):
            OutputFolder(folder)
        outcomes.append({path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()})
        assert outcomes[-1] in (first, second)
        assert not (set(names(folder.parent)) - {"out"} - {p.name for p in folder.parent.glob(".*.partial-*")})
    assert first in outcomes
    assert second in outcomes
    assert len(outcomes) > 10


def test_a_full_disk_is_reported_and_keeps_the_earlier_result(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    write(folder, scores="first")

    def fail():
        with OutputFolder(folder, overwrite=True).being_written():
            raise OSError(28, "No space left on device", "lesions.csv")

    with pytest.raises(OutputError, match=r"written to .*out: No space left.*Make room"):
        fail()
    assert names(tmp_path) == ["out"]
    assert (folder / "scores.json").read_text(encoding="utf-8") == "first"


def test_no_file_of_an_earlier_result_stays_beside_a_new_result(tmp_path):
    """A run without networks leaves no scene and map of an earlier run with them."""
    for name in (*RESULT_FILES, "notes.txt"):
        (tmp_path / name).write_text("first", encoding="utf-8")
    with OutputFolder(tmp_path, overwrite=True).being_written() as folder:
        write(folder, scores="second")
    assert names(tmp_path) == ["notes.txt", "scores.json"]
    assert (tmp_path / "scores.json").read_text(encoding="utf-8") == "second"


def test_a_later_run_removes_partial_files_of_a_killed_run(tmp_path):
    """Files of a simultaneous run and of other targets stay."""
    old, new, foreign = (tmp_path / f".{name}" for name in ("out [1].partial-a", "out [1].partial-b", "out.partial-c"))
    for folder in (old, new, foreign):
        folder.mkdir()
        (folder / "report.html").write_text("half", encoding="utf-8")
    for folder in (old, foreign):
        os.utime(folder, (0, 0))
    with OutputFolder(tmp_path / "out [1]").being_written() as folder:
        (folder / "scores.json").write_text("{}", encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"out [1]", new.name, foreign.name}


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/CAC"),
        ("win32", {"LOCALAPPDATA": ""}, "home/AppData/Local/CAC"),
        ("darwin", {}, "home/Library/Application Support/CAC"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/CAC"),
        ("linux", {"XDG_DATA_HOME": "data"}, "home/.local/share/CAC"),
        ("linux", {}, "home/.local/share/CAC"),
    ],
)
def test_data_of_a_user_lie_in_the_folder_of_the_system(monkeypatch, platform, variables, expected):
    monkeypatch.setattr(files.sys, "platform", platform)
    monkeypatch.setattr(files.Path, "home", lambda: files.Path("home"))
    for name in ("LOCALAPPDATA", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert files.user_data_folder() == files.Path(expected)


def test_json_that_is_nested_too_deep_is_no_json(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(ValueError, match="nested too deep"):
        files.read_json(tmp_path / "deep.json")


def test_a_key_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match="'a' twice"):
        parse_json('{"b": [{"c": {"a": 1, "d": 2, "a": 1}}]}')
