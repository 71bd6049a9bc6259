"""A study of accuracy from one command: scored, compared, written; what cannot be compared stops nothing.

One starts from a table of patients as with NLST; its numbers are made up, and no figure is a result.
"""

import json
import re

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series
from digital_pairs import CALCIFIED, scored_in_this_process
from interruption import interrupted_at
from reference_files import write_denser, write_label_maps
from study_tables import csv_lines, csv_rows

from CACScoringLib import run as scoring
from CACScoringLib.core.grid import Grid
from CACTrainingLib.cli import main as cli
from CACTrainingLib.references.registry import read_reference
from CACTrainingLib.truth import comparison
from CACTrainingLib.truth.evaluation import EvaluationSettings, evaluate


@pytest.fixture(scope="module")
def maps(digital_pairs, tmp_path_factory):
    """Label maps of two patients scanned twice, p0 and p1 without calcium, and of one scan that cannot be read.

    In p2 the calcium of the right coronary artery is labelled as aorta; in p3 part of the spine as LCX.
    """
    place = tmp_path_factory.mktemp("maps")
    paths = sorted(digital_pairs.rglob("ct.nii.gz"), reverse=True)
    paths.sort(key=lambda path: "950341" in path.parts[-3])
    folder = write_label_maps(
        place / "reference", {f"p{n}": write_denser(path.parent, place / f"{n}") for n, path in enumerate(paths)}
    )
    labels = sitk.ReadImage(str(folder / "p2-lesions.nii.gz"))
    sitk.WriteImage(sitk.ChangeLabel(labels, {4: 10}), str(folder / "p2-lesions.nii.gz"))
    labels, hu = (sitk.ReadImage(str(folder / f"p3{name}.nii.gz")) for name in ("-lesions", ""))
    values, bone = sitk.GetArrayFromImage(labels), sitk.GetArrayFromImage(hu) >= 130
    values[12, 90:] = np.where(bone[12, 90:], 3, 0)
    sitk.WriteImage(Grid.of(labels).image(values), str(folder / "p3-lesions.nii.gz"))
    (folder / "broken.nii.gz").write_bytes(b"no image")
    (folder / "broken-lesions.nii.gz").write_bytes((folder / "p0-lesions.nii.gz").read_bytes())
    return folder


@pytest.fixture
def quick(monkeypatch):
    """The scans that were scored."""
    return scored_in_this_process(monkeypatch)


def table(output, name):
    return csv_lines(output / "tables" / f"{name}.csv")


@pytest.mark.long
def test_label_maps_are_compared_lesion_by_lesion(maps, tmp_path, quick, monkeypatch):
    output = tmp_path / "out"
    assert (
        cli.main(
            [
                "evaluate",
                "accuracy",
                "--data",
                str(maps),
                "--output",
                str(output),
                "--workers",
                "1",
                "--progress",
                "none",
            ]
        )
        == 0
    )
    text = (output / "study.html").read_text(encoding="utf-8")
    assert "broken" in text
    assert "Digital patients" not in text
    assert "counts everything dense in 4 of 4 scans, because their candidates were not evaluated" in text
    rows = csv_rows(output / "comparison.csv")
    assert [row["scan"] for row in rows] == ["p0", "p1", "p2", "p3"]
    assert [float(row["reference"]) > 0 for row in rows] == [False, False, True, True]
    for row in rows:
        by_vessel = [float(row[f"reference_{vessel}"]) for vessel in ("LM", "LAD", "LCX", "RCA")]
        assert sum(by_vessel) == pytest.approx(float(row["reference"]))
    assert float(rows[2]["reference_RCA"]) == 0
    assert float(rows[2]["automatic"]) > float(rows[2]["reference"]), "what is labelled as aorta counts"

    recall = {line[0].strip(): [float(x) for x in line[5:9] if x] for line in table(output, "lesions_found")[1:]}
    assert recall["LAD"][0] > 0.8
    assert recall["LCX"][0] < 1, "the spine is not looked at"
    wrong = {line[0].strip(): line[1] for line in table(output, "lesions_wrong")[1:]}
    assert wrong["thoracic aorta"] != "0"
    assert {"totals", "category_agreement", "detection_by_score", "vessels", "lesions_wrong"} <= {
        path.stem for path in (output / "tables").iterdir()
    }
    pictures = {path.relative_to(output / "pictures").as_posix() for path in (output / "pictures").rglob("*.jpg")}
    assert {"p2/wrong-automatic-1.jpg", "p3/missed-automatic-1.jpg"} <= pictures
    assert not any(name.startswith(("p0", "p1")) for name in pictures)
    assert text.count('alt="p2: Agatston') >= 1
    links = set(re.findall(r'href="(scans/[^"]+)"', text))
    assert links
    assert all((output / link).is_file() for link in links)
    assert json.loads((output / "study.json").read_text(encoding="utf-8"))["title"].startswith("Automatic scores")

    count = len(quick)
    monkeypatch.setattr(comparison, "compare", lambda _: pytest.fail("what is compared is kept"))
    again = evaluate(EvaluationSettings(("accuracy",), output, maps, workers=1))
    assert len(again.accuracy.scans) == 4
    assert len(quick) == count


