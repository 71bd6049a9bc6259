"""Slice labels are told by the map's highest pixels near the heart, and drawn spots are where and what they say."""

import numpy as np
import pytest
import torch

from CACScoringLib.models.preprocessing import MAP_HU
from CACTrainingLib.data.slice_batches import HEART_MARGIN_PIXELS, near_heart
from CACTrainingLib.training.weak_labels import (
    HIGHEST_PIXELS,
    MOST_IN_NEIGHBOUR,
    SPOT_HU,
    add_spots,
    draw_spots,
    label_loss,
    map_loss,
)


def disc(radius, n=2, side=64):
    inside = np.hypot(*(np.mgrid[:side, :side] - side / 2)) < radius
    return torch.from_numpy(inside)[None, None].repeat(n, 1, 1, 1)


class TestLabels:
    def lesion(self, hu, place=(32, 32)):
        p = torch.full((1, 1, 64, 64), 1e-4)
        p[0, 0, place[0] : place[0] + 2, place[1] : place[1] + 3] = hu / MAP_HU
        return torch.logit(p)

    def test_a_lesion_in_the_map_says_calcium(self):
        near, yes, no = disc(20, 1), torch.tensor([True]), torch.tensor([False])
        shown, empty = self.lesion(200), self.lesion(0.1)
        assert label_loss(shown, near, yes) < 0.35 < label_loss(empty, near, yes)
        assert label_loss(empty, near, no) < 0.05 < label_loss(shown, near, no)

    @pytest.mark.parametrize(("hu", "teaches"), [(100, True), (200, False)])
    def test_what_shows_enough_is_not_asked_to_show_more(self, hu, teaches):
        logits = self.lesion(hu).requires_grad_()
        label_loss(logits, disc(20, 1), torch.tensor([True])).backward()
        assert logits.grad.any() == teaches
        label_loss(logits, disc(20, 1), torch.tensor([False])).backward()
        assert logits.grad.max() > 0  # but to show less, where there is none

    def test_it_teaches_the_highest_pixels_of_both_kinds(self):
        logits = (torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)) - 6).requires_grad_()
        label_loss(logits, disc(20), torch.tensor([True, False])).backward()
        for own, sign in zip(logits.grad, (-1, 1), strict=True):
            assert int((own != 0).sum()) == HIGHEST_PIXELS
            assert (own[own != 0].sign() == sign).all()


class TestSpots:
    def test_they_lie_near_the_heart_and_are_as_dense_as_said(self):
        near = disc(12, 40)
        spots = draw_spots(near, np.random.default_rng(0))
        assert spots.shape == near.shape
        peaks = spots.amax((1, 2, 3)) * MAP_HU
        assert peaks.min() >= SPOT_HU[0] * 0.99
        assert peaks.max() <= 3 * SPOT_HU[1]
        inside = torch.where(near, spots, torch.zeros_like(spots)).sum() / spots.sum()
        assert inside > 0.8
        assert (spots > 0.1 * spots.amax((1, 2, 3), keepdim=True)).sum((1, 2, 3)).max() < 400

    def test_slices_with_spots(self):
        x = torch.full((3, 6, 32, 32), 0.1)
        spots = torch.zeros(3, 1, 32, 32)
        spots[:, :, 10, 10] = 0.3
        seen = add_spots(x, spots, 1, np.random.default_rng(0))
        assert torch.allclose(seen[:, 0, 10, 10], torch.tensor(0.4))
        beside = seen[:, 1:3, 10, 10] - 0.1
        assert (beside >= 0).all()
        assert (beside <= 0.3 * MOST_IN_NEIGHBOUR).all()
        assert len(beside.unique()) > 3
        assert torch.equal(seen[:, 3:], x[:, 3:])  # the position
        assert (seen != x).sum() <= 9
        spots[:] = 2.0
        assert add_spots(x, spots, 1, np.random.default_rng(0)).max() == 1  # the window ends there


class TestMapLoss:
    def test_the_true_map_is_best_and_off_the_heart_counts_less(self):
        near, known = disc(20, 1), torch.zeros(1, 1, 64, 64)
        known[0, 0, 30:33, 30:33] = 0.2
        perfect = map_loss(torch.logit(known.clamp(1e-5)), known, near)
        missed = map_loss(torch.full_like(known, -9.0), known, near)
        assert perfect < missed
        inside, outside = (torch.full_like(known, -9.0) for _ in range(2))
        inside[0, 0, 40, 40] = outside[0, 0, 2, 2] = 2.0
        empty = torch.zeros_like(known)
        assert map_loss(inside, empty, near) > 5 * map_loss(outside, empty, near)


def test_near_heart():
    heart = disc(12, 1).float()
    rows = near_heart(heart)[0, 0].any(1).nonzero()
    own = heart[0, 0].bool().any(1).nonzero()
    assert own.min() - rows.min() == HEART_MARGIN_PIXELS
    assert rows.max() - own.max() == HEART_MARGIN_PIXELS
