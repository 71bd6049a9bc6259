"""Where on a view the network's answer comes from: SmoothGrad (Smilkov et al. 2017, arXiv:1706.03825).

It shows where a change of grey would change the answer most, not where calcium is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import torch

SAMPLES = 12
NOISE = 0.1
"""Of the noise added to each sample, relative to the standard deviation of grey within the square."""

SMOOTH_MM = 3.0
"""Standard deviation of the Gaussian that the maps are smoothed with: about the size of a plaque on a radiograph."""


def saliency(network: torch.nn.Module, views: np.ndarray, seed: int = 0) -> np.ndarray:
    """How much each pixel matters to each threshold's logit: float32 [views, thresholds, 432, 432], 0 to 1.

    network: a `RadiographNet` ready to run. views: as it is given, enhanced, [views, 432, 432]. Each map is the root
    mean square of the gradient over SAMPLES noisy copies, smoothed and scaled to its highest value; all 0 where the
    answer hangs on nothing. The heart's place is held fixed. Outside the square that the network reads it is 0.
    """
    import torch

    parameter = next(network.parameters())
    x = torch.from_numpy(np.ascontiguousarray(views, np.float32))[None].to(parameter)
    with torch.no_grad():
        centres = network.locate(x)
        sd = network.crop(x, centres).std((2, 3), keepdim=True)
    generator = torch.Generator().manual_seed(seed)
    total = None
    for _ in range(SAMPLES):
        noise = torch.randn(x.shape, generator=generator).to(x)
        noisy = (x + NOISE * sd * noise).requires_grad_()
        logits = network(network.crop(noisy, centres), crops=True)[0]
        gradients = torch.stack(
            [torch.autograd.grad(z, noisy, retain_graph=n + 1 < len(logits))[0][0] for n, z in enumerate(logits)]
        )
        total = gradients.square() if total is None else total + gradients.square()
    maps = total.div(SAMPLES).sqrt().transpose(0, 1).float().cpu().numpy()
    maps = ndimage.gaussian_filter(maps, (0, 0, SMOOTH_MM, SMOOTH_MM), mode="constant")
    highest = maps.max((2, 3), keepdims=True)
    return np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)
