"""Texts and links that somebody else wrote: in no page, table, scene, DICOM object or terminal do they do anything.

What else can be hostile, and which test holds it off, is listed in docs/developer/hostile-input.md.
"""

import csv
import io
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

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.progress import progress_for
from fuzz import oracle, scored

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
NEEDED = ("Modality", "RescaleType")
TAGS = {"script", "img", "iframe", "object", "embed", "link"}


def write_hostile(folder, text):
    """A series all of whose texts are this one; returns how many elements hold it in each slice."""
    scored.write_ct(folder, "dicom")
    changed = 0
    for path in sorted((folder / "ct").glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        dataset.InstitutionName = dataset.ProtocolName = dataset.StudyDescription = dataset.ImageComments = ""
        dataset.AccessionNumber = dataset.PatientComments = dataset.StationName = dataset.OperatorsName = ""
        own = [e for e in dataset if e.VR in TEXTS and e.keyword not in NEEDED]
        for element in own:
            element._value = PersonName(text) if element.VR == "PN" else text  # not checked, as a writer may be
        save(dataset, path)
        changed = len(own)
    return changed


class Page(HTMLParser):
    """What a page holds: its tags, and attributes that run something."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.attributes += [name for name, _ in attrs]


def check_files(folder):
    """Fails where a file of a result would do something, or cannot be read."""
    for path in folder.rglob("*.html"):
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        assert not [name for name in page.attributes if name.startswith("on")], path
        assert "alert(1)" not in "".join(str(attributes) for tag, attributes in page.tags if tag in TAGS), path
        assert "<script>alert" not in path.read_text(encoding="utf-8")
    for path in folder.rglob("*.csv"):
        with path.open(encoding="utf-8-sig", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [c for c in cells if re.match(r"[=@+]|-(?![\d.])|[\t\r]", c)], path
    for path in folder.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    for path in folder.rglob("*.mrb"):
        with zipfile.ZipFile(path) as scene:
            assert not [name for name in scene.namelist() if ".." in name.split("/") or name.startswith("/")]
            for name in scene.namelist():
                if name.endswith(".mrml"):
                    ElementTree.fromstring(scene.read(name))
    for path in folder.rglob("*.dcm"):
        pydicom.dcmread(path)


@pytest.mark.long
@pytest.mark.parametrize("name", HOSTILE)
def test_texts_of_a_series(tmp_path, name):
    assert write_hostile(tmp_path, HOSTILE[name]) >= 8
    # Slicer's tree of data calls nodes by them, so that the scene is written, too.
    settings = '{"results": {"identify": true, "scene": true}}'
    arguments = scored.score(tmp_path, "--dicom", "--settings", settings)
    outcome = oracle.run(arguments)
    assert outcome.code in (oracle.DONE, *oracle.ERRORS), outcome.said
    assert not oracle.complaint(outcome, tmp_path)
    assert outcome.code == oracle.DONE, outcome.said
    check_files(tmp_path / "out")
    assert not (tmp_path.parent / "outside").exists()
    if name == "markup":
        assert "&lt;script&gt;alert(1)" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["=1+1", "@SUM(1)", "<img src=x onerror=alert(1)>", "a\nb\x1b[31m", "$(touch x)", "-h"]
)
def test_names_of_files(tmp_path, name):
    scored.write_ct(tmp_path, "nrrd")
    named = tmp_path / "scans" / f"{name}.nrrd"
    named.parent.mkdir()
    (tmp_path / "ct.nrrd").rename(named)
    arguments = [
        "score",
        str(named),
        "--heart",
        str(tmp_path / "heart.nii.gz"),
        "--threshold-only",
        "--settings",
        '{"results": {"scene": false}}',
    ]
    outcome = oracle.run([*arguments, "--output", str(tmp_path / "out"), "--progress", "none"])
    assert outcome.code == oracle.DONE, outcome.said
    assert not oracle.complaint(outcome, tmp_path)
    check_files(tmp_path / "out")


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_links_among_results_are_replaced(tmp_path):
    """What they point to stays as it was."""
    scored.write_ct(tmp_path, "nrrd")
    assert oracle.run(scored.score(tmp_path)).code == oracle.DONE
    (tmp_path / "others").write_text("theirs", encoding="utf-8")
    report = tmp_path / "out" / "report.html"
    report.unlink()
    report.symlink_to(tmp_path / "others")
    assert oracle.run(scored.score(tmp_path, "--overwrite")).code == oracle.DONE
    assert not report.is_symlink()
    assert (tmp_path / "others").read_text(encoding="utf-8") == "theirs"


@pytest.mark.parametrize("kind", ["auto", "json", "none"])
def test_control_characters_in_messages(kind):
    stream = io.StringIO()
    progress = progress_for(kind, stream)
    progress.warning(ScanWarning("unit-unspecified", "one\x1b[31m"))
    progress.failed("two\x0c\x00\nthree", 3)
    assert stream.getvalue().count("\n") == {"auto": 3, "json": 2, "none": 2}[kind]
    assert all(c.isprintable() or c == "\n" for c in stream.getvalue())
    assert "three" in stream.getvalue()
