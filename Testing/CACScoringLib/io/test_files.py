"""Files below a folder and in archives, with errors that name unreadable files."""

import os
import re
import shutil
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import chest_hu, write_series
from images import image_of
from reading_checks import reads, refuses

import CACScoringLib
from CACScoringLib.cli.options import read_settings
from CACScoringLib.cohort.scoring import content_key
from CACScoringLib.core.acquisition import FILE, Acquisition, key_fault, with_pseudonym
from CACScoringLib.core.errors import CTError, OutputError, SeriesChoiceError, UnreadableError
from CACScoringLib.core.files import open_file, read_json
from CACScoringLib.core.tables import read_table
from CACScoringLib.exchange.reviewed import read_review_file
from CACScoringLib.io import files
from CACScoringLib.io.reading import read_ct, read_lesion_labels, read_mask
from CACScoringLib.models.cards import read_card
from CACScoringLib.mrml.scene_content import content_of_folder
from CACScoringLib.radiograph.reading import read_radiograph
from CACScoringLib.record.score_record import read_result
from CACScoringLib.report.page import pictures_of_report
from CACScoringLib.scans.source import ScanSource

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")


def scan_in_two_folders(folder):
    """Lower slices in the folder itself, upper slices in a subfolder."""
    paths = write_series(folder, chest_hu())
    (folder / "upper").mkdir()
    for path in paths[3:]:
        path.rename(folder / "upper" / path.name)
    return folder / "upper"


@needs_links
class TestLinks:
    def test_to_a_folder(self, tmp_path):
        upper = scan_in_two_folders(tmp_path / "scan")
        upper.rename(tmp_path / "elsewhere")
        upper.symlink_to(tmp_path / "elsewhere")
        reads(tmp_path / "scan", chest_hu())

    def test_in_a_circle(self, tmp_path):
        upper = scan_in_two_folders(tmp_path)
        (upper / "again").symlink_to(tmp_path)
        (tmp_path / "twice").symlink_to(upper)
        reads(tmp_path, chest_hu())

    def test_of_the_last_slice_to_nothing(self, tmp_path):
        paths = write_series(tmp_path, chest_hu())
        paths[5].unlink()
        paths[5].symlink_to(tmp_path / "missing.dcm")
        assert "slice005.dcm" in reads(tmp_path, chest_hu()[:5], ["slices-unread"]).warnings[0].message


def refuse(monkeypatch, folder):
    """Let `os.walk` report a folder as if permission were missing."""
    scandir = os.scandir

    def scan(path):
        if os.fspath(path) == os.fspath(folder):
            raise PermissionError(13, "Permission denied", os.fspath(folder))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)


def test_a_subfolder_without_permission(tmp_path, monkeypatch):
    refuse(monkeypatch, scan_in_two_folders(tmp_path))
    (warning,) = reads(tmp_path, chest_hu()[:3], ["slices-unread"]).warnings
    assert warning.severe
    assert "Permission denied" in warning.message


def test_a_folder_without_permission(tmp_path, monkeypatch):
    write_series(tmp_path, chest_hu())
    refuse(monkeypatch, tmp_path)
    refuses(tmp_path, UnreadableError, "Permission denied")


class TestArchives:
    def pack(self, folder, name="scan.zip"):
        return shutil.make_archive(str(folder.with_name(name.removesuffix(".zip"))), "zip", folder)

    def test_a_series(self, tmp_path):
        write_series(tmp_path / "scan" / "deep", chest_hu())
        archive = self.pack(tmp_path / "scan")
        scan = reads(archive, chest_hu())
        assert str(scan.source) == archive
        with files.real_files(scan.dicom_files) as unpacked:
            assert [file.is_file() for file in unpacked] == [True] * 6

    def test_damaged_and_huge_ones(self, tmp_path, monkeypatch):
        write_series(tmp_path / "scan", chest_hu())
        archive = tmp_path / "scan.zip"
        self.pack(tmp_path / "scan")
        content = bytearray(archive.read_bytes())
        content[200] ^= 255
        (tmp_path / "damaged.zip").write_bytes(content)
        refuses(tmp_path / "damaged.zip", UnreadableError, r"damaged\.zip cannot be unpacked")
        monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 1000)
        refuses(archive, UnreadableError, r"scan\.zip holds [\d,]+ bytes")

    def test_names_that_lead_out_of_the_archive(self, tmp_path):
        (path, *_) = write_series(tmp_path / "scan", chest_hu())
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for file in sorted((tmp_path / "scan").iterdir()):
                archive.write(file, f"../../{file.name}")
        reads(tmp_path / "a.zip", chest_hu())
        assert [file.name for file in tmp_path.rglob(path.name)] == [path.name]


