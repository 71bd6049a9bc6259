"""From a manifest and a table of participants to the report, as with NLST: digital patients as their scans.

Numbers, truths and scores of the other program are made up. No figure of this run is a result.
"""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series
from digital_pairs import CALCIFIED, scored_in_this_process
from interruption import interrupted_at
from reference_files import write_denser
from study_tables import csv_lines

from CACScoringLib import run as scoring
from CACTrainingLib.cli import main as cli
from CACTrainingLib.references.manifest import ManifestRow, write_manifest
from CACTrainingLib.references.registry import read_reference

MANUAL = {"100001": 0, "100002": 0, "100003": 150, "100005": 420, "100010": 90, "100011": 30}
"""Made-up scores of the participants that are compared."""
REFUSED = ("100004", "100006", "100007")
"""Series not there, contrast, three slices only."""


def write_participant(folder, source, kernel="STANDARD", slices=None, **tags):
    """Write a digital scan as the series of a participant."""
    ct = sitk.ReadImage(str(source / "ct.nii.gz"))
    hu = np.clip(sitk.GetArrayFromImage(ct), -1024, 3071)[:slices]
    tags = {"PatientID": folder.name, "ConvolutionKernel": kernel, "KVP": 120} | tags
    write_series(folder, hu, spacing_mm=ct.GetSpacing(), origin_mm=ct.GetOrigin(), tags=tags)


@pytest.fixture
def scans(digital_pairs, tmp_path):
    """Folder of the participants' series and their manifest."""
    sources = sorted(path.parent for path in digital_pairs.rglob("ct.nii.gz"))
    calcified = [scan for scan in sources if str(CALCIFIED) in scan.parts[-2]]
    clean = [scan for scan in sources if scan not in calcified]
    dense = [write_denser(scan, tmp_path / f"dense{n}") for n, scan in enumerate(calcified)]
    for patient, source in zip(MANUAL, (*clean, *dense, *calcified), strict=True):
        write_participant(tmp_path / "scans" / patient, source, "BONE" if patient == "100002" else "STANDARD")
    write_participant(tmp_path / "scans" / "100006", clean[0], ContrastBolusAgent="Omnipaque 350")
    write_participant(tmp_path / "scans" / "100007", clean[0], slices=3)
    write_manifest(tmp_path / "scans", [ManifestRow(patient, ct=patient) for patient in (*MANUAL, *REFUSED)])
    return tmp_path / "scans"


def figures(output, name):
    return csv_lines(output / "tables" / f"{name}.csv")


@pytest.mark.long
def test_from_the_table_to_the_report(scans, tmp_path, capsys, monkeypatch):
    table, output = tmp_path / "Results.csv", tmp_path / "study"
    rows = [f"{patient},{manual + 35},{manual}" for patient, manual in MANUAL.items()]
    rows += [f"{patient},1,1" for patient in REFUSED]
    table.write_text("\n".join(["PID,CAC_AI,CAC_manual", *rows]), encoding="utf-8")

    scored = scored_in_this_process(monkeypatch)
    validate = ["validate", str(table), "--scans", str(scans), "--output", str(output), "--workers", "1"]
    with interrupted_at(scoring, "score_scan", 3):
        assert cli.main([*validate, "--progress", "none"]) == 4
    assert len(scored) == 2
    assert cli.main([*validate, "--progress", "none"]) == 0
    assert "6 scans compared, 3 left out" in capsys.readouterr().out
    text = (output / "validation.html").read_text(encoding="utf-8")
    assert "6 of 9 scans of the reference, of 6 patients" in text
    left_out = {row[0]: row[1] for row in figures(output, "refused")[1:]}
    assert set(left_out) == set(REFUSED)
    assert "Omnipaque" in left_out["100006"]

    main = {row[0]: row for row in figures(output, "main_figures")}
    titles = main["Measure"]
    column = titles.index("DeepCAC")
    assert float(main["Mean difference"][column]) == 35
    assert {"130 HU, automatic − DeepCAC", "Calcium map − DeepCAC"} < set(titles)
    assert dict(zip(titles, figures(output, "zeros")[2], strict=True))["DeepCAC"] == "1.0"
    groups = [row[0].strip() for row in figures(output, "groups")]
    assert {"Kernel", "soft", "sharp"} < set(groups)
    facts = json.loads((output / "study.json").read_text(encoding="utf-8"))["facts"]
    assert "not the published file" in facts["Reference"]
    assert {"Machine", "Program", "Models", "Manifest", "Date"} < set(facts)


def test_scores_of_another_program_are_no_truth(tmp_path, capsys):
    rows = [ManifestRow("100029", uid, ct=uid) for uid in ("1.1", "1.2")]
    for row in rows:
        write_series(tmp_path / row.ct, np.zeros((2, 4, 4)))
    write_manifest(tmp_path, rows)
    (tmp_path / "manifest-of-them.csv").write_text(
        "patient_id,cohort,reconstruction,selected_series_uid,agatston_score\n"
        "100029,NLST,thin,1.1,26.0\n100029,NLST,thick,1.2,9.0\n100030,NLST,thick,1.3,1.0\n",
        encoding="utf-8",
    )
    reference = read_reference(tmp_path / "manifest-of-them.csv", tmp_path)
    assert [(scan.name, scan.patient, scan.total) for scan in reference.scans] == [
        ("100029 thin", "100029", 26),
        ("100029 thick", "100029", 9),
    ]
    assert reference.refused[0][0] == "100030 thick"
    assert "not the truth" in reference.about
