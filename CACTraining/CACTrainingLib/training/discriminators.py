"""Losses and images of the CycleGAN's discriminators: real slices of one kind, and what they are told from.

In the warm-up these are real slices of the other kind; in the game synthetic ones, and with `anchored` both, so that
the discriminators do not forget which slices show calcium. Some of the real ones are disturbed: a discriminator that
takes haze or brightness for calcium rewards generators for them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from CACScoringLib.models.preprocessing import MAP_HU

DISCRIMINATORS = ("with_calcium", "without_calcium")

DISTURBANCE_HU = 20.0
"""Largest haze over the heart, and largest shift of all pixels."""

DISTURBANCE_GAIN = 0.1
"""Largest relative change of brightness."""


def realness_loss(logit: torch.Tensor) -> torch.Tensor:
    """Return −log of the probability that images are real; unlike log(1 − D), its gradient does not vanish."""
    return functional.softplus(-logit).mean()


def disturbed(
    images: torch.Tensor, heart: torch.Tensor, share: float, sign: float, generator: torch.Generator
) -> torch.Tensor:
    """Return images of which a share has a haze over the heart, a shift of all pixels or another brightness.

    Pixels clipped to 0 stay so, because they would betray any change without a look at the tissue.

    Args:
        images: [n, 1, j, i], 0 to 1 for MAP_HU.
        heart: True near the heart, bool [n, 1, j, i].
        share: Share of the images.
        sign: 1 to add, as a map does to a slice without calcium; −1 to take away.
        generator: Source of the draws, on the images' device.
    """

    def draw() -> torch.Tensor:
        return torch.rand((len(images), 1, 1, 1), generator=generator, device=images.device)

    is_disturbed, kind, amount = draw() < share, (3 * draw()).floor(), sign * draw()
    hu = amount * DISTURBANCE_HU / MAP_HU
    change = torch.where(kind == 0, hu * heart, torch.where(kind == 1, hu, amount * DISTURBANCE_GAIN * images))
    return torch.where(is_disturbed & (images > 0), (images + change).clamp(0, 1), images)


class ImagePools:
    """Earlier synthetic images of each discriminator, shown again (Shrivastava et al. 2017).

    Attributes:
        size: Images in each pool; 0 for none.
        images: Images by name of the discriminator.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: dict[str, list[torch.Tensor]] = {name: [] for name in DISCRIMINATORS}

    def exchange(self, name: str, images: torch.Tensor, choice: np.random.Generator) -> torch.Tensor:
        """Exchange half of the images for earlier ones, once the pool is full."""
        if not self.size:
            return images
        pool, mixture = self.images[name], []
        for image in images:
            if len(pool) < self.size:
                pool.append(image)
            elif choice.random() < 0.5:
                place = int(choice.integers(len(pool)))
                image, pool[place] = pool[place], image
            mixture.append(image)
        return torch.stack(mixture).contiguous(memory_format=torch.channels_last)
