"""Verdicts on two validations of one reference: better, worse, or undecided; and what cannot be compared."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from compared_scans import TOTALS, compared_scan
from handmade_networks import labelled_model

from CACScoringLib.core.errors import CTError
from CACScoringLib.models.cards import VERDICT, find_model, read_card
from CACScoringLib.record.score_record import ModelRecord
from CACTrainingLib.cli import main as cli
from CACTrainingLib.evaluation.page import facts_of, write_study
from CACTrainingLib.validation.agreement import ComparedScans
from CACTrainingLib.validation.before_after import earlier_scans, section

FIRST, SECOND = (ModelRecord(name, "decomposition", name * 8) for name in ("first", "second"))


def scans_with(error, model, count=30):
    """Scans whose map reaches the next category in two of three, by an error in Agatston."""
    return [compared_scan(n, TOTALS[n] + error * (n % 3 > 0), model) for n in range(count)]


def compare(before, after):
    return section({scan.name: scan for scan in before}, ComparedScans(after, np.random.default_rng(0), {}), 0)


@pytest.mark.parametrize(("before", "after", "verdict"), [(400, 1, "better"), (1, 400, "worse"), (1, 1, "undecided")])
def test_the_sentence_and_its_n(before, after, verdict):
    comparison = compare(scans_with(before, FIRST), scans_with(after, SECOND))
    by_method = dict(zip(("automatic", "map"), comparison.text[:2], strict=True))
    measures = (
        "κ of categories" if verdict == "undecided" else "κ of categories, mean absolute difference, ICC of totals"
    )
    assert by_method["map"] == (
        f"Calcium map, after against before: {verdict} by {measures} (n = 30 scans of 30 patients)."
    )
    assert "undecided" in by_method["automatic"], "the clinical score did not change"
    rows = {row[0].strip(): row for row in comparison.tables[0].rows[6:]}
    assert rows["Mean absolute difference"][3].value == pytest.approx((after - before) * 2 / 3)
    assert comparison.text[2].startswith("Before: first. After: second.")


@pytest.mark.long
def test_the_verdict_is_kept_on_the_card_of_the_installed_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    path = labelled_model(tmp_path)
    install = ["models", "install", str(path), "--overwrite"]
    assert cli.main(install) == 0
    assert "cac validate REFERENCE --output AFTER --model mine --before BEFORE" in capsys.readouterr().out
    assert cli.main(["models", "list"]) == 0
    assert "without a verdict" in capsys.readouterr().out
    install += ["--validation", str(tmp_path)]
    assert cli.main(install) == 3
    assert "no output of cac validate --before" in capsys.readouterr().err
    comparison = compare(scans_with(400, FIRST), scans_with(1, SECOND))
    write_study(tmp_path, "Title", [comparison], facts_of([SECOND], 0, 1.0))
    assert cli.main(install) == 3
    assert "validation of other models" in capsys.readouterr().err
    mine = ModelRecord("mine", "slices", read_card(path).sha256)
    write_study(tmp_path, "Title", [comparison], facts_of([FIRST, mine], 0, 1.0))
    assert cli.main(install) == 0
    output = capsys.readouterr().out
    assert "better by κ of categories, mean absolute difference" in output
    assert "Warning" not in output
    installed = find_model("slices", "mine").card
    assert not installed.lacks_verdict
    assert installed.validation[VERDICT]["sentences"] == list(comparison.text[:-1])
    assert cli.main(install[:-2]) == 0
    assert find_model("slices", "mine").card == installed, "installing it again keeps the verdict"


def test_four_patients_are_too_few_for_a_verdict():
    comparison = compare(scans_with(400, FIRST, 4), scans_with(1, SECOND, 4))
    assert "undecided by κ of categories (n = 4 scans of 4 patients)" in comparison.text[1]


def test_measures_that_decide_otherwise_are_named():
    before, after = (
        [compared_scan(n, total + error, model) for n, total in enumerate(TOTALS)]
        for error, model in ((90, FIRST), (95, SECOND))
    )
    assert "undecided by κ of categories; worse by mean absolute difference" in compare(before, after).text[1]


def test_what_cannot_be_compared(tmp_path):
    after = scans_with(1, SECOND)
    with pytest.raises(CTError, match="same models"):
        compare(scans_with(2, SECOND), after)
    with pytest.raises(CTError, match="reference of s0 is not that"):
        compare([replace(scan, total=77.0) for scan in scans_with(2, FIRST)], after)
    with pytest.raises(CTError, match="none of these scans"):
        compare([replace(scan, name="x") for scan in scans_with(2, FIRST)], after)
    with pytest.raises(CTError, match="no finished cac validate"):
        earlier_scans(tmp_path / "compared.jsonl")
    file = tmp_path / "compared.jsonl"
    lines = [{"key": f"{n}", "result": asdict(scan)} for n, scan in enumerate((compared_scan(0, 5.0, FIRST), after[0]))]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert earlier_scans(file) == {"s0": after[0]}, "the later of two records of a scan"
    file.write_text('{"key": "a", "result": {"name": "s0"}}', encoding="utf-8")
    with pytest.raises(CTError, match="Validate it again"):
        earlier_scans(file)
