"""Test the losses on slice labels and on drawn spots."""

import numpy as np
import pytest
import torch

from CACScoringLib.models.preprocessing import MAP_HU
from CACTrainingLib.data.slice_batches import HEART_MARGIN_PIXELS, near_heart
from CACTrainingLib.training import weak_labels


def disc(radius, n=2, side=64):
    inside = np.hypot(*(np.mgrid[:side, :side] - side / 2)) < radius
    return torch.from_numpy(inside)[None, None].repeat(n, 1, 1, 1)


class TestLabels:
    def lesion(self, hu, place=(32, 32)):
        p = torch.full((1, 1, 64, 64), 1e-4)
        p[0, 0, place[0] : place[0] + 2, place[1] : place[1] + 3] = hu / MAP_HU
        return torch.logit(p)

    def test_a_lesion_in_the_map_predicts_calcium(self):
        near_heart, yes, no = disc(20, 1), torch.tensor([True]), torch.tensor([False])
        visible, empty = self.lesion(200), self.lesion(0.1)
        assert weak_labels.label_loss(visible, near_heart, yes) < 0.35 < weak_labels.label_loss(empty, near_heart, yes)
        assert weak_labels.label_loss(empty, near_heart, no) < 0.05 < weak_labels.label_loss(visible, near_heart, no)

    @pytest.mark.parametrize(("hu", "teaches"), [(100, True), (200, False)])
    def test_a_clearly_visible_lesion_adds_no_loss(self, hu, teaches):
        logits = self.lesion(hu).requires_grad_()
        weak_labels.label_loss(logits, disc(20, 1), torch.tensor([True])).backward()
        assert logits.grad.any() == teaches
        weak_labels.label_loss(logits, disc(20, 1), torch.tensor([False])).backward()
        assert logits.grad.max() > 0  # a slice without calcium teaches to lower it

    def test_labels_teach_the_highest_pixels_of_both_kinds(self):
        logits = (torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)) - 6).requires_grad_()
        weak_labels.label_loss(logits, disc(20), torch.tensor([True, False])).backward()
        for gradient, sign in zip(logits.grad, (-1, 1), strict=True):
            assert int((gradient != 0).sum()) == weak_labels.HIGHEST_PIXELS
            assert (gradient[gradient != 0].sign() == sign).all()


class TestSpots:
    def test_spots_lie_near_the_heart_with_limited_density(self):
        near_heart = disc(12, 40)
        spots = weak_labels.paint_spots(near_heart, weak_labels.draw_spots(40, 1, np.random.default_rng(0)))
        assert spots.shape == near_heart.shape
        peaks = spots.amax((1, 2, 3)) * MAP_HU
        assert peaks.min() >= weak_labels.SPOT_HU[0] * 0.99
        assert peaks.max() <= 3 * weak_labels.SPOT_HU[1]
        inside = torch.where(near_heart, spots, torch.zeros_like(spots)).sum() / spots.sum()
        assert inside > 0.8
        assert (spots > 0.1 * spots.amax((1, 2, 3), keepdim=True)).sum((1, 2, 3)).max() < 400

    def test_each_spot_is_the_sum_of_its_parts(self):
        near_heart = disc(9, 3)
        drawn = weak_labels.draw_spots(3, 1, np.random.default_rng(1))
        spots = weak_labels.paint_spots(near_heart, drawn)
        j, i = np.mgrid[:64, :64]
        for n in range(3):
            pixels = np.argwhere(near_heart[n, 0].numpy())
            expected = np.zeros((64, 64))
            for place, parts, peak in zip(
                *(drawn[f"spot_{name}"][n].numpy() for name in ("place", "parts", "peak")), strict=True
            ):
                y, x = pixels[int(place * len(pixels))]
                spot = sum(a * np.exp(s * ((j - y - d) ** 2 + (i - x - r) ** 2)) for d, r, s, a in parts)
                expected += peak * spot / spot.max()
            np.testing.assert_allclose(spots[n, 0].numpy(), expected, atol=1e-5)
        assert not weak_labels.paint_spots(torch.zeros_like(near_heart), drawn).any()

    def test_slices_with_spots(self):
        x = torch.full((3, 6, 32, 32), 0.1)
        spots = torch.zeros(3, 1, 32, 32)
        spots[:, :, 10, 10] = 0.3
        shares = weak_labels.draw_spots(3, 1, np.random.default_rng(0))["spot_shares"]
        slices = weak_labels.add_spots(x, spots, shares)
        assert torch.allclose(slices[:, 0, 10, 10], torch.tensor(0.4))
        in_neighbours = slices[:, 1:3, 10, 10] - 0.1
        assert (in_neighbours >= 0).all()
        assert (in_neighbours <= 0.3 * weak_labels.MAX_NEIGHBOUR_SHARE).all()
        assert len(in_neighbours.unique()) > 3
        assert torch.equal(slices[:, 3:], x[:, 3:])  # the position
        assert (slices != x).sum() <= 9
        spots[:] = 2.0
        assert weak_labels.add_spots(x, spots, shares).max() == 1  # the window ends there


class TestMapLoss:
    def test_the_true_map_is_best_and_off_the_heart_counts_less(self):
        near_heart, true_map = disc(20, 1), torch.zeros(1, 1, 64, 64)
        true_map[0, 0, 30:33, 30:33] = 0.2
        perfect = weak_labels.map_loss(torch.logit(true_map.clamp(1e-5)), true_map, near_heart)
        missed = weak_labels.map_loss(torch.full_like(true_map, -9.0), true_map, near_heart)
        assert perfect < missed
        inside, outside = (torch.full_like(true_map, -9.0) for _ in range(2))
        inside[0, 0, 40, 40] = outside[0, 0, 2, 2] = 2.0
        empty = torch.zeros_like(true_map)
        assert weak_labels.map_loss(inside, empty, near_heart) > 5 * weak_labels.map_loss(outside, empty, near_heart)


def test_lesions_teach_no_other_pixel():
    target = torch.zeros(1, 1, 64, 64)
    target[0, 0, 30:33, 30:33] = 0.2
    logits = torch.full_like(target, -3.0).requires_grad_()
    weak_labels.loss_in_lesions(logits, target).backward()
    assert torch.equal(logits.grad != 0, target > 0)
    assert (logits.grad[target > 0] < 0).all(), "the map is too low there"


def test_near_heart():
    heart = disc(12, 1).float()
    rows = near_heart(heart)[0, 0].any(1).nonzero()
    heart_rows = heart[0, 0].bool().any(1).nonzero()
    assert heart_rows.min() - rows.min() == HEART_MARGIN_PIXELS
    assert rows.max() - heart_rows.max() == HEART_MARGIN_PIXELS
