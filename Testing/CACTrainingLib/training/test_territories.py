"""Test the territory network's training: its loss, its metrics, and the trained model."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_scans import write_cohort, write_scan

from CACScoringLib.core.errors import DataError
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import load_model, read_card
from CACScoringLib.networks.configs import TerritoryNetConfig
from CACTrainingLib.cli.main import main
from CACTrainingLib.data.territory_patches import CALCIFYING, HEART_ONLY, SIZE, UNKNOWN, Patch
from CACTrainingLib.phantom.cohort.territory_volumes import TerritoryVolume
from CACTrainingLib.training import territories as training
from CACTrainingLib.training.settings import LoopSettings, RunOptions

NONE = (np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.uint8))


def small_volume(number=0):
    """Make a volume with a ball as heart, half LAD and half RCA, with possible plaque in each."""
    k, j, i = np.mgrid[:70, :70, :70] - 35
    heart = k**2 + j**2 + i**2 < 400
    labels = np.where(heart, np.where(i < 0, 4, 2), 0).astype(np.uint8)
    hu = np.where(heart, 40, -900).astype(np.int16)
    places = np.ravel_multi_index(np.array([[35, 35, 35], [35, 35, 35], [30, 40, 31]]), hu.shape)
    plaques = (places.astype(np.int32), np.array([100, 50, 30], np.float32), np.array([4, 2, 2], np.uint8))
    return TerritoryVolume(hu, labels, heart, NONE, NONE, plaques)


def sure(labels, heart):
    """Return logits of a network that is certain of these labels."""
    hot = torch.nn.functional.one_hot(labels, 11).movedim(-1, 1).float()
    return torch.cat([20 * (2 * heart[:, None] - 1), 20 * hot], 1)


@pytest.fixture
def truth():
    labels = torch.from_numpy(small_volume().labels.astype(np.int64))[None]
    return labels, (labels > 0).float()


def test_loss_is_zero_for_the_truth_and_high_for_errors(truth):
    labels, heart = truth
    none = torch.zeros(1, len(CALCIFYING), *labels.shape[1:])
    loss, parts = training.territory_loss(sure(labels, heart), labels, heart, none)
    assert float(loss) < 1e-3
    assert set(parts) == {"entropy", "calcium", "overlap", "heart"}
    swapped = torch.where(labels == 2, 4, torch.where(labels == 4, 2, labels))
    assert float(training.territory_loss(sure(swapped, heart), labels, heart, none)[0]) > 1
    assert float(training.territory_loss(sure(labels, 1 - heart), labels, heart, none)[0]) > 1
    hidden = torch.where(labels == swapped, labels, UNKNOWN)
    assert float(training.territory_loss(sure(swapped, heart), hidden, heart * (hidden != UNKNOWN), none)[0]) < 1e-3


def test_an_outlined_heart_teaches_the_heart_alone(truth):
    labels, heart = truth
    labels = torch.where(torch.arange(70) < 50, HEART_ONLY, UNKNOWN).expand(labels.shape)
    logits = torch.zeros(1, 12, *labels.shape[1:], requires_grad=True)
    loss, parts = training.territory_loss(logits, labels, heart, torch.zeros(1, len(CALCIFYING), *labels.shape[1:]))
    loss.backward()
    learned = logits.grad != 0
    assert (learned[0, 0] == (labels[0] == HEART_ONLY)).all()
    assert not learned[:, 1:].any()
    assert (parts["entropy"], parts["overlap"]) == (0, 0)


def test_outlined_scans_get_their_share_and_nothing_is_known_beyond_them(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "territory_volume", lambda number, folder: small_volume())
    volume = small_volume()
    scan = replace(volume, labels=np.full_like(volume.labels, HEART_ONLY), possible=NONE)
    settings = training.TerritoryTraining(network=TerritoryNetConfig(width=2, blocks=1), batch_size=6)
    task = training.TerritoryTask(settings, tmp_path, outlined=([scan], []))
    batch = task.augment(task.batch(np.random.default_rng(0)))
    is_scan = (batch["labels"] == HEART_ONLY).flatten(1).any(1)
    assert 1 <= is_scan.sum() <= 5
    assert (batch["labels"][is_scan] >= HEART_ONLY).all()
    assert not batch["possible"][is_scan].any()
    in_heart = batch["heart"].bool() & is_scan[:, None, None, None]
    assert in_heart.any()
    assert (batch["labels"][in_heart] == HEART_ONLY).all()


def test_overlap_by_hand(truth):
    """Even odds for all 11 territories, with half of the heart outside the field of view."""
    labels, heart = truth
    labels[:, :35] = UNKNOWN
    heart = heart * (labels != UNKNOWN)
    voxels, logits = int((labels != UNKNOWN).sum()), torch.zeros(1, 12, *labels.shape[1:])
    _, parts = training.territory_loss(logits, labels, heart, torch.zeros(1, len(CALCIFYING), *labels.shape[1:]))
    counts = [int((labels == label).sum()) for label in (0, 2, 4)]
    dice = [(2 * count / 11 + 1) / (voxels / 11 + count + 1) for count in counts]
    assert float(parts["overlap"]) == pytest.approx(1 - np.mean(dice), abs=1e-5)
    size = float(heart.sum())
    assert float(parts["heart"]) == pytest.approx(1 - (size + 1) / (voxels / 2 + size + 1), abs=1e-5)


def test_dice_by_hand():
    labels = torch.zeros(4, 4, 4, dtype=torch.int64)
    labels[0], labels[1], labels[3] = 2, 4, UNKNOWN
    heart = (labels > 0).float() * (labels != UNKNOWN)
    output = np.zeros((12, 4, 4, 4), np.float32)
    output[0, :1] = 1
    output[3, :, :2], output[5, :, 2:] = 1, 1  # LAD in one half, RCA in the other
    values = training._dice(output, Patch(torch.zeros(2, 4, 4, 4), labels, heart))
    # 16 voxels of each are true and 24 of 48 known ones are predicted, 8 of them rightly.
    assert values[1] == values[3] == pytest.approx(2 * 8 / (16 + 24))
    assert (values[-1], np.isnan(values[:10]).sum()) == (pytest.approx(2 * 16 / (16 + 32)), 8)


def test_loss_at_possible_calcium_is_lowest_for_calibrated_odds(truth):
    """Even odds are best, with ln 2, for a place with LCX calcium in one half of patients and LAD in the other."""
    labels, heart = truth
    none = torch.zeros(1, len(CALCIFYING), *labels.shape[1:])
    at = (0, slice(None), 35, 35, 40)
    shares = none.clone()
    shares[0, 1, 35, 35, 40] = shares[0, 2, 35, 35, 40] = 0.5
    logits = sure(labels, heart)

    def at_calcium(lad, lcx, names=labels):
        logits[at] = -40.0
        logits[0, 3, 35, 35, 40], logits[0, 4, 35, 35, 40] = lad, lcx
        return float(training.territory_loss(logits, names, heart, shares)[1]["calcium"])

    assert at_calcium(0.0, 0.0) == pytest.approx(np.log(2), rel=1e-3)
    assert at_calcium(2.0, 0.0) > at_calcium(0.5, 0.0) > at_calcium(0.0, 0.0)
    assert at_calcium(2.0, 0.0, torch.full_like(labels, UNKNOWN)) == 0


def test_calcium_goes_to_the_likeliest_territory_but_never_outside():
    volume = small_volume()
    probability = np.zeros((11, 20, 20, 20), np.float32)
    probability[0] = 0.6
    probability[4] = 0.3
    probability[2, :, :, 8:] = 0.4
    mass = training.calcium_by_territory(probability, (25, 25, 25), volume)
    # The third plaque lies at column 31 - 25 = 6, where the RCA is likeliest after outside.
    assert (mass[3, 4], mass[1, 2], mass[1, 4], mass.sum()) == (100, 50, 30, 180)
    assert training.calcium_by_territory(probability, (25, 25, 31), volume).sum() == 80


def test_the_temperature_is_that_of_a_network_surer_than_right(monkeypatch):
    """Three calls at .9, one of them wrong, are calibrated at .67."""
    volume, output = small_volume(), np.full((1, 12, SIZE, SIZE, SIZE), 1e-6, np.float32)
    output[0, 3], output[0, 5] = 0.1, 0.9
    monkeypatch.setattr(training, "predict", lambda *args: (output, ()))
    possible = (volume.possible[0], np.ones(3, np.float32), np.array([4, 2, 4], np.uint8))
    by = training.temperature(None, [replace(volume, possible=possible)])
    honest = output[0, 2:6, 0, 0, 0] ** (1 / by)
    assert honest[3] / honest.sum() == pytest.approx(2 / 3, abs=0.05)


def test_the_summary_weighs_calcium_by_mass_and_leaves_out_missing_territories():
    mass = np.zeros((4, 11))
    mass[1, 2], mass[1, 3], mass[3, 4] = 6, 2, 2
    first = ((np.nan, 0.5, *[1.0] * 8, 0.9), mass)
    second = ((0.4, 0.7, *[1.0] * 8, 0.7), 0 * mass)
    metrics = training.mean_measures([first, second])
    assert (metrics["mass"], metrics["mass_LAD"]) == (pytest.approx(0.8), pytest.approx(0.75))
    assert "mass_LCX" not in metrics
    assert (metrics["dice_LM"], metrics["dice_LAD"]) == (pytest.approx(0.4), pytest.approx(0.6))
    assert metrics["heart"] == pytest.approx(0.8)
    assert metrics["score"] == pytest.approx((metrics["mass"] + metrics["dice"] + metrics["heart"]) / 3)


@pytest.mark.long
def test_card_names_its_patients_and_can_be_started_from(tmp_path, monkeypatch):
    numbers = []
    monkeypatch.setattr(training, "territory_volume", lambda number, folder: numbers.append(number) or small_volume())
    loop = LoopSettings(steps=2, validate_every=2, average=0.0, half_precision=False)
    network = TerritoryNetConfig(width=2, blocks=1)
    settings = training.TerritoryTraining(loop, network, patients=3, validation_patients=1, batch_size=1)
    path = training.train(RunOptions((), tmp_path / "tiny", device="cpu"), settings, Progress())
    card = read_card(path)
    assert card.network == "territories"
    data = "training: digital patients 100000 to 100002; validation: digital patients 200000 to 200000"
    assert card.training.data == data
    assert {"score", "mass", "dice_LAD", "heart"} <= set(card.validation)
    assert 0.5 <= card.calibration["temperature"] <= 5
    assert load_model(path, "cpu").network is not None
    training_numbers = [number for number in numbers if number < training.FIRST_NUMBERS["validation"]]
    assert set(training_numbers) <= {100_000, 100_001, 100_002}
    assert len(training_numbers) >= 2
    still = replace(settings, network=TerritoryNetConfig(), learning_rate=0.0)
    again = read_card(training.train(RunOptions((), tmp_path / "again", start=path, device="cpu"), still, Progress()))
    assert again.training.settings["start"] == card.sha256
    assert (again.config, again.sha256) == (card.config, card.sha256)


@pytest.mark.long
def test_outlined_hearts_are_learned_and_named_on_the_card(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(training, "territory_volume", lambda number, folder: small_volume())
    cohort = write_cohort(tmp_path / "scans", 4)
    loop = LoopSettings(steps=3, validate_every=3, average=0.0, half_precision=False)
    network = TerritoryNetConfig(width=2, blocks=1)
    settings = training.TerritoryTraining(loop, network, patients=3, validation_patients=1, outlined_share=1.0)
    card = read_card(training.train(RunOptions((cohort,), tmp_path / "tiny", device="cpu"), settings, Progress()))
    assert "outlined hearts, training: 3 scans of 3 patients" in card.training.data
    territories = np.mean([card.validation[name] for name in ("mass", "dice", "heart")])
    score = (territories + card.validation["outlined_heart"]) / 2
    assert card.validation["score"] == pytest.approx(score, abs=1e-3)


def test_a_heart_found_from_the_lungs_is_not_learned_from(tmp_path):
    """Lesions inserted into a real scan without a heart mask come with the region found, which is no outline."""
    for name, source in (("a", "given"), ("b", "lungs"), ("c", "given")):
        truth = write_scan(tmp_path / name, name, coronary=True, valve=False) / "truth.json"
        truth.write_text(
            json.dumps({**json.loads(truth.read_text(encoding="utf-8")), "heart_source": source}), encoding="utf-8"
        )
    parts = training.outlined_scans(RunOptions((tmp_path,), tmp_path / "m"), LoopSettings(validation_share=0.5))
    assert sorted(scan.patient for part in parts for scan in part) == ["a", "c"]
    with pytest.raises(DataError, match="None of the 1 scans has an outlined heart"):
        training.outlined_scans(RunOptions((tmp_path / "b",), tmp_path / "m"), LoopSettings())


def test_patients_of_the_uses_never_meet_and_more_are_refused(tmp_path, capsys):
    assert training.FIRST_NUMBERS["training"] < training.FIRST_NUMBERS["validation"] < training.FIRST_NUMBERS["test"]
    command = ["train", "territories", "--output", str(tmp_path / "m"), "--settings", '{"patients": 100001}']
    assert main(command) == 3
    assert "1 to 100000 patients" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
