"""The commands of "Train on your own scans", run in their order on coarse digital patients written as DICOM.

Nothing here says that the network is any good. The download, the digital patients, the calibration and the studies of
the page have tests of their own.
"""

from pathlib import Path

import pytest
from annotated_project import label, write_mask
from digital_pairs import CLEAN, scored_in_this_process, write_coarse
from reference_files import write_dicom

from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models.cards import VERDICT, find_model, read_card
from CACScoringLib.record.score_record import ModelRecord
from CACTrainingLib.cli import main as cli
from CACTrainingLib.evaluation.page import facts_of, write_study
from CACTrainingLib.evaluation.parts import Section
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.annotations import truth_labels
from CACTrainingLib.project.project import Project
from test_docs import command_lines

PAGE = Path(__file__).parents[1] / "docs" / "training" / "own-scans.md"
PATIENTS = (950341, 950344, CLEAN)
"""Digital patients; two have calcium in several slices."""
ELSEWHERE = ("data nlst", "phantom", "calibrate", "validate", "evaluate", "train lesions")
"""Commands of the page that other tests run."""
QUICK = {
    "data": ["--workers", "1"],
    "cohort": ["--workers", "1"],
    "train": ["--steps", "2", "--device", "cpu", "--workers", "1", "--settings", '{"loop": {"validate_every": 1}}'],
}
"""Options that make a command quick, by its first word."""


@pytest.mark.long
def test_from_a_download_to_an_installed_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    monkeypatch.setenv("CAC_CACHE_DIR", str(tmp_path / "cache"))
    scored = scored_in_this_process(monkeypatch)
    digital = {number: tmp_path / "DIGITAL" / str(number) for number in PATIENTS}
    for number, folder in digital.items():
        write_coarse(number, folder)
        write_dicom(folder, tmp_path / "SCANS" / str(number) / "1", f"P{number}")
    names = {name: str(tmp_path / name) for name in ("SCANS", "PROJECT", "DIGITAL", "AFTER")}
    commands = [words for words in command_lines(PAGE.read_text(encoding="utf-8")) if len(words) > 2]
    done = []
    for words in commands:
        if " ".join(words).startswith(ELSEWHERE):
            continue
        if words[0] == "train":
            annotate(Project.open(tmp_path / "PROJECT"), digital)
        if words[0] == "models":
            write_verdict(tmp_path / "AFTER", read_card(tmp_path / words[2]))
        filled = [replaced(word, names) for word in words]
        assert cli.main([*filled, *QUICK.get(words[0], []), "--progress", "none"]) == 0, capsys.readouterr().err
        done.append(" ".join(words[:2]))
    assert done == ["data import", "cohort PROJECT/scans.csv", "train decomposition", "models install"]
    assert len(scored) == len(PATIENTS)
    card = find_model("decomposition", "my-map").card
    assert "real patients labelled by Ann, " in card.training.data
    assert "scans with an automatic score" in card.training.data
    assert not card.lacks_verdict


def write_verdict(folder, card) -> None:
    """Write the verdict on a model as `cac validate --before` does."""
    record = ModelRecord(card.name, card.network, card.sha256)
    write_study(
        folder, "Title", [Section(VERDICT, "Before and after", ("Better.", "About."))], facts_of([record], 0, 1.0)
    )


def annotate(project, digital) -> None:
    """Label every slice as its truth has it, and outline the heart, as a person does."""
    for scan in project.scans:
        folder = digital[int(scan.patient[1:])]
        truth = truth_labels(type(scan)(**{**vars(scan), "truth": folder / "truth.json"}))
        label(project, scan.id, "Ann", {k: value for k, value in truth.items() if value is not SliceLabel.UNSURE})
        heart = read_mask(folder / "heart.nii.gz")
        assert heart.GetSize() == read_ct(scan.ct, scan.series).image.GetSize()
        write_mask(project, scan.id, "Ann", "heart", heart)


def replaced(word: str, names: dict[str, str]) -> str:
    """Fill the placeholders of a word of the page."""
    first, slash, rest = word.partition("/")
    return names.get(first, first) + slash + rest
