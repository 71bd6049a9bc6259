"""Test the lesion network's training: its loss, its metrics, and the trained model."""

import numpy as np
import pytest
import torch
from digital_pairs import write_coarse

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_mask
from CACScoringLib.models.cards import find_model, load_model, read_card
from CACScoringLib.networks.configs import LESION_KINDS, LesionNetConfig, build
from CACTrainingLib.cli import main as cli
from CACTrainingLib.data.lesion_rows import ARTERY_KINDS, NOISE, NOT_CORONARY, ROW, size_code
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.annotations import slice_annotations, write_mask
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.project.training_scan import read_truth
from CACTrainingLib.training import lesions as training
from CACTrainingLib.training.lesions import LesionTraining, lesion_loss, measures, train
from CACTrainingLib.training.loop import Outcome
from CACTrainingLib.training.settings import LoopSettings, RunOptions

RCA, LAD, ROOT, STENT = (LESION_KINDS.index(kind) for kind in ("RCA", "LAD", "aortic valve and root", "stent"))


def loss_of(answer, label):
    logits = torch.zeros(1, len(LESION_KINDS))
    logits[0, answer] = 6.0
    return float(lesion_loss(logits, torch.tensor([label]), torch.ones(1)))


def test_loss_is_low_for_the_truth_and_higher_for_another_organ_than_for_another_artery():
    assert loss_of(RCA, RCA) < 0.6
    assert loss_of(RCA, RCA) + 3 < loss_of(LAD, RCA) < loss_of(ROOT, RCA) - 2


def test_unknown_kinds_are_only_not_coronary():
    assert loss_of(NOISE, NOT_CORONARY) == pytest.approx(loss_of(ROOT, NOT_CORONARY))
    assert loss_of(RCA, NOT_CORONARY) > loss_of(ROOT, NOT_CORONARY) + 3


def test_loss_weighs_voxels():
    logits = torch.zeros(2, len(LESION_KINDS))
    logits[:, RCA] = 6.0
    labels = torch.tensor([RCA, ROOT])
    mostly_right, mostly_wrong = (
        float(lesion_loss(logits, labels, torch.tensor(weights))) for weights in ([9.0, 1.0], [1.0, 9.0])
    )
    assert mostly_right + 3 < mostly_wrong


def test_measures_by_hand():
    labels = np.array([RCA, RCA, LAD, ROOT, ROOT, NOISE, NOT_CORONARY])
    answers = [RCA, LAD, STENT, ROOT, RCA, NOISE, ROOT]
    kinds = np.eye(len(LESION_KINDS), dtype=np.float32)[answers]
    groups = np.array(["motion"] * 6 + ["real"])
    values = measures(kinds, labels, np.array([3.0, 1, 1, 1, 1, 1, 1]), groups)
    assert (values["RCA found"], values["RCA named"]) == (1, 0.75)
    assert (values["LAD found"], values["LAD named"]) == (1, 0)
    assert values["calcium as device"] == pytest.approx(0.2)
    assert (values["root as coronary"], values["noise as coronary"], values["real as coronary"]) == (0.5, 0, 0)
    assert values["log likelihood"] == pytest.approx(np.log(1e-4) * 3 / 8 / 2, abs=1e-3)
    assert values["log likelihood, motion"] == pytest.approx(np.log(1e-4) * 3 / 8, abs=1e-3)
    assert values["log likelihood, real"] == 0


def test_logits_of_some_voxels_are_those_of_their_probabilities():
    network = build(LesionNetConfig(width=4)).eval()
    x, voxels = torch.rand(1, 16, 16, 48, 48), torch.rand(1, 16, 48, 48) < 0.1
    probabilities = network(x)
    assert probabilities.shape == (1, len(LESION_KINDS), 16, 48, 48)
    torch.testing.assert_close(network(x, voxels).softmax(1), probabilities.movedim(1, -1)[voxels])


