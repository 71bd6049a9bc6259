"""The Python interface: its examples are run on the bundled digital patient."""

import csv
import dataclasses
import doctest
import inspect
import json
import pickle
import re
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import automatic_patient
import matplotlib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import chest_hu, write_series

import CACScoringLib as cac
from CACScoringLib import api
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import MAIN_ARTERIES, Artery
from CACScoringLib.core.progress import CellProgress, TextProgress
from CACScoringLib.mrml.sample_data import sample_file

FUNCTIONS = [name for name in cac.__all__ if inspect.isfunction(getattr(cac, name))]
SLOW = {"score", "score_many", "compare", "project_radiograph", "read_result", "read_lesion_labels", "CalciumResult"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that examples read: ct.nrrd, and labels.nrrd of its left main artery."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copy(sample_file(), folder / "ct.nrrd")
    ct = cac.read_ct(folder / "ct.nrrd")
    candidates = cac.score(ct, threshold_only=True)
    first = candidates.methods["threshold"].lesion_set.id_map == candidates.lesions[0].id
    labels = Grid.of(ct.image).image(first.astype("uint8"))
    sitk.WriteImage(labels, str(folder / "labels.nrrd"))
    return folder


def run_examples(documented, folder, monkeypatch) -> int:
    """Run the examples of a function or class and its methods; return their number."""
    monkeypatch.chdir(folder)
    failures: list[str] = []
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(
        documented, documented.__name__, globs={"cac": cac, "np": np, "Path": Path}
    ):
        runner.run(test, out=failures.append)
    assert not runner.failures, "".join(failures)
    return runner.tries


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in (*FUNCTIONS, "CalciumResult")],
)
def test_examples_run(name, folder, monkeypatch):
    documented = getattr(cac, name)
    parts = [documented, *(base for base in getattr(documented, "__mro__", ())[1:] if base is not object)]
    assert sum(run_examples(part, folder, monkeypatch) for part in parts)


def test_the_version_is_that_of_the_package():
    assert f'version = "{cac.__version__}"' in Path(__file__).parents[2].joinpath("pyproject.toml").read_text("utf-8")


class Nifti:
    """Image as nibabel holds it: an array [i, j, k], here from right to left and back to front, and its affine."""

    def __init__(self, image):
        self.dataobj = sitk.GetArrayFromImage(image).T[::-1, ::-1]
        spacing, (i, j, _) = np.array(image.GetSpacing()), image.GetSize()
        self.affine = np.diag([*spacing, 1.0])
        first = np.array(image.TransformIndexToPhysicalPoint((i - 1, j - 1, 0)))
        self.affine[:3, 3] = first * (-1, -1, 1)


@pytest.fixture(scope="module")
def reviewed(folder):
    """Reviewed score of the left main, from paths."""
    return cac.score(folder / "ct.nrrd", lesions=str(folder / "labels.nrrd"), reader="A. Reader", threshold_only=True)


@pytest.fixture(scope="module")
def automatic():
    return automatic_patient.scored()


@pytest.mark.long
def test_a_scan_is_given_in_several_ways(folder, reviewed):
    ct, labels = cac.read_ct(folder / "ct.nrrd"), cac.read_mask(folder / "labels.nrrd")
    array = cac.CTScan.from_array(Nifti(ct.image).dataobj, Nifti(ct.image).affine)
    ways = ((str(folder / "ct.nrrd"), labels), (ct.image, labels), (array, labels), (Nifti(ct.image), Nifti(labels)))
    for scan, lesions in ways:
        assert cac.agatston(scan, lesions).total.agatston == reviewed.total.agatston
    low_voltage = replace(ct, acquisition=replace(ct.acquisition, kvp=80))
    of_reader = cac.score(low_voltage, lesions=labels, reader="A. Reader", threshold_only=True)
    assert cac.agatston(low_voltage, labels).total.agatston == of_reader.total.agatston < reviewed.total.agatston
    result = cac.score(scan, lesions=lesions, reader="A. Reader", threshold_only=True)
    assert (result.status, result.total) == ("reviewed", reviewed.total)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ct": 5}, "ct is of type int"),
        ({"ct": np.zeros((4, 4, 4))}, "CTScan.from_array"),
        ({"lesions": np.zeros((4, 4, 4))}, "lesions is of type ndarray"),
        ({"rules": {"minimum_pixels": 3}}, "rules is of type dict"),
        ({"kvp": True}, "kvp is of type"),
        ({"device": None}, "device is of type"),
        ({"threshold_only": "no"}, "threshold_only is of type"),
    ],
)
def test_a_wrong_argument_is_refused_with_the_right_type(folder, arguments, message):
    with pytest.raises(TypeError, match=message):
        cac.score(**{"ct": folder / "ct.nrrd", "threshold_only": True, **arguments})


