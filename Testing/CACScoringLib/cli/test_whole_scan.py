"""`cac score --whole-scan` and the same of `cac cohort`, from the arguments to the files."""

import csv
import json

import handmade_estimates as by_hand
import pytest
from handmade_networks import untrained
from in_this_process import InThisProcess
from lesion_scans import write_ct

from CACScoringLib.cli import main as cli
from CACScoringLib.cohort import cohort
from CACScoringLib.core.errors import ModelError
from CACScoringLib.models.choice import ALL, estimator_models
from CACScoringLib.whole_scan import run as whole_scan_run


@pytest.fixture
def chest(tmp_path, bundled):
    """A CT with one lesion, its heart beside it, and models for scoring and for vessels."""
    write_ct(tmp_path / "scan.nii.gz")
    for network in ("slices", "decomposition"):
        untrained(network, f"our-{network}", bundled)
    by_hand.save_vessels(bundled, "our-vessels", by_hand.VESSELS_TEST)
    return tmp_path


@pytest.fixture
def estimate_calls(monkeypatch):
    """Replace the vessel estimate by 333; return its calls as (model, saliency requested)."""
    calls = []

    def vessels(network, scan, heart, model, saliency):
        calls.append((model.card.name, saliency))
        return by_hand.vessels(333, trust="Little."), ()

    monkeypatch.setattr(whole_scan_run, "_estimate", vessels)
    return calls


def score(chest, *options):
    words = ["score", str(chest / "scan.nii.gz"), "--heart", str(chest / "heart.nrrd"), "--output", str(chest / "out")]
    return cli.main([*words, "--settings", '{"results": {"scene": false}}', "--device", "cpu", *options])


def content(folder):
    return json.loads((folder / "scores.json").read_text(encoding="utf-8"))


@pytest.mark.long
def test_an_estimate_is_asked_for_and_written(chest, estimate_calls):
    assert score(chest, "--whole-scan") == 0
    assert estimate_calls == [("our-vessels", True)]
    assert content(chest / "out")["second_opinions"]["vessels"]["total"] == 333
    assert "Whole-scan estimates" in (chest / "out" / "report.html").read_text(encoding="utf-8")


def test_a_model_is_named(chest, estimate_calls):
    by_hand.save_vessels(chest / "installed", "mine")
    assert score(chest, "--whole-scan", "vessels", "--model", "mine", "--model", "our-slices") == 0
    assert estimate_calls == [("mine", True)]


def test_what_cannot_be_asked(chest, estimate_calls, capsys):
    for options, code, words in (
        (["--whole-scan", "radiomics"], cli.BAD_INPUT, "no model for 'radiomics'"),
        (["--whole-scan", "vessel"], cli.BAD_INPUT, "no whole-scan estimate 'vessel'"),
        (["--model", "our-vessels"], cli.BAD_INPUT, "--whole-scan vessels"),
        (["--whole-scan", "--threshold-only"], cli.BAD_USAGE, "Leave one of them out"),
    ):
        assert score(chest, *options) == code
        assert words in capsys.readouterr().err
    assert not (chest / "out").exists()
    assert not estimate_calls


def test_an_alternative_needs_its_kind_to_be_named(chest):
    for file in (chest / "bundled").glob("our-vessels.*"):
        file.unlink()
    by_hand.save_vessels(chest / "bundled" / "Alternatives", "another")
    assert estimator_models(["vessels"])["vessels"].card.name == "another"
    with pytest.raises(ModelError, match="no model for a whole-scan estimate"):
        estimator_models([ALL])
    by_hand.save_vessels(chest / "installed", "mine")
    assert [found["vessels"].card.name for found in map(estimator_models, (["vessels"], [ALL]))] == ["mine", "mine"]


def test_a_damaged_model_is_told_before_anything_is_scored(chest, capsys):
    (chest / "bundled" / "our-vessels.safetensors").write_bytes(b"x")
    assert score(chest, "--whole-scan") == cli.BAD_INPUT
    assert "SHA-256" in capsys.readouterr().err


@pytest.mark.long
def test_the_score_is_kept_where_an_estimate_fails(chest, monkeypatch):
    def fails(*_args):
        raise ModuleNotFoundError(name="monai")

    monkeypatch.setattr(whole_scan_run, "_estimate", fails)
    assert score(chest, "--whole-scan") == 0
    scores = content(chest / "out")
    assert scores["methods"]["threshold"]["total"]["agatston"] == pytest.approx(32)
    assert "second-opinion-failed" in [warning["code"] for warning in scores["warnings"]]
    assert scores["second_opinions"] == {}


@pytest.mark.long
def test_a_cohort_has_a_column_of_its_own(chest, estimate_calls, monkeypatch):
    monkeypatch.setattr(cohort, "Workers", InThisProcess)
    (chest / "table.csv").write_text("ct,heart,name\nscan.nii.gz,heart.nrrd,one\n", encoding="utf-8")
    words = ["cohort", str(chest / "table.csv"), "--output", str(chest / "all"), "--workers", "1", "--device", "cpu"]
    assert cli.main([*words, "--whole-scan", "vessels"]) == 0
    assert estimate_calls == [("our-vessels", False)], "pictures of many scans would take long"
    with (chest / "all" / "cohort.csv").open(newline="", encoding="utf-8") as stream:
        [row] = csv.DictReader(stream)
    assert float(row["vessels_agatston"]) == 333
    assert "radiomics_probability" not in row
    recorded = json.loads((chest / "all" / "cohort.json").read_text(encoding="utf-8"))["made_with"]["models"]
    assert recorded["vessels"].startswith("our-vessels ")
    assert cli.main(words) == cli.BAD_USAGE, "without the opinion these are other results"
