"""Test the voxel network's training: its loss, its measures, its start, and that it learns."""

import numpy as np
import pytest
import torch

from CACScoringLib.core.progress import Progress
from CACScoringLib.networks.configs import LESION_KINDS, LesionNetConfig
from CACScoringLib.networks.lesions import LesionNet, LesionVoxelNet
from CACTrainingLib.data.lesion_voxel_batches import VoxelData
from CACTrainingLib.data.lesion_voxels import NOT_CORONARY, VOXEL_ROW, size_code
from CACTrainingLib.training.lesion_voxels import VoxelTask, VoxelTraining, measures, voxel_loss
from CACTrainingLib.training.loop import train
from CACTrainingLib.training.settings import LoopSettings

RCA, LAD, ROOT, STENT, NOISE = (
    LESION_KINDS.index(kind) for kind in ("RCA", "LAD", "aortic valve and root", "stent", "noise")
)


def loss_of(answer, label):
    logits = torch.zeros(1, len(LESION_KINDS))
    logits[0, answer] = 6.0
    return float(voxel_loss(logits, torch.tensor([label]), torch.ones(1)))


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
        float(voxel_loss(logits, labels, torch.tensor(weights))) for weights in ([9.0, 1.0], [1.0, 9.0])
    )
    assert mostly_right + 3 < mostly_wrong


def test_measures_by_hand():
    labels = np.array([RCA, RCA, LAD, ROOT, ROOT, NOISE, NOT_CORONARY])
    answers = [RCA, LAD, STENT, ROOT, RCA, NOISE, ROOT]
    kinds = np.eye(len(LESION_KINDS), dtype=np.float32)[answers]
    values = measures(kinds, labels, np.array([3.0, 1, 1, 1, 1, 1, 1]))
    assert (values["RCA found"], values["RCA named"]) == (1, 0.75)
    assert (values["LAD found"], values["LAD named"]) == (1, 0)
    assert values["calcium as device"] == pytest.approx(0.2)
    assert (values["root as coronary"], values["noise as coronary"], values["real as coronary"]) == (0.5, 0, 0)
    assert values["log likelihood"] == pytest.approx(np.log(1e-4) * 3 / 9, abs=1e-3)


def test_the_voxel_network_begins_with_the_features_of_a_lesion_network():
    config = LesionNetConfig(width=4)
    lesion, voxel = LesionNet(config).eval(), LesionVoxelNet(config).eval()
    voxel.begin_from(lesion)
    x = torch.rand(1, 16, 16, 48, 48)
    for expected, features in zip(lesion.features(x[:, 1:15])[1:], voxel.features(x)[1:], strict=True):
        torch.testing.assert_close(features, expected)
    probabilities = voxel(x)
    assert probabilities.shape == (1, len(LESION_KINDS), 16, 48, 48)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, 16, 48, 48))
    voxels = torch.rand(1, 16, 48, 48) < 0.1
    torch.testing.assert_close(voxel(x, voxels).softmax(1), probabilities.movedim(1, -1)[voxels])


def rows_by_brightness(number):
    """Patches with RCA calcium, which is bright, at one side and root wall, which is not, at the other."""
    generator = np.random.default_rng(number)
    rows = np.zeros(3, VOXEL_ROW)
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
def test_training_separates_two_kinds_in_one_patch(tmp_path):
    data = VoxelData([rows_by_brightness(number) for number in range(3)])
    loop = LoopSettings(120, average=0.0, half_precision=False, validate_every=120)
    settings = VoxelTraining(loop, LesionNetConfig(width=4), batch_size=4, learning_rate=0.01)
    task = VoxelTask(settings, data, data, LesionVoxelNet(settings.network))
    outcome = train(task, loop, tmp_path, Progress(), "cpu")
    assert outcome.metrics["RCA named"] > 0.9
    assert outcome.metrics["root as coronary"] < 0.1
