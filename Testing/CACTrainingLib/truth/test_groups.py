"""Intervals, withheld categories, groups by the header, and false zeros with the largest candidate left out."""

import json
from dataclasses import asdict, replace

import handmade_records
import numpy as np
import pytest
from collection_files import write_scan
from compared_scans import TOTALS, compared_scan
from handmade_networks import labelled_model

from CACScoringLib.core.errors import CTError
from CACScoringLib.models.cards import VERDICT, find_model, read_card
from CACScoringLib.record.score_record import ModelRecord
from CACTrainingLib.cli import main as cli
from CACTrainingLib.evaluation.page import facts_of, write_study
from CACTrainingLib.references.collection import collections
from CACTrainingLib.references.reference import ReferenceScan
from CACTrainingLib.truth import scan_sections
from CACTrainingLib.truth.agreement import Raters, before_after_section, earlier_scans
from CACTrainingLib.truth.records import ComparedScans


def record(interval, kernel, thickness_mm=2.5, withheld=False, left_out=()):
    """Result of a scan with one interval for both methods."""
    methods = dict.fromkeys(("threshold", "decomposition"), handmade_records.method("threshold", left_out, interval))
    return handmade_records.record(methods, kernel, thickness_mm, probabilities_withheld=withheld)


CANDIDATE = handmade_records.lesion(12.5, counts=False)


@pytest.fixture
def sections(tmp_path):
    """Function of the scans' records: the sections of scans with TOTALS, of which the last scores 0 automatically."""
    write_scan(tmp_path / "ct", "p")

    def sections_of(records, comparator_scores):
        scans = [compared_scan(n, TOTALS[n]) for n in range(len(records))]
        scans[-1] = compared_scan(len(records) - 1, 5.0, measured={"automatic": 0.0, "map": 5.0})
        compared = ComparedScans(scans, np.random.default_rng(0), {})
        sources = {scan.name: ReferenceScan(scan.name, scan.patient, tmp_path / "ct") for scan in scans}
        raters = Raters(compared, comparator_scores, collections()["nlst"].tables[0], np.random.default_rng(0))
        results = {scan.name: result for scan, result in zip(scans, records, strict=True)}
        return scan_sections.group_sections(compared, raters, sources, results, {"s4": "scans/s4/report.html"})

    return sections_of


def test_coverage_is_of_the_intervals_that_exist(sections):
    records = [record((0.0, 10.0), "B30f")] * 3 + [record(None, "B30f", withheld=True)] * 2
    records += [record((1.0, 150.0), "B30f")] * 2
    rows = {row[0]: row for row in sections(records, {})[0].tables[0].rows}
    assert [rows["all"][column].n for column in (2, 3)] == [7, 5]
    assert (rows["0"][3].value, rows["0"][1]) == (1, 3)
    assert rows["1–99"][3] is None
    assert rows["1–99"][2].value == 1
    assert rows["100–399"][3].value == 0.5, "the total of 300 lies above 150"


def test_groups_hold_the_other_program(sections):
    records = [record(None, kernel, mm) for kernel, mm in [("B30f", 2.0), ("B70f", 2.5), (None, 1.0)] * 4]
    table = sections(records, {f"s{n}": TOTALS[n] for n in range(12)})[1].tables[0]
    assert table.columns[-1] == "Mean difference, DeepCAC"
    assert [(str(row[0]).strip(), row[1]) for row in table.rows] == [
        *(("Kernel", ""), ("sharp", 4), ("soft", 4), ("unknown", 4)),
        *(("Slice thickness", ""), ("below 1.5 mm", 4), ("from 1.5 mm", 4), ("from 2.25 mm", 4)),
    ]
    alike = sections([record(None, "B30f")] * 8, {})[1]
    assert (alike.tables, len(alike.text)) == ((), 1)


def test_false_zeros_show_the_largest_candidate_left_out(sections):
    small = replace(CANDIDATE, clinical_agatston=1.0)
    zeros = sections([record(None, "B30f", left_out=(small, CANDIDATE))] * 5, {})[2]
    assert zeros.tables[0].rows == (("s4", 50.0, 5.0, 12.5, None),)
    (picture,) = zeros.galleries[0].pictures
    assert picture.jpeg[:2] == b"\xff\xd8"
    assert picture.link == "scans/s4/report.html"
    assert picture.caption == "s4: reference 50, found 0. Largest candidate left out: Agatston 12."
    without = sections([record(None, "B30f")] * 5, {})[2]
    assert without.galleries == ()
    assert len(sections([record(None, "B30f")] * 3, {})) == 2


FIRST, SECOND = (ModelRecord(name, "decomposition", name * 8) for name in ("first", "second"))


def scans_with(error, model, count=30):
    """Scans whose map reaches the next category in two of three, by an error in Agatston."""
    return [compared_scan(n, TOTALS[n] + error * (n % 3 > 0), model) for n in range(count)]


def compare(before, after):
    return before_after_section(
        {scan.name: scan for scan in before}, ComparedScans(after, np.random.default_rng(0), {}), 0
    )


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
    assert (
        "cac evaluate accuracy --data REFERENCE --output AFTER --model mine --before BEFORE" in capsys.readouterr().out
    )
    assert cli.main(["models", "list"]) == 0
    assert "without a verdict" in capsys.readouterr().out
    install += ["--validation", str(tmp_path)]
    assert cli.main(install) == 3
    assert "no output of cac evaluate accuracy --before" in capsys.readouterr().err
    comparison = compare(scans_with(400, FIRST), scans_with(1, SECOND))
    write_study(tmp_path, "Title", [comparison], facts_of([SECOND], 0, 1.0))
    assert cli.main(install) == 3
    assert "evaluation of other models" in capsys.readouterr().err
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
    with pytest.raises(CTError, match="no finished cac evaluate"):
        earlier_scans(tmp_path / "compared.jsonl")
    file = tmp_path / "compared.jsonl"
    lines = [{"key": f"{n}", "result": asdict(scan)} for n, scan in enumerate((compared_scan(0, 5.0, FIRST), after[0]))]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert earlier_scans(file) == {"s0": after[0]}, "the later of two records of a scan"
    file.write_text('{"key": "a", "result": {"name": "s0"}}', encoding="utf-8")
    with pytest.raises(CTError, match="Evaluate it again"):
        earlier_scans(file)
