"""Test what discriminators must see in held-out slices, and that generators do not begin without it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from CACScoringLib.core.errors import DataError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import read_table
from CACScoringLib.models import cards as models
from CACScoringLib.models.operating_points import OPERATING_POINTS, PUBLISHED, operating_point
from CACScoringLib.models.preprocessing import MAP_HU
from CACScoringLib.networks.configs import GeneratorConfig
from CACTrainingLib.data.augmentation import SliceAugmentation
from CACTrainingLib.data.datasets import SliceDataset
from CACTrainingLib.training import cyclegan, published_evaluation
from CACTrainingLib.training import decomposition as train_decomposition
from CACTrainingLib.training.curves import validations
from CACTrainingLib.training.cyclegan import CycleTask
from CACTrainingLib.training.decomposition_metrics import sample_slices
from CACTrainingLib.training.discriminator_gate import LOOKS, MOVED_PIXELS, DiscriminatorCheck, moved_maps, unmet
from CACTrainingLib.training.discriminators import DISCRIMINATORS
from CACTrainingLib.training.generators import LeakySigmoid
from CACTrainingLib.training.loop import train
from CACTrainingLib.training.published_evaluation import FLOORS_HU, READER, pair_difference, write_as_published
from CACTrainingLib.training.settings import LoopSettings, RunOptions

SETTINGS = replace(
    train_decomposition.PRESETS["compact-discriminators-first"],
    network=GeneratorConfig(width=4, residual_blocks=1, upsampling="resize", skips=True),
    loop=LoopSettings(steps=8, validate_every=2, half_precision=False, validation_share=0.5, seed=2),
    batch_size=4,
    warmup_steps=4,
    augmentation=SliceAugmentation(crop=64, shift_pixels=20),
    validation_slices=4,
)
SEES = {
    f"{name}_{discriminator}": value
    for discriminator in DISCRIMINATORS
    for name, value in (
        *(("area", 0.9), ("rewarded", 0.9), ("reward", 1.0), ("moved", 0.2), ("hazed", 0.4), ("haze_reward", 0.3)),
    )
}
CROP = 112


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"area_without_calcium": 0.84}, "area of 0.84"),
        ({"rewarded_without_calcium": 0.79}, "the true map is rewarded in 79%"),
        ({"moved_without_calcium": 0.6}, "wrong place is rewarded in 60%"),
        ({"hazed_with_calcium": 0.6}, "haze of 10 HU is rewarded in 60%"),
        ({"reward_without_calcium": 0.02, "haze_reward_without_calcium": -0.1}, "raises the logit by 0.02"),
        ({"haze_reward_with_calcium": 0.6}, "less than 2 times as much as haze"),
    ],
)
def test_the_weaker_discriminator_decides(change, words):
    conditions = unmet([{**SEES, **change}] * LOOKS)
    assert len(conditions) == bool(words)
    assert words in "".join(conditions)


def test_one_lucky_look_opens_no_gate():
    """The mean of the last looks counts, and five are needed."""
    blind = {**SEES, "moved_without_calcium": 0.6}
    lucky = {**SEES, "moved_without_calcium": 0.46}
    assert unmet([blind] * 20 + [lucky])
    assert unmet([lucky] * (LOOKS - 1)) == [f"they were measured {LOOKS - 1} times ({LOOKS} needed)"]
    assert not unmet([blind] + [lucky] * LOOKS)


def test_real_patients_without_true_maps_are_judged_by_area():
    assert not unmet([{"area_with_calcium": 0.86, "area_without_calcium": 0.86}] * LOOKS)


def test_a_map_moves_within_the_heart():
    maps = np.zeros((1, 224, 224), np.float32)
    maps[0, 112, 60:64] = 0.3
    heart = np.zeros(maps.shape, bool)
    heart[0, 90:130, 58:120] = True
    moved = moved_maps(maps, heart)
    assert moved[heart].sum() == pytest.approx(maps.sum())
    assert np.argmax(moved[0, 112]) - 60 == MOVED_PIXELS


@pytest.mark.long
class TestCheck:
    def test_any_brightness_is_no_place(self, parts):
        """A discriminator that counts HU rewards a map wherever it lies."""
        data = parts[1]
        check = DiscriminatorCheck(data, sample_slices(data, 6, 0), CROP, 3.0, "cpu")
        sign = {"with_calcium": 1, "without_calcium": -1}
        metrics = check.metrics(lambda name, images: sign[name] * images.sum((1, 2, 3)))
        for name in sign:
            assert (metrics[f"rewarded_{name}"], metrics[f"moved_{name}"]) == (1, 1)
            assert metrics[f"reward_{name}"] > 0
            assert (metrics[f"hazed_{name}"], metrics[f"haze_reward_{name}"] > 0) == (1, True)
        conditions = unmet([metrics] * LOOKS)
        assert all(any(words in condition for condition in conditions) for words in ("wrong place", "haze"))
        assert [warning.code for warning in check.warnings()] == ["discriminators-few-slices"]

    def test_calcium_in_its_place_is_seen(self, parts):
        """A discriminator that knows where calcium was removed tells the classes, and refuses moved maps."""
        data = parts[1]
        check = DiscriminatorCheck(data, sample_slices(data, 6, 0), CROP, 0.0, "cpu")
        true = (check.maps > 0.01).any(0, keepdim=True)

        def logits(name, images):
            highest = (images * true).amax((1, 2, 3))
            return highest if name == "with_calcium" else -highest

        metrics = check.metrics(logits)
        assert min(metrics["area_with_calcium"], metrics["rewarded_without_calcium"]) > 0.5
        assert metrics["area_with_calcium"] == pytest.approx(metrics["area_without_calcium"])

    def test_without_true_maps_there_is_an_area_alone(self, parts):
        blind = SliceDataset(
            [replace(scan, maps=scan.maps * 0, map_row=scan.map_row * 0 - 1, has_map=False) for scan in parts[1].scans]
        )
        check = DiscriminatorCheck(blind, sample_slices(blind, 6, 0), CROP, 0.0, "cpu")
        metrics = check.metrics(lambda name, images: images.mean((1, 2, 3)))
        assert metrics.keys() == {"area_with_calcium", "area_without_calcium"}


@pytest.mark.long
def test_generators_do_not_begin_against_blind_discriminators(parts, tmp_path):
    task = CycleTask(SETTINGS, *parts)
    before = [p.clone() for p in task.modules["remove"].parameters()]
    with pytest.raises(DataError, match=r"(?s)After 4 steps .* held-out .*more patients .*--resume"):
        train(task, SETTINGS.loop, tmp_path, Progress(), "cpu")
    assert all(torch.equal(a, b) for a, b in zip(before, task.modules["remove"].parameters(), strict=True))
    with pytest.raises(DataError, match=r"(?s)After 8 steps .*more steps"):
        train(CycleTask(SETTINGS, *parts), SETTINGS.loop, tmp_path, Progress(), "cpu", resume=True)
    with pytest.raises(DataError, match="After 8 steps"):
        train(CycleTask(SETTINGS, *parts), SETTINGS.loop, tmp_path, Progress(), "cpu", resume=True)
    curve = validations(tmp_path)
    assert len(curve) == 4
    assert all("reward_with_calcium" in line and "auc" not in line for line in curve)


@pytest.mark.long
def test_generators_that_could_begin_at_the_last_step_make_no_map(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(cyclegan, "unmet", lambda metrics: [])
    loop = replace(SETTINGS.loop, steps=2)
    for resume in (False, True):
        with pytest.raises(DataError, match=r"only after all 2 steps.*more steps"):
            train(CycleTask(replace(SETTINGS, loop=loop), *parts), loop, tmp_path, Progress(), "cpu", resume=resume)


@pytest.mark.long
def test_generators_begin_at_the_first_validation_that_shows_calcium(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(cyclegan, "unmet", lambda metrics: [])
    task = CycleTask(SETTINGS, *parts)
    train(task, replace(SETTINGS.loop, steps=4), tmp_path, Progress(), "cpu")
    assert task.began == 2 < SETTINGS.warmup_steps


@pytest.mark.long
def test_generators_can_begin_without_the_gate_whose_conditions_are_measured_alike(parts, tmp_path):
    settings = replace(SETTINGS, needs_discriminators=False)
    task = CycleTask(settings, *parts)
    train(task, settings.loop, tmp_path, Progress(), "cpu")
    assert task.began == settings.warmup_steps
    assert all("reward_with_calcium" in line for line in validations(tmp_path))


@pytest.mark.long
def test_generators_begin_once_discriminators_see_calcium(cohort, cache, tmp_path, monkeypatch):
    """The state is kept in the checkpoint, and the model is evaluated as published."""
    options = RunOptions((cohort,), tmp_path / "map", preset="compact-discriminators-first", device="cpu")
    with pytest.raises(DataError):
        train_decomposition.train(options, SETTINGS, Progress())
    monkeypatch.setattr(cyclegan, "unmet", lambda metrics: [])
    path = train_decomposition.train(replace(options, resume=True), SETTINGS, Progress())
    card = models.verify_model(path)
    assert {"f1", "floor_hu"} <= card.validation["as_published"].keys()
    assert card.training.settings["best_step"] == 8, "the first validation of the map"
    assert "area_with_calcium" in validations(options.folder)[-1]
    lines = read_table(tmp_path / "map.published.csv").lines
    assert [line.text("method") for line in lines] == ["model"] * 4 + ["map-labels"] * 4 + [READER]
    assert [float(line.text("floor_hu")) for line in lines[:4]] == list(FLOORS_HU)
    assert lines[0].text("preset") == options.preset
    assert '"warmup_steps": 4' in lines[0].text("settings")
    assert (lines[-1].text("sensitivity"), lines[-1].text("false_positive_rate")) == ("1.0", "0.0")
    limit = operating_point(models.find_model("slices").card, PUBLISHED).threshold
    assert {float(line.text("slice_limit")) for line in lines[:-1]} == {limit}


def true_maps(network, config, data, slices, rule):
    """The true maps above a haze of 30 HU."""
    maps = data.true_map(slices)[:, 0] if len(slices) else np.zeros((0, *data.scans[0].slices.heart.shape[1:]))
    return maps * MAP_HU + 30


@pytest.mark.parametrize("limit", [0.5, 1.1])
def test_a_map_is_evaluated_at_the_limit_that_its_row_states(parts, tmp_path, monkeypatch, limit):
    """Without a slice that the classifier calls positive at the published limit, the map is empty."""
    data = parts[1]
    probabilities = np.where(data.visible, 0.8, 0.3)
    monkeypatch.setattr(
        published_evaluation, "calcium_probabilities", lambda network, config, data, slices: probabilities[slices]
    )
    monkeypatch.setattr(published_evaluation, "predicted_maps", true_maps)
    original = models.find_model

    def with_limit(network, name=None):
        model = original(network, name)
        point = {"threshold": limit, "sensitivity": 1.0, "false_positive_rate": 0.0}
        card = replace(model.card, validation={OPERATING_POINTS: {PUBLISHED: point}})
        return replace(model, card=card) if network == "slices" else model

    def loaded(path, device):
        card = with_limit("slices").card if path == original("slices").path else models.read_card(path)
        return models.LoadedModel(card, None)

    monkeypatch.setattr(published_evaluation, "load_model", loaded)
    model = loaded(original("decomposition", "map-labels").path, "cpu")
    write_as_published(tmp_path / "t.csv", model, data, "cpu", {"preset": "p"})
    rows = [line for line in read_table(tmp_path / "t.csv").lines if line.text("method") == "model"]
    is_empty = limit > 1
    for row in rows:
        assert float(row.text("slice_limit")) == limit
        assert row.text("classifier") == original("slices").card.sha256
        assert float(row.text("sensitivity")) == (not is_empty)
        assert float(row.text("false_positive_rate")) == 0
    assert (rows[0].text("slice_correlation") == "") == is_empty
    if not is_empty:
        assert float(rows[0].text("precision_visible")) == pytest.approx(float(rows[0].text("precision")))


def test_difference_of_pairs():
    """The mean over patients whose two scans are both positive."""
    assert pair_difference(np.array([3.0, 1, 2, 2, 5, 0, 7]), ["a", "a", "b", "b", "c", "c", "d"]) == pytest.approx(0.5)
    assert pair_difference(np.array([3.0, 0]), ["a", "a"]) == ""


def test_a_map_of_zero_can_come_back():
    z = torch.tensor([-20.0, -20.0, 0.0], requires_grad=True)
    y = LeakySigmoid.apply(z, 0.02)
    torch.testing.assert_close(y, torch.sigmoid(z))
    y.backward(torch.tensor([-1.0, 1.0, 1.0]))  # up, down, down
    assert z.grad.tolist() == pytest.approx([-0.02, 0.0, 0.25])