def test_stored_results_are_compared(automatic, tmp_path):
    """Read from their folders, results change as the computed ones do."""
    cac.CalciumResult(**vars(automatic)).write(tmp_path / "scored")
    stored = cac.read_result(tmp_path / "scored")
    computed = cac.compare(automatic, automatic)
    for pair in ((stored, stored), (automatic, stored), (stored, automatic)):
        assert cac.compare(*pair).methods == computed.methods
    assert (stored.total, stored.arteries, stored.table()) == (automatic.total, automatic.arteries, automatic.table())
    assert max(len(repr(shown)) for shown in (stored, automatic, computed)) < 500


def test_a_reader_needs_lesions_and_many_scans_a_list(folder):
    with pytest.raises(cac.CTError, match="give the label map"):
        cac.score(folder / "ct.nrrd", reader="A. Reader", threshold_only=True)
    with pytest.raises(TypeError, match="a list of paths"):
        next(cac.score_many("ct.nrrd"))


@pytest.mark.long
def test_two_scans_scored_by_the_shipped_models_have_a_verdict(folder, tmp_path):
    ct = cac.read_ct(folder / "ct.nrrd")
    noisy = ct.hu + np.random.default_rng(1).normal(0.0, 4.0, ct.hu.shape)
    sitk.WriteImage(Grid.of(ct.image).image(np.rint(noisy).astype(np.int16)), str(tmp_path / "later.nrrd"))
    comparison = cac.compare(cac.score(folder / "ct.nrrd"), cac.score(tmp_path / "later.nrrd"))
    totals = {m.method: (m.bars, m.changes[0].part, m.changes[0].verdict) for m in comparison.methods}
    assert totals == dict.fromkeys(("threshold", "decomposition"), ((), "total", "within"))


def test_only_results_are_compared(automatic):
    with pytest.raises(TypeError, match=r"later is of type str. Give the result of cac.score"):
        cac.compare(automatic, "scores.json")


@pytest.mark.long
def test_a_contrast_tag_is_a_warning_and_warnings_name_no_option(folder, automatic):
    acquisition = cac.Acquisition("memory", contrast_agent="Ultravist")
    enhanced = cac.scan_from_image(cac.read_ct(folder / "ct.nrrd").image, acquisition)
    assert "contrast-tag" in {warning.code for warning in cac.score(enhanced, threshold_only=True).warnings}
    assert not any("--" in warning.message for warning in automatic.warnings)


def test_a_series_is_chosen_by_an_argument(tmp_path):
    for number in (1, 2):
        write_series(tmp_path / str(number), chest_hu())
    with pytest.raises(cac.CTError, match=r"Choose one by its number or UID \(cac.read_ct\(path, series=UID\)\)"):
        cac.read_ct(tmp_path)


def test_a_result_states_the_counting_method(automatic):
    method = automatic.methods["threshold"]
    assert automatic.status == "automatic"
    assert automatic.interval == method.total.interval_90
    assert automatic.category == automatic.record.categories.risk_class
    assert len(automatic.lesions) + len(automatic.left_out) == len(automatic_patient.places())
    assert automatic.left_out
    assert automatic.arteries["LAD"] == automatic.arteries[Artery.LAD] == method.arteries[Artery.LAD]
    assert automatic.arteries["LAD"].lesions
    with pytest.raises(KeyError, match="'lad' is none of LM, LAD, LCX, RCA, other, unassigned"):
        automatic.arteries["lad"]


@pytest.fixture(scope="module")
def painted(folder):
    """The sample with 3 × 3 × 2 voxels of 250 HU in the LAD and 2 × 2 × 1 of 350 HU in the aortic valve: a scan and
    its labels. Pixels have 1.44 mm², slices 3 mm."""
    ct = cac.read_ct(folder / "ct.nrrd")
    hu, labels = np.array(ct.hu), np.zeros(ct.hu.shape, np.uint8)
    for box, value, site in (
        ((slice(24, 26), slice(89, 92), slice(132, 135)), 250, Artery.LAD),
        ((slice(30, 31), slice(89, 91), slice(132, 134)), 350, cac.NonCoronary.AORTIC_VALVE),
    ):
        hu[box], labels[box] = value, site
    return cac.scan_from_image(ct.grid.image(hu), ct.acquisition), ct.grid.image(labels)


