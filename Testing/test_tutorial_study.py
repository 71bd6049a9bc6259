"""Walks the tutorial of twelve patients from the folder to the figure, with small scans and without networks.

The reader's clicks are requests to the server of the review.
"""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from digital_pairs import CALCIFIED, CLEAN, write_coarse
from in_this_process import InThisProcess
from page_commands import FENCE, PageCommand, commands_of
from review_server import ThreadedServer

from CACScoringLib.record.score_record import read_result
from CACTrainingLib.cli import main as cli

PAGE = Path(__file__).parents[1] / "docs" / "user" / "tutorial-study.md"
IN_BROWSER, BY_LABELS, SEVERE, REFUSED = (f"patient_{n:05d}/scan_1" for n in (1, 2, 11, 12))


def write_patients(folder: Path) -> None:
    """Write twelve patients: two small digital ones, of which each copy has noise of its own."""
    drawn = [folder / f"drawn_{number}" for number in (CALCIFIED, CLEAN)]
    for number, place in zip((CALCIFIED, CLEAN), drawn, strict=True):
        write_coarse(number, place)
    for n in range(1, 13):
        place = folder / "patients" / f"patient_{n:05d}" / "scan_1"
        shutil.copytree(next(drawn[0 if n < 7 else 1].rglob("ct.nii.gz")).parent, place)
        ct = sitk.ReadImage(place / "ct.nii.gz")
        noise = np.random.default_rng(n).integers(-1, 2, ct.GetSize()[::-1]).astype(np.int16)
        hu = sitk.GetArrayFromImage(ct) + noise
        # The coarse scan hides most plaques; labels lie on those that it shows, as a reader's would.
        regions = sitk.GetArrayFromImage(sitk.ReadImage(place / "regions.nii.gz")) * (hu >= 130)
        for name, voxels in (("ct", hu), ("regions", regions)):
            image = sitk.GetImageFromArray(voxels)
            image.CopyInformation(ct)
            sitk.WriteImage(image, place / f"{name}.nii.gz")


def review(results: Path) -> float:
    """Give all lesions of a scan to the LAD, confirm and export, as the page says; return the score."""
    server = ThreadedServer(results, "--reader", "Me")
    try:
        client = server.client("Me")
        rows = client.rows()
        assert rows[REFUSED]["state"] == "refused"
        assert rows[REFUSED]["problem"]
        assert max(rows.values(), key=lambda row: row["need"])["name"] == SEVERE
        base = client.base(IN_BROWSER)
        ids = [lesion["id"] for lesion in client.get(base)["methods"]["threshold"]["lesions"]]
        client.act(base, "assign", lesions=ids, site=2)
        state = client.act(base, "accept")
        assert client.post(f"{base}/export", {}) == (200, {"folder": "reviewed"})
        return state["methods"]["threshold"]["total"]["agatston"]
    finally:
        server.stop()


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def section_of(page: str, title: str) -> str:
    return page.partition(f"<h2>{title}</h2>")[2].partition("<h2>")[0]


def steps_of(page: Path) -> list[PageCommand | str]:
    """Return commands and Python code of a page's blocks, in their order."""
    commands = iter(command for command in commands_of(page) if not command.is_inline)
    blocks = re.finditer(FENCE.pattern, page.read_text(encoding="utf-8"), FENCE.flags)
    return [next(commands) if block[1] == "bash" else block[2] for block in blocks]


@pytest.mark.long
def test_reviewed_numbers_stand_in_every_table(tmp_path, monkeypatch):
    monkeypatch.setattr("CACScoringLib.cohort.cohort.Workers", InThisProcess)
    monkeypatch.chdir(tmp_path)
    write_patients(tmp_path)
    reviewed, codes = 0.0, {}
    steps = steps_of(PAGE)
    for step in steps:
        if isinstance(step, str):
            exec(step, {})
            continue
        words = [*step.words, "--progress", "none"]
        cli.make_parser().parse_args(words)
        if words[0] == "review":
            reviewed = review(Path(words[1]))
        elif words[0] != "phantom":
            networks = ["--threshold-only"] if words[0] == "score" or words[1] == "patients" else []
            codes[step.text] = cli.main([*words, *networks])
    assert codes.pop("./cac cohort patients --output results") == 3
    assert set(codes.values()) == {0}

    results = Path("results")
    by_labels = read_result(results / BY_LABELS.replace("/", "-") / "reviewed").methods["threshold"].total.agatston
    scores = {IN_BROWSER: reviewed, BY_LABELS: by_labels}
    assert all(score > 0 for score in scores.values())
    for _ in range(2):
        rows = rows_of(results / "cohort.csv")
        assert len(rows) == 12
        assert rows[REFUSED]["state"] == "failed"
        assert "slices-foreign" in rows[SEVERE]["severe_warnings"]
        assert {name for name, row in rows.items() if row["threshold_reviewed"] == "True"} == set(scores)
        for name, score in scores.items():
            assert float(rows[name]["threshold_agatston"]) == pytest.approx(score)
            assert (rows[name]["threshold_status"], rows[name]["reader"]) == ("reviewed", "Me")
            assert rows[name]["confirmed"]
            assert rows[name]["threshold_automatic_status"] == "candidates"
        assert cli.main(["cohort", "patients", "--output", "results", "--threshold-only", "--progress", "none"]) == 3

    page = (results / "cohort-report.html").read_text(encoding="utf-8")
    first, refused = section_of(page, "What to look at first"), section_of(page, "Refused scans")
    assert re.findall("<tr><td>(.*?)</td>", first) == [SEVERE]
    assert re.findall("<tr><td>(.*?)</td>", refused) == [REFUSED]
    assert "2 reviewed" in page
    assert "1 of 11 scans have a severe warning" in page
    assert (results / "cohort-scores.svg").is_file()
    assert (results / "cohort-scores.png").is_file()
