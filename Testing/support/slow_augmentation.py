"""Apply the changes of batches with NumPy and SciPy to one sample after the other: the reference of batches."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator

from CACScoringLib.models.preprocessing import HIGH_HU, LOW_HU
from CACTrainingLib.data.augmentation import NOISE_SIGMA_PIXELS


def slices(hu, extra, changes, crop, maps):
    """Return what `augment_slices` returns, of arrays [n, C, j, i]."""
    c = {name: values.numpy().astype(float) for name, values in changes.items()}
    side, (j, i) = hu.shape[-1], np.mgrid[:crop, :crop]
    strength = np.zeros(len(hu))
    strength[changes["noisy"].numpy()] = c["noise"]
    inputs, warped_maps = [], []
    for n in range(len(hu)):
        x, y = (row[0] * j + row[1] * i + row[2] for row in c["matrices"][n])
        places = [((axis + 1) * side - 1) / 2 for axis in (y, x)]
        image = np.stack([ndimage.map_coordinates(a, places, order=1, mode="nearest") for a in hu[n].astype(float)])
        image += strength[n] * (image - np.stack([blurred(a, NOISE_SIGMA_PIXELS) for a in image]))
        image = np.clip((image * c["gain"][n] + c["offset"][n] - LOW_HU) / (HIGH_HU - LOW_HU), 0, 1)
        place = [ndimage.map_coordinates(a, places, order=1, mode="nearest") for a in extra[n].astype(float)]
        place = np.stack(place) * c["place_scale"][n, :, None, None] + c["place_shift"][n, :, None, None]
        inputs.append(np.concatenate([image, place]))
        true = np.stack([ndimage.map_coordinates(a, places, order=1, mode="grid-constant") for a in maps[n]])
        true[:1] *= c["gain"][n]
        warped_maps.append(np.clip(true, 0, 1))
    return np.stack(inputs), np.stack(warped_maps)


def scanners(hu, batch):
    """Return what territories' patches look like on other scanners, of HU [n, k, j, i]."""
    c = {name: values.numpy().astype(float) for name, values in batch.items()}
    size, g = hu.shape[-1], generator(batch["seed"])
    noise, streaks = (torch.randn(shape, generator=g).numpy() for shape in (hu.shape, (*hu.shape[:3], 1)))
    results = []
    for n, values in enumerate(hu.astype(float)):
        values = values + field(c["tissue"][n, 0], size) * np.clip((values + 20) / 40, 0, 1)
        if (operator := of_sample(batch, "thick", n)) is not None:
            values = np.einsum("sk,kji->sji", operator, values)
        if (kernel := of_sample(batch, "blur", n)) is not None:
            values = values + of_sample(batch, "detail", n) * (values - filtered(values, kernel))
        values = values + field(c["shade"][n, 0], size) + c["noise"][n] * noise[n] + c["streaks"][n] * streaks[n]
        results.append((values + 1024) * c["gain"][n] + c["offset"][n])
    return np.stack(results)


def field(knots, size):
    """Interpolate a cube of values at knots."""
    axis = np.linspace(0, len(knots) - 1, size)
    places = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    return RegularGridInterpolator((np.arange(len(knots)),) * 3, knots)(places)


def blurred(image, sigma):
    offsets = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    return filtered(image, kernel / kernel.sum())


def filtered(image, kernel):
    """Filter along the last two axes."""
    return ndimage.correlate1d(ndimage.correlate1d(image, kernel, -1, mode="mirror"), kernel, -2, mode="mirror")


def of_sample(batch, name, n):
    """Return a sample's change, or None if it has none."""
    numbers = batch[f"{name}_at"].tolist() if name in batch else []
    return np.asarray(batch[name][numbers.index(n)].numpy(), float) if n in numbers else None


def generator(seed):
    return torch.Generator().manual_seed(int(seed))
