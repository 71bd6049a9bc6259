"""Voxels of a SimpleITK image as a NumPy array that is safe to keep."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk


class _Buffer:
    """Array interface of an image's buffer, which NumPy arrays keep alive."""

    def __init__(self, image: sitk.Image) -> None:
        self.__array_interface__ = sitk.GetArrayViewFromImage(image).__array_interface__
        # SimpleITK gives an image that shares its buffer a new one at the next view. The copy is never viewed, so the
        # buffer of this view stays as it is as long as the array does.
        self.image = sitk.Image(image)


def voxels_of(image: sitk.Image) -> np.ndarray:
    """Return a read-only array [k, j, i] of an image's voxels, valid whatever happens to the image.

    `sitk.GetArrayViewFromImage` shows freed memory once the image is viewed again after any shallow copy, which many
    filters make. While the array is held, a further array of the same image is a copy.
    """
    return np.asarray(_Buffer(image))