def rows_by_brightness(number):
    """Patches with RCA calcium, which is bright, at one side and root wall, which is not, at the other."""
    generator = np.random.default_rng(number)
    rows = np.zeros(3, ROW)
    rows["hu"] = 40
    for row in rows:
        row["hu"][9:13, 30:36, 26:30] = generator.normal(900, 20)
        row["hu"][9:13, 30:36, 36:40] = generator.normal(200, 20)
    for label, columns in ((RCA, slice(26, 30)), (ROOT, slice(36, 40))):
        rows["label"][:, 9:13, 30:36, columns] = label + 1
        rows["dense"][:, 9:13, 30:36, columns] = 100
        rows["size"][:, 9:13, 30:36, columns] = size_code(np.array([108.0]))
        rows["volumes_mm3"][:, label] = 108
    rows["territories"][:, 4] = 100
    rows["noise_hu"] = 10
    return rows


@pytest.mark.long
def test_training_learns_and_writes_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "patient_rows", lambda number, *_: rows_by_brightness(number))
    loop, network = LoopSettings(120, average=0.0, half_precision=False, validate_every=120), LesionNetConfig(width=4)
    settings = LesionTraining(loop, network, 4, validation_patients=2, batch_size=4, learning_rate=0.01)
    path = train(RunOptions((), tmp_path / "tiny", device="cpu"), settings, Progress())
    card = read_card(path)
    assert (card.network, card.config) == ("lesions", {"width": 4, "dropout": LesionNetConfig.dropout})
    assert "30000000 (usual), 30100000 (ostium), 30200000 (heavy), 30300000 (motion) on" in card.training.data
    assert [entry["step"] for entry in card.training.curve] == [120]
    assert card.validation["RCA named"] > 0.9
    assert card.validation["root as coronary"] < 0.1
    answers = load_model(path, "cpu").network.run(np.random.default_rng(0).random((2, 16, 16, 48, 48), np.float32))
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
    options += ["--settings", '{"patients": 2, "validation_patients": 1, "batch_size": 4}']
    command = ["train", "lesions", "--preset", "real-lesions", "--data", str(project.folder), "--output", str(path)]
    assert cli.main([*command, *options]) == 0
    card = read_card(path.with_suffix(".json"))
    assert "of them 2 real patients labelled by Ann" in card.training.data
    assert card.training.settings["start"] == find_model("lesions").card.sha256
    assert card.lacks_verdict
    rows = np.concatenate([np.load(file) for file in (tmp_path / "cache" / "lesions").glob("*.npy")])
    labels = np.flatnonzero(rows["volumes_mm3"].any(axis=0))
    assert (labels < ARTERY_KINDS).any()
    assert NOT_CORONARY in labels
    assert set(labels.tolist()) <= {*range(ARTERY_KINDS), NOT_CORONARY}


def test_real_lesions_need_annotated_scans(tmp_path, monkeypatch):
    options = RunOptions((), tmp_path / "mine", device="cpu")
    with pytest.raises(CTError, match="Training needs at least two"):
        train(options, training.PRESETS["real-lesions"], Progress())


def test_patients_held_out_must_be_among_the_data(tmp_path):
    settings = LesionTraining(patients=1, validation_patients=1, held_out=("P1",))
    with pytest.raises(CTError, match="P1, who shall be held out"):
        train(RunOptions((), tmp_path / "mine", device="cpu"), settings, Progress())


def test_half_of_a_batch_is_of_real_scans_and_annotated_ones_come_first():
    assert LesionTraining().shares == {"annotated": 0, "real": 0.5}
    assert LesionTraining(annotated_share=0.4).shares == {"annotated": 0.4, "real": pytest.approx(0.3)}


def test_impossible_settings_are_refused(tmp_path):
    options = RunOptions((), tmp_path)
    for settings in (LesionTraining(patients=0), LesionTraining(validation_patients=0), LesionTraining(batch_size=0)):
        with pytest.raises(CTError, match="Give 1 to 1800000 patients"):
            train(options, settings, Progress())
    with pytest.raises(CTError, match="--start"):
        train(options, LesionTraining(start_share=0.5), Progress())
    with pytest.raises(CTError, match="from 0 to below 1"):
        train(options, LesionTraining(start_share=1.0), Progress())


def test_weights_are_mixed_with_those_of_the_start():
    outcome = Outcome({"weight": torch.tensor([1.0, 3.0]), "count": torch.tensor(7)}, {}, 1, 1.0)
    mixed = outcome.mixed_with({"weight": torch.tensor([2.0, 1.0]), "count": torch.tensor(2)}, 0.25)
    assert mixed.weights["weight"].tolist() == [1.25, 2.5]
    assert mixed.weights["count"] == 7