class TestImagesBesideSeries:
    """A folder with several scans asks which one is meant."""

    def image(self, path, array=None):
        image = image_of((chest_hu() if array is None else array).astype(np.int16), (0.7, 0.8, 3.0))
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(path))

    def test_an_image_file(self, tmp_path):
        self.image(tmp_path / "deep" / "ct.nii.gz")
        scan = reads(tmp_path, chest_hu())
        assert scan.source == tmp_path

    @pytest.mark.parametrize("with_series", [False, True])
    def test_several_are_listed(self, tmp_path, with_series):
        self.image(tmp_path / "a.nii.gz")
        if with_series:
            write_series(tmp_path / "dicom", chest_hu(seed=1))
        else:
            self.image(tmp_path / "b" / "b.nrrd")
        with pytest.raises(SeriesChoiceError) as caught:
            read_ct(tmp_path)
        assert "a.nii.gz" in str(caught.value)
        assert ("3: " in str(caught.value), "b/b.nrrd" in str(caught.value)) == (with_series, not with_series)
        if with_series:
            reads(tmp_path, chest_hu(seed=1), series="3")

    def test_masks_and_results_beside_a_series_are_no_scans(self, tmp_path):
        write_series(tmp_path, chest_hu())
        sitk.WriteImage(sitk.GetImageFromArray(np.ones((2, 3, 4), np.uint8)), str(tmp_path / "mask.nii.gz"))
        self.image(tmp_path / "lesions.seg.nrrd")
        self.image(tmp_path / "results" / "map.nii.gz")
        (tmp_path / "results" / "scores.json").write_text("{}", encoding="utf-8")
        reads(tmp_path, chest_hu())


