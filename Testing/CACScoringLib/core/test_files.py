"""Files and folders appear whole, and nothing remains of those that failed."""

import os

import pytest

from CACScoringLib.core import files
from CACScoringLib.core.files import (
    atomic_folder,
    atomic_write,
    remove_partial,
    write_bytes_atomically,
    write_text_atomically,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end_under_its_name(tmp_path):
    target = tmp_path / "a.nii.gz"
    target.write_text("before")
    with atomic_write(target) as half:
        assert half.name == "a.nii.gz"
        half.write_text("after")
        assert target.read_text() == "before"
    assert target.read_text() == "after"
    assert names(tmp_path) == ["a.nii.gz"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_failed_leaves_the_earlier_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a"
    target.write_text("before")

    def fail():
        with atomic_write(target) as half:
            half.write_text("aft")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "before"
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


def test_text_is_written_as_it_is(tmp_path):
    write_text_atomically(tmp_path / "a", "ä\r\n\udce4\n")
    assert (tmp_path / "a").read_bytes() == "ä\r\n".encode() + b"\\udce4\n"


def test_what_is_durable_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("sync"), sync(number)))
    monkeypatch.setattr(files, "sync_folder", lambda folder: done.append(folder))
    monkeypatch.setattr(type(tmp_path), "replace", lambda self, to: (done.append("rename"), replace(self, to)))
    write_bytes_atomically(tmp_path / "a", b"1", durable=True)
    assert done == ["sync", "rename", tmp_path]
    write_bytes_atomically(tmp_path / "a", b"1")
    assert done[3:] == ["rename"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    def killed():
        writing = atomic_write(tmp_path / "a")
        writing.__enter__()
        return writing

    left = [killed(), killed()]
    assert len(names(tmp_path)) == 2
    remove_partial(tmp_path, seconds_old=3600)
    assert len(names(tmp_path)) == 2
    os.utime(tmp_path / names(tmp_path)[0], (0, 0))
    remove_partial(tmp_path, seconds_old=3600)
    assert len(names(tmp_path)) == 1
    (tmp_path / ".a").touch()
    remove_partial(tmp_path)
    assert names(tmp_path) == [".a"]
    del left
