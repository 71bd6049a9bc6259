"""`cac compare` from end to end, on two small synthetic scans."""

import json
import shutil
from functools import partial

import pytest
from handmade_networks import untrained
from lesion_scans import write_ct, write_labels
from whole_records import record_of, whole_record

from CACScoringLib import run
from CACScoringLib.cli import main as cli
from CACScoringLib.models.cards import find_model, read_card
from CACScoringLib.models.store import store_repeatability, update_card
from CACScoringLib.quality.calibration import stored_repeatability

pytestmark = pytest.mark.usefixtures("bundled")

NO_SCENE = '{"results": {"scene": false}}'
LIMITS = {"intercept": 1.0, "slope": 0.1, "factor": 2.0, "pairs": 100, "highest": 1e5}


def repeatability(**models_):
    parts = {"total": LIMITS, "artery": LIMITS}
    return {
        "digital": True,
        "data": "100 digital patients",
        "date": "2026-01-01",
        "models": models_,
        "settings": None,
        "acquisition": {},
        "limits": {name: {"agatston": parts, "pseudo_mass_hu_mm3": parts} for name in ("threshold", "decomposition")},
    }


@pytest.fixture
def limits(bundled):
    """A calcium map's model with limits; the card's path. It needs a slice model beside it to be used."""
    path = untrained("decomposition", "our-map", bundled)
    return store_repeatability(path, repeatability(decomposition=read_card(path).sha256))


@pytest.fixture
def scans(tmp_path):
    """Two CTs with one lesion of 16 mm² and 24 mm² at 250 HU (Agatston 32 and 48), with heart and lesion labels."""
    for number, rows in ((1, 4), (2, 6)):
        write_ct(tmp_path / f"scan{number}.nii.gz", seed=number, rows=rows)
    write_labels(tmp_path / "labels.nii.gz")
    return tmp_path


@pytest.fixture
def known_hearts(scans, monkeypatch):
    """Add heart and lesion labels to compared CTs; their hearts are too small to be detected."""
    scan_input = partial(run.ScanInput, heart=scans / "heart.nrrd", lesions=scans / "labels.nii.gz")
    monkeypatch.setattr(run, "ScanInput", scan_input)


def compare(folder, *options, first="scan1.nii.gz", second="scan2.nii.gz", output="out"):
    return cli.main(["compare", str(folder / first), str(folder / second), "--output", str(folder / output), *options])


def score(folder, number, output, *options):
    files = ["--heart", str(folder / "heart.nrrd"), "--lesions", str(folder / "labels.nii.gz"), "--settings", NO_SCENE]
    ct = folder / f"scan{number}.nii.gz"
    return cli.main(["score", str(ct), *files, "--output", str(folder / output), *options])


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def total(document, method="threshold"):
    return document["methods"][method]["agatston"]["total"]


