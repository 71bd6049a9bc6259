"""Radiographs of tensors, differentiable with respect to the volume and the pose, on any device.

The rays and the rules between voxels are those of `drr.planes`. Memory stays bounded: some planes and rows are
projected at a time, and computed again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import SimpleITK as sitk
import torch
from torch.nn.functional import grid_sample
from torch.utils.checkpoint import checkpoint

from .geometry import Geometry, Pose, ProjectionError, index_from_world, main_axis, pose_of

PLANES_AT_ONCE = 4
RAYS_AT_ONCE = 2**18
"""Of all images of a batch: what they need at a time stays well below 100 MB."""


class Projector(torch.nn.Module):
    """Projects volumes on the grid of a CT, in one geometry, which may be moved.

    image: gives the grid alone (size, spacing, origin, direction); axes in LPS order.
    """

    def __init__(self, image: sitk.Image, geometry: Geometry) -> None:
        super().__init__()
        pose = pose_of(geometry, image)
        matrix, offset = index_from_world(image)
        self.geometry, self.parallel = geometry, pose.parallel
        self.size = image.GetSize()
        self.main = main_axis(pose, matrix, geometry.pixels)
        self._check(pose, matrix, offset)
        held = {"matrix": matrix, "offset": offset, "source": pose.source, "corner": pose.corner}
        held |= {"column_step": pose.column_step, "row_step": pose.row_step, "spacing": np.array(image.GetSpacing())}
        centre = geometry.isocentre_mm or image.TransformContinuousIndexToPhysicalPoint(
            [(n - 1) / 2 for n in image.GetSize()]
        )
        for name, value in (held | {"centre": np.array(centre)}).items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    def forward(
        self,
        volumes: torch.Tensor,
        rotations: torch.Tensor | None = None,
        shifts_mm: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """∫ ds of each volume, [B, row, column], in mm times the volumes' unit (attenuation per mm, for example).

        With one volume and several poses, or several volumes and one pose, the one is used for all.

        Args:
            volumes: [B, k, j, i].
            rotations: [B, 3] radians about the LPS axes (as a vector along the axis), by which source and detector turn
                together about the isocentre.
            shifts_mm: [B, 3], LPS, by which they then move.
        """
        if volumes.ndim != 4 or tuple(volumes.shape[1:]) != self.size[::-1]:
            raise ProjectionError(
                f"The volumes are {tuple(volumes.shape)}; [B, {', '.join(map(str, self.size[::-1]))}] are needed."
            )
        poses = [pose for pose in (rotations, shifts_mm) if pose is not None]
        batch = max(map(len, (volumes, *poses)))
        again = torch.is_grad_enabled() and any(t.requires_grad for t in (volumes, *poses))
        axis = 3 - self.main
        # A split's gradient is put together once; slices would each make a whole volume of zeros.
        split = [planes.movedim(axis, 1) for planes in volumes.split(PLANES_AT_ONCE, axis)]
        columns, rows = self.geometry.pixels
        band = max(1, RAYS_AT_ONCE // (columns * batch))
        images = []
        for begin in range(0, rows, band):
            place = (begin, min(begin + band, rows), volumes.new_empty(0))
            *tables, step_mm = _computed(again, self._tables, rotations, shifts_mm, *place)
            sums = (
                _computed(again, _some_planes, planes, index * PLANES_AT_ONCE, batch, *tables)
                for index, planes in enumerate(split)
            )
            images.append(sum(sums) * step_mm)
        return torch.cat(images, 1)

    def _tables(
        self,
        rotations: torch.Tensor | None,
        shifts_mm: torch.Tensor | None,
        begin: int,
        end: int,
        like: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """As of `Rays`, [B, row, column], of rows from `begin` to before `end`; in double precision until the end."""
        turn = torch.eye(3, dtype=torch.float64, device=like.device)[None]
        if rotations is not None:
            turn = torch.linalg.matrix_exp(_cross_product_matrices(rotations.double()))
        move = self.centre + (torch.zeros_like(self.centre)[None] if shifts_mm is None else shifts_mm.double())
        places = self._to_index((turn @ (self.corner - self.centre)) + move)
        steps = [turn @ step @ self.matrix.T for step in (self.column_step, self.row_step)]
        if self.parallel:
            source = turn @ self.source @ self.matrix.T
        else:
            source = self._to_index((turn @ (self.source - self.centre)) + move)
        columns = torch.arange(self.geometry.pixels[0], dtype=torch.float64, device=like.device)
        rows = torch.arange(begin, end, dtype=torch.float64, device=like.device)
        pixels = (
            places[:, None, None]
            + columns[None, None, :, None] * steps[0][:, None, None]
            + rows[None, :, None, None] * steps[1][:, None, None]
        )
        source = source[:, None, None].expand_as(pixels)
        run, start = (source, pixels) if self.parallel else (pixels - source, source)
        slopes = run / run[..., self.main, None]
        at_zero = start - start[..., self.main, None] * slopes
        first, second = (axis for axis in range(3) if axis != self.main)
        step_mm = (slopes * self.spacing).norm(dim=-1)
        tables = at_zero[..., first], slopes[..., first], at_zero[..., second], slopes[..., second], step_mm
        return tuple(table.to(like.dtype) for table in tables)

    def _to_index(self, position: torch.Tensor) -> torch.Tensor:
        return position @ self.matrix.T + self.offset

    def _check(self, pose: Pose, matrix: np.ndarray, offset: np.ndarray) -> None:
        if not pose.parallel:
            index = (matrix @ pose.source + offset)[self.main]
            if -0.5 < index < self.size[self.main] - 0.5:
                raise ProjectionError("The X-ray source lies inside the CT. Give a longer distance to the isocentre.")


def _cross_product_matrices(vectors: torch.Tensor) -> torch.Tensor:
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)


def _computed(again: bool, function: Callable, *arguments: object):
    """function(*arguments); again: nothing but the arguments is kept for the backward pass, which computes it anew."""
    if not again:
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def _some_planes(
    planes: torch.Tensor,
    begin: int,
    batch: int,
    first: torch.Tensor,
    first_slope: torch.Tensor,
    second: torch.Tensor,
    second_slope: torch.Tensor,
) -> torch.Tensor:
    """Sum of neighbouring planes, [B, n, second, first], from plane `begin` on, where rays meet them."""
    _, count, height, width = planes.shape
    n = torch.arange(begin, begin + count, dtype=planes.dtype, device=planes.device)[:, None, None]
    across = (first[:, None] + n * first_slope[:, None] + 0.5) * (2 / width) - 1
    down = (second[:, None] + n * second_slope[:, None] + 0.5) * (2 / height) - 1
    places = torch.stack([across, down], -1).expand(batch, -1, -1, -1, -1).flatten(0, 1)
    flat = planes.expand(batch, -1, -1, -1).reshape(batch * count, 1, height, width)
    values = grid_sample(flat, places, padding_mode="zeros", align_corners=False)
    return values.reshape(batch, count, *values.shape[-2:]).sum(1)