@pytest.mark.parametrize(("kvp", "weights"), [(None, (2, 3)), (80, (1, 2))])
def test_labels_dict_and_sites_hold_the_scores_on_paper(painted, tmp_path, kvp, weights):
    """Agatston: area in mm² by the weight at the tube voltage, summed over slices of 3 mm."""
    scan, labels = painted
    result = cac.score(scan, lesions=labels, reader="A. Reader", threshold_only=True, kvp=kvp)
    lad, valve = 2 * 9 * 1.44 * weights[0], 4 * 1.44 * weights[1]
    assert result.arteries["LAD"].agatston == result.total.agatston == pytest.approx(lad)
    assert result.record.review.confirmation.reader == "A. Reader"
    assert result.non_coronary["aortic_valve"].agatston == pytest.approx(valve)
    assert {site.key: score.lesions for site, score in result.non_coronary.items()} == {
        **{"aortic_valve": 1, "mitral_annulus": 0, "thoracic_aorta": 0, "other": 0},
    }
    np.testing.assert_array_equal(np.asarray(result.labels), sitk.GetArrayFromImage(labels))
    assert result.probabilities == {}
    content = result.to_dict()
    threshold = content["methods"]["threshold"]
    assert threshold["total"]["agatston"] == threshold["arteries"]["LAD"]["agatston"] == pytest.approx(lad)
    assert content["rules"]["threshold"]["threshold_hu"] == (130 if kvp is None else 177)
    result.write(tmp_path / "result")
    written = json.loads((tmp_path / "result" / "scores.json").read_text(encoding="utf-8"))
    assert set(written) - set(content) <= {"seconds"}
    for name in ("methods", "rules", "non_coronary", "categories", "models"):
        assert json.loads(json.dumps(content[name])) == written[name]


@pytest.mark.long
def test_the_networks_result_of_the_sample(folder):
    """The true score is between 100 and 399; there is no calcium elsewhere, and next to none is found."""
    result = cac.score(folder / "ct.nrrd")
    assert sum(result.probabilities.values()) == pytest.approx(1)
    assert max(result.probabilities, key=result.probabilities.get) == "100-399"
    assert result.probabilities == result.to_dict()["categories"]["probabilities"]
    assert sum(score.agatston for score in result.non_coronary.values()) < 0.05 * result.total.agatston
    labels = np.asarray(result.labels)
    for site in MAIN_ARTERIES:  # lesions left out are labelled as unassigned
        score = result.arteries[site]
        of_site = Grid.of(result.scan.image).image((labels == site).astype(np.uint8))
        assert cac.agatston(folder / "ct.nrrd", of_site).total.agatston == pytest.approx(score.agatston)
    pickled = pickle.dumps(result)
    assert len(pickled) < 60e6
    assert pickle.loads(pickled).to_dict() == result.to_dict()
    by_labels = cac.score(folder / "ct.nrrd", model="map-labels")
    names = [[model["name"] for model in scored.to_dict()["models"]] for scored in (result, by_labels)]
    assert ("map-compact" in names[0], "map-labels" in names[1], "map-compact" in names[1]) == (True, True, False)
    assert by_labels.total.agatston == result.total.agatston
    with pytest.raises(cac.CTError, match="no-such-model"):
        cac.score(folder / "ct.nrrd", model="no-such-model")


def test_errors_of_output_can_be_caught(reviewed, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(cac.OutputError, match="overwrite=True"):
        reviewed.write(tmp_path)


def test_the_table_adds_up_to_the_score(automatic):
    table = automatic.table()
    assert [row["lesion"] for row in table] == [lesion.id for lesion in automatic.lesions]
    for column in ("agatston", "volume_mm3"):
        assert sum(row[column] for row in table) == pytest.approx(getattr(automatic.total, column))
    frame = automatic.to_dataframe()
    assert frame["agatston"].sum() == pytest.approx(automatic.total.agatston)
    assert list(frame["artery"]) == [lesion.site.key for lesion in automatic.lesions]


def test_a_notebook_and_a_plot_show_each_lesion(reviewed, monkeypatch):
    from matplotlib import pyplot

    html = reviewed._repr_html_()
    assert f"{reviewed.total.agatston:.1f}" in html
    assert html.count("<img") == len(reviewed.lesions) == 1
    matplotlib.use("Agg")  # Qt's is the desktop host's in other tests
    figure = reviewed.plot()
    assert [axis.get_title().split()[:2] for axis in figure.axes] == [["1", "LM"]]
    assert all(axis.images for axis in figure.axes)
    assert pyplot.fignum_exists(figure.number)
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "inline")
    assert not pyplot.fignum_exists(reviewed.plot().number), "an open figure would be shown once more"


def test_a_notebook_shows_a_stored_result_with_its_severe_warnings(automatic):
    doubts = (ScanWarning("heart-cut", "Cut <here>.", True), ScanWarning("noise", "Noisy."))
    html = replace(automatic.record, warnings=doubts)._repr_html_()
    assert html.startswith("<p><b>Cut &lt;here&gt;.</b></p>")
    assert "Noisy" not in html
    assert repr(automatic.record) in html
    assert html.count("<tr>") == 1 + len(automatic.lesions)