def test_files_of_the_system_are_no_slices(tmp_path):
    write_series(tmp_path, chest_hu())
    for name in ("._slice000.dcm", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/._slice001.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7" + bytes(200))
    assert read_ct(tmp_path).warnings == ()


@pytest.mark.parametrize("ending", [".tar", ".tgz"])
def test_a_tar_archive_is_read(tmp_path, ending):
    write_series(tmp_path / "scan", chest_hu())
    with tarfile.open(tmp_path / f"scan{ending}", "w:gz" if ending == ".tgz" else "w") as archive:
        archive.add(tmp_path / "scan", "scan")
    reads(tmp_path / f"scan{ending}", chest_hu())


def test_tar_archives_that_are_refused(tmp_path, monkeypatch):
    (path, *_) = write_series(tmp_path / "scan", chest_hu())
    for number, name in enumerate(("../outside.dcm", str(tmp_path / "outside.dcm"), "link/outside.dcm")):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            if name.startswith("link"):
                link = tarfile.TarInfo("link")
                link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
                archive.addfile(link)
            archive.add(path, name, filter=lambda entry, name=name: entry.replace(name=name, deep=False))
        with suppress(CTError):  # an absolute name is unpacked below the temporary folder
            read_ct(tmp_path / f"{number}.tar")
        assert [file.name for file in tmp_path.rglob("outside.dcm")] == []
    with tarfile.open(tmp_path / "large.tgz", "w:gz") as archive:
        archive.add(tmp_path / "scan", "scan")
    (tmp_path / "cut.tgz").write_bytes((tmp_path / "large.tgz").read_bytes()[:-200])
    refuses(tmp_path / "cut.tgz", UnreadableError, r"cut\.tgz cannot be unpacked")
    monkeypatch.setattr(files, "MAX_UNPACKED_BYTES", 1000)
    refuses(tmp_path / "large.tgz", UnreadableError, r"large\.tgz holds [\d,]+ bytes")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (".slice006.dcm.icloud", b"bplist00", "iCloud"),
        ("slice006.dcm.crdownload", b"half", "unfinished download"),
        ("rest.zip", b"PK\3\4 half", "archive without its end"),
        ("slice006.dcm", b"<!DOCTYPE html><html><title>Sign in</title>", "web page"),
        ("slice006", b"\xef\xbb\xbf\n<HTML lang=de>", "web page"),
        ("slice006.dcm", b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "git lfs pull"),
    ],
)
def test_files_that_were_not_fetched_are_named(tmp_path, name, content, reason):
    """Slices may be among them, which is severe for those that a scan's other slices are named like."""
    write_series(tmp_path, chest_hu())
    (tmp_path / name).write_bytes(content)
    (warning,) = read_ct(tmp_path).warnings
    assert reason in warning.message
    is_slice = "icloud" in name or name == "slice006.dcm"
    assert warning.code == ("slices-unread" if is_slice else "unread-files")
    with pytest.raises(UnreadableError, match=reason):
        read_ct(tmp_path / ("slice006.dcm" if "icloud" in name else name))


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nrrd", "ct.mha", "labels.nii"])
@pytest.mark.parametrize("content", [b"<html><body>Sign in", b"version https://git-lfs.github.com/spec/v1\n"])
def test_an_image_that_is_a_page_or_a_pointer_is_called_so(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for read in (read_ct, read_mask):
        with pytest.raises(UnreadableError, match=r"web page|git lfs pull"):
            read(tmp_path / name)


def test_a_page_beside_the_slices_is_no_slice(tmp_path):
    write_series(tmp_path, chest_hu())
    (tmp_path / "index.html").write_text("<html>", encoding="utf-8")
    assert read_ct(tmp_path).warnings == ()


@pytest.mark.parametrize(("number", "beside", "is_part"), [(1, (), False), (1, (2,), True), (2, (), True)])
def test_part_of_a_download_gets_a_warning(tmp_path, number, beside, is_part):
    """Google Drive numbers its archives, and gives a number to a single one too."""
    write_series(tmp_path / "ct", chest_hu())
    for part in (number, *beside):
        name = f"scan-20240101T101010Z-3-{part:03}"
        shutil.make_archive(str(tmp_path / name), "zip", tmp_path / "ct")
    codes = [warning.code for warning in read_ct(tmp_path / f"scan-20240101T101010Z-3-{number:03}.zip").warnings]
    assert codes == ["images-missing"] * is_part


def test_an_archive_in_an_archive_is_named(tmp_path):
    (tmp_path / "scan").mkdir()
    with zipfile.ZipFile(tmp_path / "scan" / "inner.zip", "w") as archive:
        archive.writestr("text.txt", "text")
    outer = shutil.make_archive(str(tmp_path / "outer"), "zip", tmp_path / "scan")
    with pytest.raises(UnreadableError, match=r"outer\.zip holds no readable DICOM.*archives \(inner\.zip\)") as error:
        read_ct(outer)
    assert "cac-archive" not in str(error.value)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
def test_pipes_and_devices_are_refused_and_skipped(tmp_path):
    write_series(tmp_path / "scan", chest_hu())
    os.mkfifo(tmp_path / "scan" / "slice006.dcm")
    assert read_ct(tmp_path / "scan").hu.shape[0] == 6
    for path in (tmp_path / "scan" / "slice006.dcm", "/dev/zero"):
        refuses(path, UnreadableError, "pipe or a device")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
@pytest.mark.parametrize(
    ("read", "name"),
    [
        *((read_mask, f"pipe{ending}") for ending in (".nii.gz", ".nrrd", ".dcm")),
        (read_lesion_labels, "pipe.nrrd"),
        *((read, "pipe.json") for read in (read_json, read_result, read_card)),
        (lambda path: read_settings(str(path)), "pipe.json"),
        (read_radiograph, "pipe.png"),
        (read_table, "pipe.csv"),
        (lambda path: content_key(ScanSource("a", "", path)), "pipe.nrrd"),
        (read_review_file, "pipe.dcm"),
        (lambda path: pictures_of_report(path.parent) or open_file(path), "report.html"),
        (lambda path: content_of_folder(path.parent, None, "scan"), "scores.json"),
    ],
)
def test_no_named_file_is_waited_for(tmp_path, read, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises((CTError, OutputError, OSError)):
        read(tmp_path / name)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such devices")
@pytest.mark.parametrize("source", ["pipe", "/dev/zero"])
def test_no_key_is_waited_for(tmp_path, monkeypatch, source):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv(FILE, str(tmp_path / source))
    assert key_fault() == "it is a pipe or a device"
    assert with_pseudonym(Acquisition("DICOM", patient_id="P1")).patient_digest is None


def test_files_are_opened_by_the_opener_that_refuses_pipes():
    """Modules that open files without it read their own resources, or files that they have just written."""
    exempt = {"version.py", "processes.py", "dictionary.py", "graph.py", "background.py", "packages.py"}
    direct = re.compile(r"\.read_(bytes|text)\(|\.open\(\"r?b?\"?\)")
    library = Path(CACScoringLib.__file__).parent
    modules = [path for path in library.rglob("*.py") if path.name not in exempt | {"files.py", "image_files.py"}]
    assert len(modules) > 150
    for path in modules:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if direct.search(line) and "distribution(" not in line], path
