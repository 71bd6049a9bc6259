"""A search for scans goes on where it was interrupted, and reads no folder again that did not change."""

import os
import stat

import pytest
from dicom_files import chest_hu, write_series
from in_this_process import InThisProcess

from CACScoringLib.cohort import cohort
from CACScoringLib.cohort.cohort import Sharing
from CACScoringLib.cohort.search_journal import FILE, SearchJournal, signature
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import Series


@pytest.fixture
def tree(tmp_path):
    """Three folders with a series each."""
    for name in "abc":
        write_series(tmp_path / "in" / name, chest_hu(4))
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def read(monkeypatch):
    """The folders whose headers were read since; one of this name stops the search."""
    monkeypatch.setattr(cohort, "Workers", InThisProcess)
    folders = []
    find = cohort.find_series

    def note(folder):
        folders.append(folder.name)
        return find(folder)

    monkeypatch.setattr(cohort, "find_series", note)
    return folders


def scans(tree):
    return cohort._find(tree / "in", tree / "out", Sharing(workers=1), Progress())[0]


def test_a_second_search_reads_no_header(tree, read):
    first = scans(tree)
    assert read == ["a", "b", "c"]
    assert [scan.name for scan in first] == ["a", "b", "c"]
    assert scans(tree) == first
    assert read == ["a", "b", "c"]
    (tree / "in").rename(tree / "moved")
    (tree / "moved").rename(tree / "in")
    assert len(scans(tree)) == 3
    assert len(read) == 3


def test_what_changed_is_read_again(tree, read):
    scans(tree)
    one = next((tree / "in" / "b").iterdir())
    os.utime(one, (1, 1))
    write_series(tree / "in" / "c", chest_hu(4), name="more{}".format)
    (tree / "in" / "d").mkdir()
    (tree / "in" / "d" / "note.txt").touch()
    del read[:]
    assert [scan.ct.name for scan in scans(tree)] == ["a", "b", "c", "c"]
    assert read == ["b", "c", "d"]


def test_an_interrupted_search_goes_on(tree, read, monkeypatch):
    find = cohort.find_series

    def interrupted(folder):
        if folder.name == "c":
            raise KeyboardInterrupt
        return find(folder)

    monkeypatch.setattr(cohort, "find_series", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scans(tree)
    monkeypatch.setattr(cohort, "find_series", find)
    del read[:]
    assert [scan.name for scan in scans(tree)] == ["a", "b", "c"]
    assert read == ["c"]


def test_a_folder_with_broken_files_is_searched_again(tree, read):
    (tree / "in" / "a" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    for _ in range(2):
        assert len(scans(tree)) == 3
    assert read == ["a", "b", "c", "a"]


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(200)])
def test_a_damaged_journal_is_begun_anew(tree, read, content):
    (tree / "out" / FILE).write_bytes(content)
    assert [len(scans(tree)) for _ in range(2)] == [3, 3]
    assert read == ["a", "b", "c"]


def test_without_a_journal_all_is_searched(tree, read):
    (tree / "out" / FILE).mkdir()
    assert [len(scans(tree)) for _ in range(2)] == [3, 3]
    assert len(read) == 6


def test_of_another_version_nothing_is_taken(tmp_path):
    (tmp_path / "a").mkdir()
    with SearchJournal(tmp_path, tmp_path) as journal:
        journal.add(tmp_path / "a", signature(tmp_path / "a"), [Series("1.2", None, 5)], 0)
        assert journal.known(tmp_path / "a") == ([Series("1.2", None, 5)], 0)
        journal._db.execute("PRAGMA user_version = 99")
    with SearchJournal(tmp_path, tmp_path) as journal:
        assert journal.known(tmp_path / "a") is None


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX here")
def test_it_is_its_owners_alone(tmp_path):
    with SearchJournal(tmp_path, tmp_path):
        pass
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
