"""Test the lesion network's training: its loss, its metrics, and the trained model."""

import numpy as np
import pytest
import torch
from digital_pairs import write_coarse

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_mask
from CACScoringLib.models.cards import find_model, load_model, read_card
from CACScoringLib.networks.configs import LESION_KINDS, LesionNetConfig
from CACTrainingLib.cli import main as cli
from CACTrainingLib.data.lesion_batches import LesionData
from CACTrainingLib.data.lesion_rows import ARTERY_KINDS, ROW
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.annotations import slice_annotations, write_mask
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.project.training_scan import read_truth
from CACTrainingLib.training import lesions as training
from CACTrainingLib.training.lesions import LesionTraining, lesion_loss, metrics, train
from CACTrainingLib.training.settings import LoopSettings, RunOptions


def rows_by_brightness(number):
    """Calcium of the RCA, which is bright, and noise, which is not."""
    generator = np.random.default_rng(number)
    rows = np.zeros(6, ROW)
    rows["hu"] = 40
    rows["mask"][:, 9:13, 30:36, 30:36] = 100
    rows["territories"][:, 4] = 100
    for n, row in enumerate(rows):
        row["hu"][9:13, 30:36, 30:36] = generator.normal(800 if n % 2 else 160, 20)
        row["shares"][LESION_KINDS.index("RCA" if n % 2 else "noise")] = 1
    rows["volume_mm3"] = 20
    return rows


def logits_of(kind, sure=20.0):
    logits = torch.zeros(1, len(LESION_KINDS))
    logits[0, LESION_KINDS.index(kind)] = sure
    return logits


def test_loss_is_low_for_the_truth_and_higher_for_another_organ_than_for_another_artery():
    shares = torch.zeros(1, len(LESION_KINDS))
    shares[0, LESION_KINDS.index("RCA")] = 1
    right, artery, organ = (float(lesion_loss(logits_of(x, 6.0), shares)) for x in ("RCA", "LAD", "mitral annulus"))
    assert right < 0.5
    assert right + 3 < artery < organ - 2


def test_a_lesion_of_unknown_kind_teaches_only_coronary_or_not():
    shares = torch.zeros(2, len(LESION_KINDS))
    shares[0, ARTERY_KINDS:] = 1 / (len(LESION_KINDS) - ARTERY_KINDS)
    shares[1, LESION_KINDS.index("RCA")] = 1
    clip, noise, artery = (torch.cat([logits_of(x, 6.0), logits_of("RCA", 6.0)]) for x in ("clip", "noise", "LAD"))
    assert float(lesion_loss(clip, shares)) == pytest.approx(float(lesion_loss(noise, shares)))
    assert float(lesion_loss(artery, shares)) > float(lesion_loss(clip, shares)) + 1


def test_metrics_by_hand():
    kinds = ["RCA", "LAD", "stent", "noise", "mitral annulus"]
    rows = np.zeros(len(kinds), ROW)
    for row, kind in zip(rows, kinds, strict=True):
        row["shares"][LESION_KINDS.index(kind)] = 1
    answers = np.zeros((len(kinds), len(LESION_KINDS)), np.float32)
    for answer, kind in zip(answers, ["RCA", "RCA", "LAD", "noise", "LCX"], strict=True):
        answer[LESION_KINDS.index(kind)] = 1
    values = metrics(answers, LesionData([rows]))
    assert values["artery"] == 0.5
    assert (values["RCA"], values["LAD"], values["stent"], values["noise"]) == (1, 1, 1, 1)
    assert (values["mitral annulus"], values["stents named"], values["calcium named stent"]) == (0, 0, 0)
    assert values["auc"] == pytest.approx((2 * 1 + 2 * 0.5) / 4)


def test_training_learns_and_writes_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "patient_rows", lambda number, *_: rows_by_brightness(number))
    loop, network = LoopSettings(40, average=0.0), LesionNetConfig(width=4)
    settings = LesionTraining(loop, network, 4, validation_patients=2, batch_size=8, learning_rate=0.01)
    path = train(RunOptions((), tmp_path / "tiny", device="cpu"), settings, Progress())
    card = read_card(path)
    assert card.network == "lesions"
    assert card.config == {"width": 4, "dropout": LesionNetConfig.dropout}
    assert "5000000 to 5000003" in card.training.data
    assert "5500000 to 5500001" in card.training.data
    assert card.validation["auc"] > 0.8
    runner = load_model(path, "cpu").network
    answers = runner.run(np.random.default_rng(0).random((2, 14, 16, 48, 48), np.float32))
    assert answers.sum(1) == pytest.approx(1, abs=1e-4)


@pytest.mark.long
def test_painted_lesions_of_a_project_are_learned_from(tmp_path, monkeypatch):
    monkeypatch.setenv("CAC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(training, "patient_rows", lambda number, *_: rows_by_brightness(number))
    project = Project.create(tmp_path / "project")
    for number in (950341, 950344, 5):
        folder = tmp_path / str(number)
        write_coarse(number, folder)
        (scan,) = project.add([NewScan(f"s{number}", f"p{number}", folder / "ct.nii.gz")]).added
        for kind in ("heart", "regions"):
            write_mask(project, scan.id, "Ann", kind, read_mask(folder / f"{kind}.nii.gz"))
        visible = {entry["k"]: entry["visible"] for entry in read_truth(folder / "truth.json")["slices"]}
        annotations = slice_annotations(project, scan.id, "Ann")
        for k, is_visible in visible.items():
            if is_visible is not None:
                annotations.set(k, SliceLabel.VISIBLE if is_visible else SliceLabel.NOT_VISIBLE)
    path = tmp_path / "mine"
    options = ["--steps", "2", "--device", "cpu", "--workers", "1", "--progress", "none"]
    options += ["--settings", '{"patients": 2}']
    command = ["train", "lesions", "--preset", "real-lesions", "--data", str(project.folder), "--output", str(path)]
    assert cli.main([*command, *options]) == 0
    card = read_card(path.with_suffix(".json"))
    assert "of them 2 real patients labelled by Ann" in card.training.data
    assert card.training.settings["start"] == find_model("lesions").card.sha256
    assert card.lacks_verdict
    rows = np.concatenate([np.load(file) for file in (tmp_path / "cache" / "lesions").glob("*.npy")])
    is_coronary = rows["shares"][:, :ARTERY_KINDS].sum(axis=1) > 0.5
    assert is_coronary.any()
    assert not is_coronary.all()


def test_real_lesions_need_annotated_scans(tmp_path, monkeypatch):
    options = RunOptions((), tmp_path / "mine", device="cpu")
    with pytest.raises(CTError, match="Training needs at least two"):
        train(options, training.PRESETS["real-lesions"], Progress())


def test_impossible_settings_are_refused(tmp_path):
    options = RunOptions((), tmp_path)
    for settings in (LesionTraining(patients=0), LesionTraining(validation_patients=0), LesionTraining(batch_size=0)):
        with pytest.raises(CTError, match="Give 1 to 500000 patients"):
            train(options, settings, Progress())
