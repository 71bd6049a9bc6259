"""Training of the heart's finder, the small part of the network that looks at whole views."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from CACScoringLib.networks.radiograph import REDUCTION, RadiographNet

from .dataset import RadiographSet
from .task import located

BATCH = 16
_MOVED = 8
"""Reduced pixels by which views are moved at most, so that it is the heart that is learned and not the picture's
middle."""


def train_finder(network: RadiographNet, data: RadiographSet, cases: np.ndarray, steps: int, seed: int) -> int:
    """Train a network's finder in place on those of the cases whose heart is known; returns how many they are.

    Without any, or without steps, the finder stays as it is. What is lost is the distance in each direction, smoothed.
    """
    cases = cases[data.known[cases]]
    if not len(cases) or not steps:
        return len(cases)
    generator = np.random.default_rng([seed, 9])
    channels = data.channels(network.config.views)
    device = next(network.parameters()).device
    finder = network.finder.train()
    optimizer = torch.optim.AdamW(finder.parameters(), 3e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - 0.95 * step / steps)
        drawn = generator.choice(cases, BATCH)
        views = data.reduced[drawn][:, channels].reshape(-1, *data.reduced.shape[2:]).astype(np.float32) / 65535
        centres = data.centres[drawn][:, channels].reshape(-1, 2).copy()
        moved = generator.integers(-_MOVED, _MOVED + 1, 2)
        views = np.clip(views, 0, 1) ** np.float32(np.exp(generator.normal(0, 0.2)))
        views = _shifted(views, moved)
        found = finder(torch.from_numpy(views[:, None]).to(device))
        loss = functional.smooth_l1_loss(found, torch.from_numpy(centres + REDUCTION * moved).float().to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    finder.eval()
    return len(cases)


def finder_error_mm(network: RadiographNet, data: RadiographSet, cases: np.ndarray) -> float | None:
    """Median distance of the centres found from those known; None where none is known."""
    cases = cases[data.known[cases]]
    if not len(cases):
        return None
    network.eval()
    true = data.centres[cases][:, data.channels(network.config.views)]
    return float(np.median(np.linalg.norm(located(network, data, cases).numpy() - true, axis=2)))


def _shifted(views: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Views moved by whole pixels (rows, columns); their border goes on."""
    padded = np.pad(views, ((0, 0), (_MOVED, _MOVED), (_MOVED, _MOVED)), "edge")
    row, column = _MOVED - moved
    return np.ascontiguousarray(padded[:, row : row + views.shape[1], column : column + views.shape[2]])
