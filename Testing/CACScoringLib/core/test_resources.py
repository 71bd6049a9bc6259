"""Files that come with the library are found from the sources and from an installed package."""

from pathlib import Path

from CACScoringLib.core import resources
from CACScoringLib.core.resources import resource_folder


def test_beside_the_library_in_the_sources():
    assert resource_folder("Atlas") == Path(resources.__file__).parents[2] / "Resources" / "Atlas"


def test_inside_an_installed_package(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_LIBRARY", tmp_path)
    (tmp_path / "Resources" / "Atlas").mkdir(parents=True)
    assert resource_folder("Atlas") == tmp_path / "Resources" / "Atlas"
