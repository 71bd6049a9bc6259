"""Tests of the bundled digital patient: its registration with Slicer, and its file."""

import hashlib
import sys
import types
import urllib.request
from importlib.machinery import ModuleSpec

import pytest
from PIL import Image

from CACScoringLib.io.reading import read_ct
from CACScoringLib.mrml import sample_data


@pytest.fixture
def registry(monkeypatch):
    """Fields by category and name of what a double of SampleData.SampleDataLogic registers (Slicer/Slicer,
    Modules/Scripted/SampleData/SampleData.py)."""
    fields: dict[tuple[str, str], dict] = {}

    def register(category, sampleName, **others):  # noqa: N803
        fields[category, sampleName] = others

    module = types.ModuleType("SampleData")
    module.__spec__ = ModuleSpec("SampleData", None)
    module.SampleDataLogic = type("Logic", (), {"registerCustomSampleDataSource": staticmethod(register)})
    monkeypatch.setitem(sys.modules, "SampleData", module)
    return fields


def test_the_registered_file_matches_its_checksum(registry, tmp_path):
    sample_data.register()
    sample_data.register()
    [(name, source)] = registry.items()
    assert name == ("CAC", "CACDigitalPatient")
    assert (source["nodeNames"], source["loadFileType"]) == ("CACDigitalPatient", "VolumeFile")
    uri, file_name, checksum = source["uris"], source["fileNames"], source["checksums"]
    # Download the file like SampleDataLogic.downloadFile.
    sizes = []
    urllib.request.urlretrieve(uri, tmp_path / file_name, lambda blocks, block, total: sizes.append(total))
    digest = hashlib.sha256((tmp_path / file_name).read_bytes()).hexdigest()
    assert checksum == f"SHA256:{digest}"
    assert set(sizes) == {(tmp_path / file_name).stat().st_size}
    assert read_ct(tmp_path / file_name).acquisition.file_format == "NRRD"
    with Image.open(source["thumbnailFileName"]) as picture:
        assert picture.size == (280, 260)
        assert picture.getextrema() == (0, 255)
