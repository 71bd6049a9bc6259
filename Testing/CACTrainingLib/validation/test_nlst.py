"""From a table of participants to the report, as with NLST: a local commons serves digital patients as their scans.

Numbers, truths and scores of the other program are made up. No figure of this run is a result.
"""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series
from digital_pairs import scored_in_this_process
from image_commons import image_commons
from interruption import interrupted_at
from reference_files import write_denser
from study_tables import csv_lines

from CACScoringLib import run as scoring
from CACTrainingLib.cli import data
from CACTrainingLib.cli import main as cli
from CACTrainingLib.collections import commons as image_data
from CACTrainingLib.references.manifest import read_manifest

BUCKET = "idc-open-data"
KERNELS = {"100001": ("STANDARD", "BONE"), "100002": ("BONE",)}
"""Kernels by participant; others have STANDARD only. All but the first of two are offered and not taken."""

MANUAL = {"100001": 0, "100002": 0, "100003": 150, "100005": 420, "100010": 90, "100011": 30}
"""Made-up scores of the participants that are compared."""
REFUSED = ("100004", "100006", "100007", "100008", "100009")
"""Series gone from the commons, contrast, three slices only, unknown to the index, 5 mm slices only."""


class Commons:
    """Digital patients in a folder that `image_commons` serves, and the index of their series."""

    def __init__(self, root, columns):
        self.root, self.columns, self.rows = root / BUCKET, columns, []
        self.root.mkdir(parents=True)

    def add(self, patient, source, kernel, mm=2.5, slices=None, **tags):
        """Add a digital scan as a series of a participant."""
        number = len(self.rows) + 1
        uid, place = f"1.2.840.{patient}.{number}", self.root / f"00000000-0000-4000-8000-{number:012d}"
        ct = sitk.ReadImage(str(source / "ct.nii.gz"))
        hu = np.clip(sitk.GetArrayFromImage(ct), -1024, 3071)[:slices]
        tags = {"PatientID": patient, "SeriesInstanceUID": uid, "ConvolutionKernel": kernel, "KVP": 120} | tags
        write_series(place, hu, spacing_mm=ct.GetSpacing(), origin_mm=ct.GetOrigin(), tags=tags)
        for year, images in (("0", len(hu)), ("1", len(hu))):
            self.rows.append(
                {
                    "collection_id": "nlst",
                    "PatientID": patient,
                    "SeriesInstanceUID": uid if year == "0" else f"{uid}.9",
                    "StudyInstanceUID": f"1.2.840.{patient}",
                    "SeriesDescription": f"{year},OPA,GE,LSPLUS,{kernel},360,{mm},120,64,0.1,1.5",
                    "Modality": "CT",
                    "instanceCount": images,
                    "series_size_MB": 0.6,
                    "license_short_name": "CC BY 4.0",
                    "aws_bucket": BUCKET,
                    "crdc_series_uuid": place.name,
                    "series_aws_url": f"s3://{BUCKET}/{place.name}/*",
                }
            )
        return place

    def index(self):
        import pandas as pd

        return pd.DataFrame(self.rows).reindex(columns=self.columns)


@pytest.fixture
def client(tmp_path, monkeypatch):
    """The client of idc-index, which fetches from a local stand-in with the participants of this test."""
    index = pytest.importorskip("idc_index.index")
    client = index.IDCClient()
    with image_commons(tmp_path / "commons") as address:
        monkeypatch.setattr(index, "aws_endpoint_url", address)
        monkeypatch.setattr(image_data, "connected_client", lambda *_: client)
        monkeypatch.setattr(image_data, "series_of", lambda _: client.series)
        monkeypatch.setattr(data, "require", lambda _: None)
        monkeypatch.setattr(image_data, "MIN_IMAGES", 2)
        yield client


@pytest.fixture
def commons(client, digital_pairs, tmp_path):
    """The commons, and the folders of series that can be broken."""
    scans = sorted(path.parent for path in digital_pairs.rglob("ct.nii.gz"))
    clean = [scan for scan in scans if "950341" not in scan.parts[-2]]
    calcified = [scan for scan in scans if "950341" in scan.parts[-2]]
    dense = [write_denser(scan, tmp_path / f"dense{n}") for n, scan in enumerate(calcified)]
    commons = Commons(tmp_path / "commons", client.index.columns)
    sources = dict(zip(MANUAL, (*clean, *dense, *calcified), strict=True))
    places = {}
    for patient, source in sources.items():
        for kernel in KERNELS.get(patient, ("STANDARD",))[::-1]:
            places[patient] = commons.add(patient, source, kernel)
    places["100004"] = commons.add("100004", clean[0], "STANDARD")
    commons.add("100006", clean[0], "STANDARD", ContrastBolusAgent="Omnipaque 350")
    commons.add("100007", clean[0], "STANDARD", slices=3)
    commons.add("100009", clean[0], "STANDARD", mm=5)
    client.index = commons.index()
    series = client.index.rename(columns=image_data.INDEX_COLUMNS)[[*image_data.INDEX_COLUMNS.values()]]
    client.series = [image_data.RemoteSeries(**row) for row in series.to_dict("records")]
    return places


def figures(output, name):
    return csv_lines(output / "tables" / f"{name}.csv")


@pytest.mark.long
def test_from_the_table_to_the_report(commons, tmp_path, capsys, monkeypatch):
    table, scans, output = tmp_path / "Results.csv", tmp_path / "scans", tmp_path / "study"
    rows = [f"{patient},{manual + 35},{manual}" for patient, manual in MANUAL.items()]
    rows += [f"{patient},1,1" for patient in REFUSED]
    table.write_text("\n".join(["PID,CAC_AI,CAC_manual", *rows]), encoding="utf-8")

    fetch = ["data", "nlst", "--table", str(table), "--output", str(scans), "--progress", "none"]
    for file in commons["100004"].iterdir():
        file.unlink()
    assert cli.main(fetch) == 0
    problems = {row.patient: row.problem for row in read_manifest(scans)}
    assert "0 of 32 images" in problems["100004"]
    assert problems["100008"] == "The index has no CT of this participant."
    assert "5 mm thick" in problems["100009"]
    assert [patient for patient, problem in problems.items() if problem] == ["100004", "100008", "100009"]
    images = sorted((scans / "100005").rglob("*.dcm"))
    content = images[3].read_bytes()
    for image in images[3:9]:
        image.unlink()
    assert cli.main(fetch) == 0
    assert images[3].read_bytes() == content, "a series that was broken off is completed"
    assert {row.kernel for row in read_manifest(scans) if row.patient in KERNELS} == {"STANDARD", "BONE"}

    scored = scored_in_this_process(monkeypatch)
    validate = ["validate", str(table), "--scans", str(scans), "--output", str(output), "--workers", "1"]
    with interrupted_at(scoring, "score_scan", 3):
        assert cli.main([*validate, "--progress", "none"]) == 4
    assert len(scored) == 2
    assert cli.main([*validate, "--progress", "none"]) == 0
    assert "6 scans compared, 5 left out" in capsys.readouterr().out
    text = (output / "validation.html").read_text(encoding="utf-8")
    assert "6 of 11 scans of the reference, of 6 patients" in text
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
    from CACTrainingLib.references.manifest import ManifestRow, write_manifest
    from CACTrainingLib.references.registry import read_reference

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