def test_two_cts_are_scored_and_compared(scans, limits, known_hearts, capsys):
    assert compare(scans, "--threshold-only") == 0
    change = total(read(scans / "out" / "comparison.json"))
    assert (change["earlier"], change["later"]) == (pytest.approx(32), pytest.approx(48))
    assert change["limit"] == pytest.approx(2 * (1 + 0.1 * 40))
    assert change["verdict"] == "changed"
    assert "changed beyond the repeatability limits" in (scans / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "32.0 → 48.0 (+16.0, +50 % [+19 to +81], square root +1.27" in capsys.readouterr().out, (
        "without dates no rate a year"
    )
    for side in ("earlier", "later"):
        assert (scans / "out" / side / "report.html").exists()


def test_results_are_compared_without_scoring_and_a_comparison_is_kept_unless_told_otherwise(scans, limits):
    for number in (1, 2):
        score(scans, number, f"result{number}", "--threshold-only")
    assert compare(scans, first="result1", second="result2/scores.json") == 0
    assert sorted(p.name for p in (scans / "out").iterdir()) == ["comparison.html", "comparison.json"]
    assert compare(scans, first="result2", second="result1") == cli.BAD_USAGE
    assert total(read(scans / "out" / "comparison.json"))["difference"] == pytest.approx(16)
    assert compare(scans, "--overwrite", first="result2", second="result1") == 0
    assert total(read(scans / "out" / "comparison.json"))["difference"] == pytest.approx(-16)


@pytest.mark.long
def test_a_ct_is_scored_as_the_result_beside_it_was(scans, limits, known_hearts, bundled):
    """Use the rules and models of the result, although CAC has come with others since."""
    slices = untrained("slices", "our-slices", bundled)
    score(scans, 1, "result1", "--settings", '{"scoring": {"rules": {"threshold_hu": 120}}}')
    for file in (slices, slices.with_suffix(".safetensors")):
        (scans / "installed").mkdir(exist_ok=True)
        shutil.move(file, scans / "installed" / file.name)
    untrained("slices", "new-slices", bundled)
    assert compare(scans, first="result1") == 0
    later = read(scans / "out" / "later" / "scores.json")
    assert later["rules"]["threshold"]["threshold_hu"] == 120
    assert [m["name"] for m in later["models"]] == ["our-slices", "our-map"]
    document = read(scans / "out" / "comparison.json")
    assert [document["methods"][m]["cannot_be_said"] for m in document["methods"]] == [
        ["the stored limits hold for the clinical rule only"],
        [],
    ]


def test_a_ct_is_not_scored_by_the_tube_voltage_of_the_result_beside_it(scans, limits, known_hearts):
    (scans / "facts.json").write_text('{"kvp": 100}', encoding="utf-8")
    settings = json.dumps({"scan": {"acquisition": str(scans / "facts.json")}})
    score(scans, 1, "result1", "--threshold-only", "--settings", settings)
    assert compare(scans, first="result1") == 0
    rules = [read(scans / folder / "scores.json")["rules"]["threshold"] for folder in ("result1", "out/later")]
    assert [rule["threshold_hu"] for rule in rules] == [145, 130]
    assert [rule["name"] for rule in rules] == ["Agatston adapted to 100 kVp, 145 HU (Gräni 2018)", "Agatston, 130 HU"]
    barred = read(scans / "out" / "comparison.json")["methods"]["threshold"]["cannot_be_said"]
    assert "the rules differ (threshold_hu, weight_bounds_hu)" in barred


def test_models_that_are_gone_are_named(scans, limits, bundled, capsys):
    slices = untrained("slices", "our-slices", bundled)
    score(scans, 1, "result1")
    slices.unlink()
    assert compare(scans, first="result1") == cli.BAD_INPUT
    assert "not installed (our-slices)" in capsys.readouterr().err
    assert not (scans / "out").exists()


def test_a_result_of_the_clinical_rule_is_not_mixed_with_networks(scans, limits, known_hearts, bundled):
    untrained("slices", "our-slices", bundled)
    score(scans, 1, "result1", "--threshold-only")
    assert compare(scans, first="result1") == 0
    assert set(read(scans / "out" / "later" / "scores.json")["methods"]) == {"threshold"}


def test_bad_usage_is_told_before_anything_is_scored(scans, capsys):
    score(scans, 1, "result1", "--threshold-only")
    for options, second, word in (
        (["--model", "other"], "scan2.nii.gz", "to two CTs only"),
        ([], "result1", "given twice"),
    ):
        assert compare(scans, *options, first="result1", second=second) == cli.BAD_USAGE
        assert word in capsys.readouterr().err
    assert not (scans / "out").exists()


def test_limits_are_found_by_the_model_that_made_the_map(limits, scans):
    other = untrained("decomposition", "other-map", scans / "installed")
    card = read_card(limits)
    content = whole_record()
    content["models"] = [{"network": "decomposition", "name": card.name, "sha256": card.sha256}]
    assert stored_repeatability(record_of(content)).data == "100 digital patients"
    content["models"][0]["sha256"] = read_card(other).sha256
    assert stored_repeatability(record_of(content)) is None
    content["models"][0] |= {"name": "a-copy", "sha256": card.sha256}
    assert stored_repeatability(record_of(content)) is None
    assert stored_repeatability(record_of(whole_record())).limits["threshold"]["agatston"]["total"].slope == 0.1


def test_calibrating_removes_stale_limits_and_figures(limits):
    def kinds():
        return set(find_model("decomposition").card.repeatability["limits"])

    study = find_model("decomposition").card.repeatability
    parts = study["limits"]["threshold"]
    store_repeatability(limits, {**study, "limits": {**study["limits"], "automatic": parts}})
    update_card(limits, {"known": {"ranges": {}}}, {"sample": {"figures": {}}})
    assert kinds() == {"threshold", "automatic", "decomposition"}, "intervals alone have changed"
    assert "sample" in find_model("decomposition").card.validation
    update_card(limits, {"floor_hu": 33.0}, {})
    assert kinds() == {"threshold", "automatic"}, "the map has changed"
    assert "sample" not in find_model("decomposition").card.validation, "its trial would now give other figures"
    update_card(limits, {"candidates": {"network": 0.5}}, {})
    assert kinds() == {"threshold"}
