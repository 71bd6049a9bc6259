"""Results as JSON, CSV, HTML and pictures."""

import base64
import csv
import io
import json
import re
from dataclasses import replace

import automatic_patient
import heart_with_territories
import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of
from made_results import make_result
from noisy_hearts import noisy_heart
from PIL import Image

from CACScoringLib.core.ct import Acquisition, ScanWarning, scan_from_image
from CACScoringLib.core.labels import TERRITORIES, Artery, NonCoronary
from CACScoringLib.pipeline import score_scan
from CACScoringLib.record.scores import STATUSES, LesionSet, Verdict
from CACScoringLib.report import files as report
from CACScoringLib.report import page, pictures
from CACScoringLib.report.page import comparison_as_page, severe_stenosis
from CACScoringLib.scoring.comparison import compare
from CACScoringLib.scoring.doubt import MAX_LISTED, decisive_lesions, lesion_name, listed_lesions

NASTY = "<script>alert(1)</script>&\"'"
IDENTITY = {"patient_name": "DOE^JANE", "patient_id": "ID-4711", "study_date": "20260102", "series_uid": "1.2.3.4"}


@pytest.fixture(scope="module")
def result():
    return make_result()


def test_severe_warnings_stand_above_the_numbers(result):
    warnings = (ScanWarning("thick-slices", "It is thick."), ScanWarning("dire", f"No heart: {NASTY}", severe=True))
    warned = result.stating(warnings=warnings)
    html = page.result_as_html(warned)
    numbers = html.index('<table class="scores">')
    assert html.index("<code>dire</code>") < numbers < html.index("<code>thick-slices</code>")
    assert "<script>alert" not in html
    assert 'class="severe"' not in page.result_as_html(result.stating(warnings=warnings[:1]))
    written = warned.record.as_json()["warnings"]
    assert [warning["severe"] for warning in written] == [True, False]


@pytest.mark.parametrize("counts", [True, False])
def test_the_lesion_that_decides_stands_in_the_headline_and_its_picture_comes_first(counts):
    automatic = make_result(reviewed=False)
    method = automatic.methods["threshold"]
    (scored,) = method.lesions
    verdict = Verdict(artery=Artery.RCA, confidence=0.9, not_coronary_probability=0.3, counts=counts, reason="dense")
    lesion = replace(scored, verdict=verdict)
    total = method.total if counts else replace(method.total, agatston=0.0, lesions=0)
    decided = replace(method, status="automatic", total=total, table=LesionSet.of((lesion,), method.table.every))
    ((_, alternative),) = decisive_lesions(decided)
    decided = replace(decided, alternative_agatston=alternative, alternative_lesion=lesion.id)
    result = automatic.stating(methods={"threshold": decided})
    text = page.result_as_html(result)
    assert (
        "Is lesion 1 (RCA, slices 5–6, probability 70%, dense) coronary calcium? If so, the score is 64, else 0."
        in text
    )
    captions = re.findall("<figcaption>(.*?)</figcaption>", text)
    assert captions[0].startswith("Decides: counts, but is doubtful" if counts else "Decides: left out")
    assert sum(caption.startswith("Decides") for caption in captions) == 1


def test_json_has_the_promised_keys(result, tmp_path):
    report.write_json(tmp_path / "scores.json", result.record, {"heart": 1.23456})
    data = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert data["schema"] == "cac-score/1"
    assert {"input", "acquisition", "warnings", "rules", "models", "methods", "categories", "seconds"} <= set(data)
    method = data["methods"]["threshold"]
    assert method["reviewed"] is True
    assert set(method["arteries"]) == {"LM", "LAD", "LCX", "RCA", "other", "unassigned"}
    score_keys = {"agatston", "volume_mm3", "mass_mg", "pseudo_mass_hu_mm3", "lesions", "peak_hu"}
    score_keys |= {"clinical_agatston"}
    score_keys |= {"integrated_mass_mg", "mass_standard_error_mg"}
    intervals = {"interval_90", "mass_interval_90"}
    assert score_keys | intervals == set(method["total"]) == set(method["arteries"]["RCA"])
    assert score_keys | {"id", "artery"} <= set(method["lesions"][0])
    assert method["arteries"]["LAD"]["agatston"] == pytest.approx(64)
    assert method["arteries"]["RCA"]["peak_hu"] is None
    assert data["seconds"] == {"heart": 1.235}


def test_unreviewed_results_have_no_categories():
    unreviewed = make_result(reviewed=False)
    assert unreviewed.record.as_json()["categories"] is None
    text = page.result_as_html(unreviewed)
    assert "left anterior descending" not in text  # unseen arteries must not read as free of calcium


def test_csv_has_a_row_per_lesion(result):
    rows = list(csv.DictReader(io.StringIO(report.lesions_as_csv(result.record))))
    assert len(rows) == 1
    assert (rows[0]["artery"], rows[0]["first_slice"], rows[0]["last_slice"]) == ("LAD", "5", "6")
    assert rows[0]["mass_mg"] == rows[0]["integrated_mass_mg"]
    assert [float(rows[0][c]) for c in ("r_mm", "a_mm", "s_mm")] == pytest.approx([-21.5, -21.5, 5.5 * 3])


