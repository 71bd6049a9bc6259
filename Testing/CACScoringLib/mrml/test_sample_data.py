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


class Registry:
    """Double of SampleData.SampleDataLogic with the same arguments (Slicer/Slicer,
    Modules/Scripted/SampleData/SampleData.py)."""

    sources: dict

    @classmethod
    def registerCustomSampleDataSource(  # noqa: N802 Slicer's name
        cls,
        category="Custom",
        sampleName=None,  # noqa: N803
        uris=None,
        fileNames=None,  # noqa: N803
        nodeNames=None,  # noqa: N803
        customDownloader=None,  # noqa: N803
        thumbnailFileName=None,  # noqa: N803
        loadFileType="VolumeFile",  # noqa: N803
        loadFiles=None,  # noqa: N803
        loadFileProperties={},  # noqa: B006, N803
        checksums=None,
    ):
        cls.sources[category, sampleName] = (uris, fileNames, nodeNames, thumbnailFileName, loadFileType, checksums)


@pytest.fixture
def registry(monkeypatch):
    module = types.ModuleType("SampleData")
    module.__spec__ = ModuleSpec("SampleData", None)
    module.SampleDataLogic = type("Logic", (Registry,), {"sources": {}})
    monkeypatch.setitem(sys.modules, "SampleData", module)
    return module.SampleDataLogic.sources


def test_the_registered_file_matches_its_checksum(registry, tmp_path):
    sample_data.register()
    sample_data.register()
    [((category, name), source)] = registry.items()
    uri, file_name, node_name, thumbnail, file_type, checksum = source
    assert (category, name, node_name, file_type) == ("CAC", "CACDigitalPatient", "CACDigitalPatient", "VolumeFile")
    # Download the file like SampleDataLogic.downloadFile.
    sizes = []
    urllib.request.urlretrieve(uri, tmp_path / file_name, lambda blocks, block, total: sizes.append(total))
    digest = hashlib.sha256((tmp_path / file_name).read_bytes()).hexdigest()
    assert checksum == f"SHA256:{digest}"
    assert set(sizes) == {(tmp_path / file_name).stat().st_size}
    assert read_ct(tmp_path / file_name).acquisition.file_format == "NRRD"
    with Image.open(thumbnail) as picture:
        assert picture.size == (280, 260)
        assert picture.getextrema() == (0, 255)