def test_progress_changes_one_line_of_a_notebook(monkeypatch):
    shown = []
    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=None))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    display = SimpleNamespace(display=lambda *content, **options: shown.append((content, options)))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    assert isinstance(api._progress(), CellProgress)
    assert [options["display_id"] for _, options in shown] == [True]
    ipython.get_ipython = lambda: None
    assert type(api._progress()) is TextProgress


def run_script(name, monkeypatch, capsys, *arguments) -> str:
    """Return the output of a script of examples/."""
    script = Path(__file__).parents[2] / "examples" / name
    monkeypatch.setattr("sys.argv", [str(script), *map(str, arguments)])
    runpy.run_path(str(script), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.long
def test_a_folder_becomes_a_table(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "scans").mkdir()
    shutil.copy(folder / "ct.nrrd", tmp_path / "scans" / "a.nrrd")
    (tmp_path / "scans" / "b.nrrd").touch()
    run_script("score_folder.py", monkeypatch, capsys, tmp_path / "scans", tmp_path / "t.csv", "--threshold-only")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as stream:
        first, second = csv.DictReader(stream)
    assert float(first["agatston"]) > 0
    assert "b.nrrd is empty" in second["refused"]


def test_an_own_mask_is_scored(folder, monkeypatch, capsys):
    printed = run_script("own_mask.py", monkeypatch, capsys, folder / "ct.nrrd", folder / "labels.nrrd")
    assert re.match(r"Agatston [1-9]\d+\.\d, volume \d+\.\d mm³\nLM: ", printed)


@pytest.mark.long
def test_inserted_plaque_is_scored(folder, tmp_path, monkeypatch, capsys):
    printed = run_script("insert_plaque.py", monkeypatch, capsys, folder / "ct.nrrd", tmp_path)
    _, *rows = (line.split() for line in printed.splitlines())
    assert [name for name, *_ in rows] == ["insertion_00000", "insertion_00001"]
    for _, mass_mg, plaque, automatic, _ in rows:
        assert float(mass_mg) > 0
        assert int(plaque) > 0
        assert int(automatic) > 100  # with the calcium of the sample itself


@pytest.mark.long
def test_a_scan_compared_with_itself_has_not_changed(folder, monkeypatch, capsys):
    printed = run_script("compare_scans.py", monkeypatch, capsys, folder / "ct.nrrd", folder / "ct.nrrd")
    assert "agatston, total" in printed
    assert "changed beyond" not in printed


@pytest.mark.filterwarnings("default:CAUTION:UserWarning")
def test_severe_warnings_are_issued_once_by_code_and_logged(folder, tmp_path, caplog):
    shifted = tmp_path / "shifted.nrrd"
    sitk.WriteImage(sitk.ReadImage(str(folder / "ct.nrrd")) - 45, str(shifted))  # air is no longer −1000 HU
    with pytest.warns(UserWarning, match="CAUTION: ") as issued:
        results = [cac.score(shifted, threshold_only=True, kvp=kvp) for kvp in (140, 120)]
    severe = [warning.code for warning in results[0].warnings if warning.severe]
    assert len({str(warning.message) for warning in issued}) == len(set(severe))
    assert {warning.filename for warning in issued} == {__file__}
    assert {record.message for record in caplog.records} >= {
        warning.message for warning in results[0].warnings if warning.severe
    }


def test_every_function_names_wrong_types_and_warns_of_the_ct(folder):
    ct = cac.read_ct(folder / "ct.nrrd")
    doubtful = dataclasses.replace(ct, warnings=(cac.ScanWarning("derived-image", "It was computed from others."),))
    calls = {
        cac.agatston: ((folder / "labels.nrrd",), {"rules": 3}),
        cac.project_radiograph: (("PA", cac.DrrSettings(pixels=16)), {"view": 30}),
    }
    for call, (arguments, wrong) in calls.items():
        (name,) = wrong
        with pytest.raises(TypeError, match=f"{name} is of type int"):
            call(ct, **{"labels": ct.image, **wrong} if call is cac.agatston else wrong)
        with pytest.warns(UserWarning, match="CAUTION: derived-image") as issued:
            call(doubtful, *arguments)
        assert {warning.filename for warning in issued} == {__file__}


def test_the_table_of_a_zero_has_its_columns(folder, reviewed):
    clean = cac.score(folder / "ct.nrrd", rules=cac.ScoringRules(minimum_pixels=10**6), threshold_only=True)
    assert not clean.lesions
    assert list(clean.to_dataframe().columns) == list(reviewed.to_dataframe().columns)