def test_mass_and_agatston_are_the_same_in_all_files():
    """Sums of the tables, scores.json, the page's table and the shares of its sentence agree, for both methods."""
    result = automatic_patient.scored()
    table = list(csv.DictReader(io.StringIO(report.lesions_as_csv(result.record))))
    features = list(csv.DictReader(io.StringIO(report.features_as_csv(result.record))))
    written = result.record.as_json()["methods"]
    for name, method in result.methods.items():
        rows = [row for row in table if row["method"] == name]
        total = written[name]["total"]
        for column, value in (("agatston", "clinical_agatston"), ("mass_mg", "integrated_mass_mg")):
            sums = sum(float(row[column]) for row in rows)
            (of_all,) = (float(r[column]) for r in features if (r["method"], r["artery"]) == (name, "total"))
            assert sums == pytest.approx(total[value], abs=0.01) == pytest.approx(of_all, abs=0.01)
        assert total["mass_mg"] == total["integrated_mass_mg"]
        for key, artery in method.features.arteries.items():
            assert artery.mass_share == pytest.approx(written[name]["arteries"][key]["mass_mg"] / total["mass_mg"])


def test_nobody_is_named_unless_asked():
    person = make_result(**IDENTITY)
    anonymous = page.result_as_html(person) + json.dumps(person.record.as_json())
    with_names = page.result_as_html(person, identify=True)
    for value in IDENTITY.values():
        assert value not in anonymous
        assert value in with_names
        assert value in json.dumps(person.record.as_json(identify=True))


def test_the_page_shows_a_comparison_as_the_page_of_the_comparison(result):
    comparison = compare(result.record, result.record, None)
    rows = re.findall(r"<table class=\"facts\">.*?</table>", comparison_as_page(comparison), re.DOTALL)
    text = page.result_as_html(result, comparison=comparison)
    assert rows
    assert not [row for row in rows if row not in text]
    assert "Calibrated by" in text


def test_the_page_needs_no_other_file(result):
    text = page.result_as_html(result)
    # Nothing is loaded; one link leads to the review in the browser.
    assert re.findall(r'(?:src|href)="(?!data:)([^"]*)', text) == ["http://127.0.0.1:8350/"]
    pictures_found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(pictures_found) == 1 + 2 + 2  # the largest lesion, two overviews and every scored slice
    for data in pictures_found:
        Image.open(io.BytesIO(base64.b64decode(data))).verify()


def test_images_are_written_on_the_scans_grid(result, tmp_path):
    report.write_images(tmp_path, result)
    labels = sitk.ReadImage(tmp_path / "lesions.nii.gz")
    heart = sitk.ReadImage(tmp_path / "heart.nii.gz")
    for image in (labels, heart):
        assert image.GetSize() == result.scan.image.GetSize()
        assert image.GetOrigin() == pytest.approx(result.scan.image.GetOrigin())
        assert image.GetSpacing() == pytest.approx(result.scan.image.GetSpacing())
    values = sitk.GetArrayFromImage(labels)
    assert np.unique(values).tolist() == [0, Artery.LAD]
    assert (values == Artery.LAD).sum() == 32


def pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)


def test_a_lesion_is_outlined_but_not_covered(result):
    method = result.methods["threshold"]
    with_lesion = pixels(pictures.slice_picture(result.scan, result.region.mask, method.lesion_set, 5))
    red, green, blue = np.moveaxis(with_lesion, 2, 0)
    outline = (red > 180) & (green < 140) & (blue < 140)
    assert outline.sum() > 100
    rows, columns = np.nonzero(outline)
    centre = with_lesion[int(rows.mean()), int(np.median(columns))]
    assert np.ptp(centre) < 12  # grey, as the CT is
    assert centre.mean() > 140


def test_of_many_candidates_those_that_matter_are_listed_and_the_rest_added_up():
    """Specks of two pixels in four slices, each 1 HU denser than the one before."""
    places = [(k, j, i) for k in (2, 4, 6, 8) for j in range(12, 68, 4) for i in range(12, 68, 4)][:400]
    scan, heart = noisy_heart((10, 80, 80), [(np.s_[k, j, i : i + 2], 131 + n) for n, (k, j, i) in enumerate(places)])
    result = score_scan(scan, heart=heart)
    method = result.methods["threshold"]
    listed = listed_lesions(method)
    assert len(listed) == MAX_LISTED < 400 == method.total.lesions
    assert min(lesion.peak_hu for lesion in listed) >= 300, "of 131 to 530 HU"
    html = page.result_as_html(result)
    points = re.findall(r"<td>([\d.]+)</td></tr>", html.split("All components")[1].split("</table>")[0])
    assert len(points) < 400
    assert sum(map(float, points)) == pytest.approx(method.total.agatston, abs=0.01 * len(points))


