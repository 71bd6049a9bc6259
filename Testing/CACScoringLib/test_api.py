"""The Python interface: its examples are run on the bundled digital patient."""

import csv
import doctest
import inspect
import re
import runpy
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

import CACScoringLib as cac
from CACScoringLib import api
from CACScoringLib.mrml.sample_data import sample_file

FUNCTIONS = [name for name in cac.__all__ if inspect.isfunction(getattr(cac, name))]
NEEDS_NETWORKS = {"score"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that examples read: ct.nrrd, and labels.nrrd of its left main artery."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copy(sample_file(), folder / "ct.nrrd")
    ct = cac.read_ct(folder / "ct.nrrd")
    candidates = cac.score(ct, threshold_only=True)
    first = candidates.details.methods["threshold"].lesions.id_map == candidates.lesions[0].id
    labels = sitk.GetImageFromArray(first.astype("uint8"))
    labels.CopyInformation(ct.image)
    sitk.WriteImage(labels, str(folder / "labels.nrrd"))
    return folder


def run_examples(thing, folder, monkeypatch) -> int:
    """How many examples a function or class has, its methods' included; a wrong one fails."""
    monkeypatch.chdir(folder)
    failures: list[str] = []
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(thing, thing.__name__, globs={"cac": cac, "Path": Path}):
        runner.run(test, out=failures.append)
    assert not runner.failures, "".join(failures)
    return runner.tries


@pytest.mark.parametrize("name", sorted({*FUNCTIONS, "CalciumResult"} - NEEDS_NETWORKS))
def test_examples_run(name, folder, monkeypatch):
    assert run_examples(getattr(cac, name), folder, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(NEEDS_NETWORKS))
def test_examples_with_networks_run(name, folder, monkeypatch):
    assert run_examples(getattr(cac, name), folder, monkeypatch)


def test_every_name_is_there_and_no_other():
    assert all(getattr(cac, name) is getattr(api, name) for name in cac.__all__)
    assert dir(cac) == cac.__all__
    with pytest.raises(AttributeError, match="no attribute 'pipelines'"):
        cac.pipelines  # noqa: B018


def test_notebook_shows_scores_and_pictures(folder):
    ct = cac.read_ct(folder / "ct.nrrd")
    result = cac.score(ct, lesions=cac.read_mask(folder / "labels.nrrd"), threshold_only=True)
    shown = result._repr_html_()
    assert f"{result.total.agatston:.1f}" in shown
    assert shown.count("<img") == len(result.lesions) == 1


def run_script(name, monkeypatch, capsys, *arguments) -> str:
    """What a script of examples/ prints."""
    script = Path(__file__).parents[2] / "examples" / name
    monkeypatch.setattr("sys.argv", [str(script), *map(str, arguments)])
    runpy.run_path(str(script), run_name="__main__")
    return capsys.readouterr().out


def test_a_folder_becomes_a_table(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "scans").mkdir()
    shutil.copy(folder / "ct.nrrd", tmp_path / "scans" / "a.nrrd")
    (tmp_path / "scans" / "b.nrrd").touch()
    run_script("score_folder.py", monkeypatch, capsys, tmp_path / "scans", tmp_path / "t.csv", "--threshold-only")
    with (tmp_path / "t.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert float(first["agatston"]) > 0
    assert "b.nrrd is empty" in second["refused"]


def test_an_own_mask_is_scored(folder, monkeypatch, capsys):
    printed = run_script("own_mask.py", monkeypatch, capsys, folder / "ct.nrrd", folder / "labels.nrrd")
    assert re.match(r"Agatston [1-9]\d+\.\d, volume \d+\.\d mm³\nLM: ", printed)


@pytest.mark.long
def test_inserted_plaque_is_scored(folder, tmp_path, monkeypatch, capsys):
    printed = run_script("insert_plaque.py", monkeypatch, capsys, folder / "ct.nrrd", tmp_path)
    assert re.fullmatch(r"insertion_00000: \d+\.\d mg inserted, Agatston [1-9]\d*\n", printed)


@pytest.mark.long
def test_a_scan_compared_with_itself_has_not_changed(folder, monkeypatch, capsys):
    printed = run_script("compare_scans.py", monkeypatch, capsys, folder / "ct.nrrd", folder / "ct.nrrd")
    assert "agatston, total" in printed
    assert "changed beyond" not in printed
