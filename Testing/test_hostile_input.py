"""Hostile texts and links have no effect in any page, table, scene, DICOM object or terminal.

docs/developer/hostile-input.md lists other hostile input with its tests.
"""

import csv
import json
import os
import re
import zipfile
from html.parser import HTMLParser
from xml.etree import ElementTree

import pydicom
import pytest
from dicom_files import save
from pydicom.valuerep import PersonName
from small_ct import score_command, write_ct

from CACTrainingLib.cli.main import main

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"
HOSTILE = {
    "markup": MARKUP,
    "attribute": '"\' onmouseover=alert(1) x="',
    "formula": '=HYPERLINK("http://x";"x")',
    "command": "@SUM(1)|cmd",
    "terminal": "a\x1b[31mb\x07\x9b2J",
    "path": "../../../outside",
}
TEXTS = ("LO", "SH", "PN", "LT", "ST", "UT", "UC")
EMBEDDING = {"script", "img", "iframe", "object", "embed", "link"}


def write_hostile(folder, text):
    """Write a series in which every text is hostile."""
    write_ct(folder, "dicom")
    for path in sorted((folder / "ct").glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        dataset.InstitutionName = dataset.ProtocolName = dataset.StudyDescription = dataset.ImageComments = ""
        texts = [e for e in dataset if e.VR in TEXTS and e.keyword not in ("Modality", "RescaleType")]
        assert len(texts) >= 8
        for element in texts:
            element._value = PersonName(text) if element.VR == "PN" else text  # not checked, as a writer may be
        save(dataset, path)


class Page(HTMLParser):
    """Parser that fails for event handlers and for hostile text in embedding tags."""

    def handle_starttag(self, tag, attrs):
        assert not [name for name, _ in attrs if name.startswith("on")]
        assert tag not in EMBEDDING or "alert(1)" not in str(attrs)


def check_files(folder):
    """Fail if a result has an active or unreadable file."""
    for path in folder.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        Page().feed(text)
        assert "<script>alert" not in text
    for path in folder.rglob("*.csv"):
        with path.open(encoding="utf-8-sig", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [c for c in cells if re.match(r"[=@+]|-(?![\d.])|[\t\r]", c)], path
    for path in folder.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    for path in folder.rglob("*.mrb"):
        with zipfile.ZipFile(path) as scene:
            assert not [name for name in scene.namelist() if ".." in name.split("/") or name.startswith("/")]
            for name in scene.namelist():
                if name.endswith(".mrml"):
                    ElementTree.fromstring(scene.read(name))
    for path in folder.rglob("*.dcm"):
        pydicom.dcmread(path)


def check_run(arguments, folder, capsys):
    """Run a command that succeeds, and check its terminal and its files."""
    assert main(arguments) == 0
    text = "".join(capsys.readouterr())
    assert not {c for c in text if not c.isprintable() and c not in "\n\r\t"}
    check_files(folder / "out")
    assert not (folder.parent / "outside").exists()


@pytest.mark.long
@pytest.mark.parametrize("name", HOSTILE)
def test_texts_of_a_series(tmp_path, name, capsys):
    write_hostile(tmp_path, HOSTILE[name])
    # The scene is written too, because Slicer's data tree shows these texts.
    settings = '{"results": {"identify": true, "scene": true}}'
    arguments = score_command(tmp_path, "--dicom", "--settings", settings)
    check_run(arguments, tmp_path, capsys)
    if name == "markup":
        assert "&lt;script&gt;alert(1)" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["=1+1", "<img src=x onerror=alert(1)>", "a\nb\x1b[31m", "-h"])
def test_names_of_files(tmp_path, name, capsys):
    write_ct(tmp_path, "nrrd")
    arguments = score_command(tmp_path)
    arguments[1] = str(tmp_path / f"{name}.nrrd")
    (tmp_path / "ct.nrrd").rename(arguments[1])
    check_run(arguments, tmp_path, capsys)


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX")
def test_results_in_a_folder_with_a_name_that_is_not_utf_8(tmp_path, monkeypatch, capsys):
    """Without --output, results are written beside the scan, here one with a name from an old archive."""
    folder = tmp_path / "Herz-\udcfc"
    folder.mkdir()
    write_ct(tmp_path, "nrrd")
    arguments = score_command(tmp_path, "--scene")
    (tmp_path / "ct.nrrd").rename(folder / "\udcfc.nrrd")
    monkeypatch.chdir(folder)
    arguments[1] = "\udcfc.nrrd"
    at = arguments.index("--output")
    check_run(arguments[:at] + arguments[at + 2 :], folder, capsys)
    check_files(folder / "\udcfc-cac")
    assert (folder / "\udcfc-cac" / "scene.mrb").is_file()


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_links_among_results_are_replaced(tmp_path):
    """The links' targets stay unchanged."""
    write_ct(tmp_path, "nrrd")
    (tmp_path / "others").write_text("theirs", encoding="utf-8")
    (tmp_path / "out").mkdir()
    report = tmp_path / "out" / "report.html"
    report.symlink_to(tmp_path / "others")
    assert main(score_command(tmp_path, "--overwrite")) == 0
    assert not report.is_symlink()
    assert (tmp_path / "others").read_text(encoding="utf-8") == "theirs"