@pytest.mark.long
def test_totals_alone_are_compared_with_an_earlier_evaluation_by_other_models(maps, tmp_path, quick, capsys):
    rows = [f"{maps}/p{n}.nii.gz,{total}" for n, total in enumerate((0, 0, 100, 120))]
    (tmp_path / "own.csv").write_text("\n".join(["ct,total", *rows]), encoding="utf-8")
    command = [
        "evaluate",
        "accuracy",
        "--data",
        str(tmp_path / "own.csv"),
        "--workers",
        "1",
        "--progress",
        "none",
        "--output",
    ]
    before, after = (str(tmp_path / name) for name in ("before", "after"))
    assert cli.main([*command, before]) == 0
    records = tmp_path / "before" / comparison.RECORDS
    lines = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines() if line]
    scans = sorted((line["result"] for line in lines), key=lambda scan: scan["name"])
    assert [scan["total"] for scan in scans] == [0, 0, 100, 120]
    assert [scan["has_outlines"] for scan in scans] == [True, True, False, False], "where all is 0 all is wrong"
    assert not {"vessels", "lesions_found"} & {path.stem for path in (tmp_path / "before" / "tables").iterdir()}
    for scan in scans:
        scan["facts"]["models"] = []
    records.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    capsys.readouterr()
    assert cli.main([*command, after, "--before", before]) == 0
    verdict = "after against before: undecided by κ of categories (n = 4 scans of 4 patients)."
    assert f"130 HU, automatic, {verdict}" in capsys.readouterr().out
    assert verdict in (tmp_path / "after" / "study.html").read_text(encoding="utf-8")
    assert cli.main([*command, after, "--before", str(tmp_path / "nowhere")]) == 3


MANUAL = {"100001": 0, "100002": 0, "100003": 150, "100005": 420, "100010": 90, "100011": 30}
"""Made-up scores of the patients that are compared."""
REFUSED = ("100004", "100006", "100007")
"""Series not there, contrast, three slices only."""


def write_patient(folder, source, kernel="STANDARD", slices=None, enhancement_hu=0, **tags):
    """Write a digital scan as the series of a patient. enhancement_hu: Added to soft tissue."""
    ct = sitk.ReadImage(str(source / "ct.nii.gz"))
    hu = np.clip(sitk.GetArrayFromImage(ct), -1024, 3071)[:slices]
    hu = np.where((hu > 0) & (hu < 120), hu + enhancement_hu, hu)
    tags = {"PatientID": folder.name, "ConvolutionKernel": kernel, "KVP": 120} | tags
    write_series(folder, hu, spacing_mm=ct.GetSpacing(), origin_mm=ct.GetOrigin(), tags=tags)


@pytest.fixture
def scans(digital_pairs, tmp_path):
    """Folder of the patients' series."""
    sources = sorted(path.parent for path in digital_pairs.rglob("ct.nii.gz"))
    calcified = [scan for scan in sources if str(CALCIFIED) in scan.parts[-2]]
    clean = [scan for scan in sources if scan not in calcified]
    dense = [write_denser(scan, tmp_path / f"dense{n}") for n, scan in enumerate(calcified)]
    for patient, source in zip(MANUAL, (*clean, *dense, *calcified), strict=True):
        write_patient(tmp_path / "scans" / patient, source, "BONE" if patient == "100002" else "STANDARD")
    write_patient(tmp_path / "scans" / "100006", clean[0], enhancement_hu=250, ContrastBolusAgent="Omnipaque 350")
    write_patient(tmp_path / "scans" / "100007", clean[0], slices=3)
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
    command = ["evaluate", "accuracy", "--data", str(table), "--scans", str(scans), "--output", str(output)]
    command += ["--workers", "1", "--progress", "none"]
    with interrupted_at(scoring, "score_scan", 3):
        assert cli.main(command) == 4
    assert len(scored) == 2
    assert cli.main(command) == 0
    assert "6 scans compared, 3 left out" in capsys.readouterr().out
    text = (output / "study.html").read_text(encoding="utf-8")
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
    assert {"Machine", "Program", "Models", "Date"} < set(facts)


def test_scores_of_another_program_are_no_truth(tmp_path, capsys):
    for uid in ("1.1", "1.2"):
        write_series(tmp_path / "scans" / uid, np.zeros((2, 4, 4)))
    (tmp_path / "cohort.csv").write_text(
        "patient_id,cohort,reconstruction,selected_series_uid,agatston_score\n"
        "100029,NLST,thin,1.1,26.0\n100029,NLST,thick,1.2,9.0\n100030,NLST,thick,1.3,1.0\n",
        encoding="utf-8",
    )
    reference = read_reference(tmp_path / "cohort.csv", tmp_path / "scans")
    assert [(scan.name, scan.patient, scan.total) for scan in reference.scans] == [
        ("100029 thin", "100029", 26),
        ("100029 thick", "100029", 9),
    ]
    assert reference.refused[0][0] == "100030 thick"
    assert "not the truth" in reference.about