def test_a_patch_is_around_its_place():
    hu = np.full((3, 60, 80), -100, np.int16)
    hu[1, 30, 70] = 900
    image = image_of(hu, (0.5, 1.0, 3.0))
    scan, outlines = scan_from_image(image, Acquisition("test")), ((hu > 0, (0, 255, 0)),)
    drawn = pixels(pictures.patch_picture(scan, (1, 30.2, 70.0), outlines, 20.0))
    height, width, _ = drawn.shape
    assert width / height == pytest.approx((20 + 10) * 0.5 / 21, rel=0.05), "it ends with the scan, 10 pixels further"
    green = (drawn[..., 1] > 150) & (drawn[..., 0] < 100)
    assert np.argwhere(green).mean(0) == pytest.approx((height / 2, width * 20.5 / 30), rel=0.05)
    elsewhere = pixels(pictures.patch_picture(scan, (0, 30, 70), outlines, 20.0))
    assert not ((elsewhere[..., 1] > 150) & (elsewhere[..., 0] < 100)).any()


def test_an_unreviewed_lesion_is_named_by_its_suggested_artery():
    unreviewed = make_result(reviewed=False)
    method = unreviewed.methods["threshold"]
    verdict = Verdict(artery=Artery.LCX, confidence=0.9, not_coronary_probability=0.2)
    lesion = replace(method.lesions[0], verdict=verdict)
    of_lesion = replace(method, table=LesionSet.of((lesion,), method.table.every))
    html = page.result_as_html(unreviewed.stating(methods={"threshold": of_lesion}))
    assert "LCX (90%)" in html
    for probability, percent in ((0.8, 80), (0.999, 99)):
        rejected = replace(lesion, verdict=replace(verdict, not_coronary_probability=probability))
        assert lesion_name(method, rejected) == f"not coronary? ({percent}%)"
    automatic = replace(method, status="automatic")
    assert lesion_name(automatic, lesion) == "LCX (90%)"
    doubtful = replace(lesion, verdict=replace(verdict, confidence=0.6, second=Artery.LM))
    assert lesion_name(automatic, doubtful) == "LCX or LM (60%)"


def test_non_coronary_calcium_stands_beside_the_methods(tmp_path):
    result = heart_with_territories.score()
    content = result.record.as_json()
    elsewhere = content["non_coronary"]
    sites = ["aortic_valve", "mitral_annulus", "thoracic_aorta", "other"]
    assert list(elsewhere) == ["reviewed", *sites, "lesion_list"]
    assert [elsewhere[site]["agatston"] for site in sites] == pytest.approx([128, 96, 96, 0])
    assert [lesion["site"] for lesion in elsewhere["lesion_list"]] == sites[:3]
    assert content["methods"]["threshold"]["total"]["agatston"] == pytest.approx(64)
    assert content["territories"]["labels"]["2"] == "LAD"
    rows = [(row["method"], row["artery"]) for row in csv.DictReader(io.StringIO(report.lesions_as_csv(result.record)))]
    assert rows == [("threshold", "LAD"), *(("non_coronary", site) for site in sites[:3])]
    report.write_images(tmp_path, result)
    territories = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "territories.nii.gz")))
    assert {TERRITORIES[n] for n in np.unique(territories)} == {"outside", *heart_with_territories.NAMES}
    # Limits for the valve alone hold for no automatic score, which includes its root.
    method = result.methods["threshold"]
    of_reader = replace(method, non_coronary=replace(result.record.non_coronary, reviewed=True))
    reviewed = result.stating(methods={"threshold": of_reader})
    pages = [page.result_as_html(case) for case in (result, reviewed)]
    assert ["128: unlikely" in html for html in pages] == [False, True]


def test_copied_text_is_a_table():
    result = heart_with_territories.score()
    clinical, elsewhere = result.methods["threshold"], result.record.non_coronary
    methods = {"threshold": replace(clinical, total=replace(clinical.total, mass_mg=None))}
    lines = [line.split("\t") for line in report.result_as_copied_text(methods, elsewhere).splitlines()]
    assert {len(line) for line in lines} == {9}
    assert len(lines) == 1 + 7 + 4
    [total] = [line for line in lines if line[1] == "total"]
    assert float(total[3]) == pytest.approx(clinical.total.agatston, abs=1e-3)
    assert total[5] == ""  # no mass without a calibration
    assert total[8] == STATUSES["candidates"]
    valve = elsewhere.scores[NonCoronary.AORTIC_VALVE]
    cells = next(line for line in lines if line[1] == "aortic valve and root")
    assert cells[2:4] == [str(valve.lesions), f"{valve.agatston:.3f}"]


@pytest.mark.parametrize(
    ("agatston", "women", "men"),
    [
        (799.9, "unlikely", "unlikely"),
        (800, "undetermined", "unlikely"),
        (1200, "likely", "unlikely"),
        (1600, "very likely", "undetermined"),
        (2000, "very likely", "likely"),
        (3000, "very likely", "very likely"),
    ],
)
def test_published_limits_of_severe_aortic_stenosis(agatston, women, men):
    assert (severe_stenosis(agatston, "F"), severe_stenosis(agatston, "M")) == (women, men)
