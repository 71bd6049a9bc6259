"""Test what discriminators tell real slices from, and their losses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from CACScoringLib.models.preprocessing import MAP_HU
from CACScoringLib.networks.configs import DiscriminatorConfig, build
from CACTrainingLib.data.augmentation import SliceAugmentation
from CACTrainingLib.training.cyclegan import CycleTask
from CACTrainingLib.training.decomposition import PRESETS
from CACTrainingLib.training.discriminators import DISCRIMINATORS, DISTURBANCE_HU, ImagePools, disturbed

SETTINGS = replace(
    PRESETS["compact-discriminators-first"],
    batch_size=4,
    augmentation=SliceAugmentation(crop=64),
    needs_discriminators=False,
    warmup_steps=0,
    validation_slices=4,
)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_disturbances_go_one_way(sign):
    images = torch.full((300, 1, 8, 8), 0.2)
    images[..., 3, 3] = 0  # clipped
    heart = torch.zeros(images.shape, dtype=torch.bool)
    heart[..., 2:6, 2:6] = True
    change = disturbed(images, heart, 0.6, sign, torch.Generator().manual_seed(0)) - images
    assert (sign * change >= 0).all()
    assert not change[..., 3, 3].any()
    assert sign * change.sum((1, 2, 3)).sum() > 0
    assert change.abs().max() <= DISTURBANCE_HU / MAP_HU + 1e-6
    is_disturbed = (change != 0).any(3).any(2).any(1)
    assert is_disturbed.float().mean() == pytest.approx(0.6, abs=0.1)
    is_haze = is_disturbed & (change[:, 0, 0, 0] == 0)
    assert is_haze.float().mean() == pytest.approx(0.2, abs=0.1)


def test_nothing_is_disturbed_without_a_share():
    images = torch.rand(5, 1, 8, 8)
    heart = torch.ones(images.shape, dtype=torch.bool)
    assert torch.equal(disturbed(images, heart, 0.0, 1.0, torch.Generator()), images)


def test_a_full_pool_shows_earlier_images():
    pools, choice = ImagePools(3), np.random.default_rng(0)
    first = torch.arange(3.0)[:, None, None, None]
    assert torch.equal(pools.exchange("with_calcium", first, choice), first)
    later = pools.exchange("with_calcium", first + 10, choice)
    assert 0 < (later < 10).sum() < 3
    assert len(pools.images["with_calcium"]) == 3
    assert torch.equal(ImagePools(0).exchange("with_calcium", first, choice), first)


def test_every_patch_has_a_logit():
    network = build(DiscriminatorConfig(width=2)).eval()
    x = torch.rand(3, 1, 224, 224)
    with torch.no_grad():
        by_patch = network(x, by_patch=True)
        assert by_patch.shape == (3, 26 * 26)
        torch.testing.assert_close(by_patch.mean(1), network(x))


@pytest.mark.long
@pytest.mark.parametrize("anchored", [False, True])
def test_anchored_discriminators_see_real_slices_of_the_other_kind(parts, monkeypatch, anchored):
    task = CycleTask(replace(SETTINGS, anchored=anchored, disturbed_share=0.5), *parts)
    images_of = {}
    original = task._teach_discriminators

    def teach(images, *more):
        images_of.update(images)
        return original(images, *more)

    monkeypatch.setattr(task, "_teach_discriminators", teach)
    batch = task.augment(task.batch(np.random.default_rng(0)))
    values = task.step(batch, Fabric(accelerator="cpu"), 0)
    assert torch.isfinite(values["discriminators"])
    for name in DISCRIMINATORS:
        real = batch["x"][batch["visible"] == (name == "with_calcium"), :1]
        assert torch.equal(images_of[name][0], real), "real slices of its kind are never disturbed"
        assert len(images_of[name]) == 2 + anchored
        if anchored:
            assert images_of[name][2].shape == batch["x"][batch["visible"] != (name == "with_calcium"), :1].shape


@pytest.mark.long
def test_a_loss_of_every_patch_teaches_all_four_networks(parts):
    task = CycleTask(replace(SETTINGS, patch_loss=True), *parts)
    before = {name: [p.clone() for p in module.parameters()] for name, module in task.modules.items()}
    values = task.step(task.augment(task.batch(np.random.default_rng(0))), Fabric(accelerator="cpu"), 0)
    assert torch.isfinite(values["adversarial"])
    for name, module in task.modules.items():
        assert any(not torch.equal(a, b) for a, b in zip(before[name], module.parameters(), strict=True)), name
