"""Tests of a cohort's report page."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from whole_records import CATEGORIES, MEASURED, whole_record

from CACScoringLib.cohort.folder import TABLE
from CACScoringLib.cohort.report import PAGE, write_cohort_report
from CACScoringLib.cohort.table import columns, line, result_row
from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.files import LAST_FILE
from CACScoringLib.core.progress import ScanState
from CACScoringLib.core.tables import table_text
from CACScoringLib.record.score_record import record_from
from CACScoringLib.results import METHOD_TITLES
from CACScoringLib.scans.source import ScanSource


def _score(agatston):
    numbers = {
        "agatston": agatston,
        "clinical_agatston": agatston,
        "volume_mm3": agatston / 2,
        "mass_mg": None,
        "pseudo_mass_hu_mm3": 9.0 * agatston,
    }
    return {**numbers, "lesions": int(agatston > 0), "peak_hu": 250}


def method(clinical, raw=1.0):
    """A method's scores. raw: Factor of its own unit, in which `scores.json` has the map's."""

    def score(agatston, **more):
        return {**_score(agatston), "agatston": raw * agatston, **more}

    agatston = clinical
    arteries = {"LAD": score(agatston), "RCA": score(0.0)}
    place = {"id": 1, "artery": "LAD", "voxels": 4, "mean_hu": 200, "centroid_ras_mm": [0.0, 1.0, 2.0]}
    lesions = [{**place, "components": [], **score(agatston)}] if agatston else []
    total = score(agatston, interval_90=[agatston / 2, 2 * agatston])
    return {"status": "automatic", "reviewed": False, "total": total, "arteries": arteries, "lesions": lesions}


def content(agatston, withheld=False, severe=False):
    categories = None if withheld else {**CATEGORIES, "cac_drs": "A1"}
    return whole_record() | {
        "input": {"name": None, "size": [512, 512, 100], "spacing_mm": [0.7, 0.7, 3.0], "voxels_sha256": ""},
        "acquisition": {
            "file_format": "DICOM",
            "kvp": 120.0,
            "patient_name": "Doe^Jane",
            "patient_id": "P-1",
            "series_number": 3,
        },
        "measured": {**MEASURED, "noise_hu": 21.5},
        "categories": categories,
        "warnings": [
            {"code": "noisy", "message": "Noise is high. It hides calcium."},
            *([{"code": "beyond-calibration", "message": "The scan is unlike all."}] if withheld else []),
            *([{"code": "heart-cut", "message": "The heart is cut."}] if severe else []),
        ],
        "rules": {"threshold": {}, "decomposition": {"equivalent_mg_per_mm3_hu": 0.0007}},
        "seconds": {"reading": 1.0, "heart": 2.5},
        "methods": {"threshold": method(agatston), "decomposition": method(agatston * 1.5, raw=8)},
    }


def cohort(folder, *scores, identify=False, withheld=(), severe=()):
    """Write the table and results of a cohort of scans with these scores, None for a failure.

    withheld: Scores without category. severe: Scores with a severe warning.
    """
    names, lines = columns(METHOD_TITLES, identify), []
    for i, agatston in enumerate(scores):
        name = f"Doe_Jane_{i}"
        scan = ScanSource(name, "Jane", Path(f"/data/{name}/ct.nii.gz"), key=name)
        state = ScanState(i, name, folder / name, scan.ct, state="done")
        if agatston is None:
            reason = f"/data/{name}/ct.nii.gz is empty ({i} bytes). {name} cannot be read."
            state = replace(state, state="failed", reason=reason, code="unreadable")
        row = {}
        if agatston is not None:
            result = content(agatston, agatston in withheld, agatston in severe)
            state.folder.mkdir(exist_ok=True)
            (state.folder / LAST_FILE).write_text(json.dumps(result), encoding="utf-8")
            row = result_row(record_from(result, "scores.json"))
        lines.append(line(scan, state, row, names))
    (folder / TABLE).write_text("\ufeff" + table_text(names, ()) + "".join(lines), encoding="utf-8")
    return folder


def test_agatston_is_on_the_clinical_scale_in_the_table_and_on_the_page(tmp_path):
    row = result_row(record_from(content(40.0), "scores.json"))
    assert (row["decomposition_agatston"], row["decomposition_adjusted_agatston"]) == (60.0, 480.0)
    assert row["decomposition_agatston_LAD"] == 60.0
    page = write_cohort_report(cohort(tmp_path, 40.0, 0.0)).read_text(encoding="utf-8")
    assert page.count("<td>30.0</td>") == 1, "mean of the map's LAD"


def test_page_has_the_users_names_and_patient_ids_only_on_request(tmp_path):
    for identify in (False, True):
        page = write_cohort_report(cohort(tmp_path, 500.0, None, identify=identify)).read_text(encoding="utf-8")
        assert "Doe_Jane_0" in page
        assert "Doe_Jane_1" in page, "refused"
        assert ("P-1 (Doe_Jane_0)" in page) == identify


def test_page_counts_categories_and_warnings_in_words(tmp_path):
    cohort(tmp_path, 40.0, None, 0.0, None, 500.0)
    page = write_cohort_report(tmp_path).read_text(encoding="utf-8")
    assert "5 scans: 3 done, 2 failed." in page
    assert "median 40.0, quartiles 20.0 and 270.0, largest 500.0; 1 without calcium" in page
    assert "<td>&gt; 400</td><td>1</td><td>33.3 %</td>" in page
    assert "<td>LAD</td><td>2</td><td>180.0</td>" in page
    assert "<td>Noise is high.</td><td>3</td><td>100.0 %</td><td>0</td>" in page
    assert "noisy" not in page


def rows_below(page, title):
    """Return the texts of the first column of the table below a title."""
    return re.findall("<tr><td>(.*?)</td>", page.partition(f"<h2>{title}</h2>")[2].partition("<h2>")[0])


def test_every_refused_scan_is_listed_with_its_reason(tmp_path):
    page = write_cohort_report(cohort(tmp_path, 40.0, None, 0.0, None)).read_text(encoding="utf-8")
    assert rows_below(page, "Refused scans") == ["Doe_Jane_1", "Doe_Jane_3"]
    assert "is empty (3 bytes)" in page


def test_page_begins_with_severe_then_withheld_scans(tmp_path):
    cohort(tmp_path, 40.0, 0.0, 500.0, 600.0, withheld=(500.0,), severe=(600.0,))
    page = write_cohort_report(tmp_path).read_text(encoding="utf-8")
    assert rows_below(page, "What to look at first") == ["Doe_Jane_3", "Doe_Jane_2"]
    assert "<b>The heart is cut.</b>" in page
    assert "1 of 4 scans have a severe warning" in page, "in the captions"


def test_a_random_share_of_the_others_is_to_be_checked(tmp_path):
    cohort(tmp_path, *(float(n) for n in range(1, 11)), 600.0, severe=(600.0,))
    page = write_cohort_report(tmp_path, share=0.2).read_text(encoding="utf-8")
    drawn = re.search("checked too: (.*?)\\.</p>", page)[1].split(", ")
    assert len(set(drawn)) == 2
    assert "Doe_Jane_10" not in drawn
    with pytest.raises(OutputError):
        write_cohort_report(tmp_path, share=2)


def test_figures_lie_beside_the_page(tmp_path):
    write_cohort_report(cohort(tmp_path, 40.0, 0.0, 500.0))
    assert (tmp_path / "cohort-scores.svg").read_text(encoding="utf-8").startswith("<?xml")
    for name in ("cohort-scores", "cohort-methods"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_cohort_without_scores_has_no_figures(tmp_path):
    write_cohort_report(cohort(tmp_path, None))
    assert not list(tmp_path.glob("*.svg"))


def test_page_counts_no_category_that_is_withheld(tmp_path):
    page = write_cohort_report(cohort(tmp_path, 40.0, 0.0, 500.0, 600.0, withheld=(500.0,))).read_text(encoding="utf-8")
    assert "<td>&gt; 400</td><td>1</td><td>25.0 %</td>" in page
    assert "<td>category withheld</td><td>1</td><td>25.0 %</td>" in page


def test_page_escapes_texts_from_files(tmp_path):
    names = columns(METHOD_TITLES, False)
    state = ScanState(0, "a", tmp_path / "a", Path("a"), state="failed", reason="<script>alert(1)<script>")
    text = table_text(names, ()) + line(ScanSource("a", "", Path("a"), key="a"), state, {}, names)
    (tmp_path / TABLE).write_text(text, encoding="utf-8")
    assert "<script>" not in write_cohort_report(tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [None, "scan,state\na,done\n", "not a table\0"])
def test_page_needs_the_table_of_a_cohort(tmp_path, table):
    if table is not None:
        (tmp_path / TABLE).write_text(table, encoding="utf-8")
    with pytest.raises(OutputError, match="Give the folder of a cohort"):
        write_cohort_report(tmp_path)
    assert not (tmp_path / PAGE).exists()
