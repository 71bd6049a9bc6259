"""What the `scores.json` of a run says of the scan that a review begins with."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import SimpleITK as sitk

from ..core.ct import Acquisition, CTScan, UnreadableError, same_grid, scan_from_image
from ..core.grid import Grid
from ..whole_scan.estimates import WholeScanEstimate, estimates_from_json


def acquisition_of_record(record: dict) -> Acquisition:
    """The facts about a scan that a run has recorded."""
    known = {field.name for field in fields(Acquisition)}
    return Acquisition(**{name: value for name, value in record["acquisition"].items() if name in known})


def scan_of_record(own: sitk.Image, record: dict, name: str) -> CTScan:
    """The scan that a run has scored. own: its image. name: for messages. Raises UnreadableError when it is another."""
    scan = scan_from_image(own, acquisition_of_record(record))
    size, spacing = record["input"]["size"], record["input"]["spacing_mm"]
    if list(scan.image.GetSize()) != size or not np.allclose(scan.image.GetSpacing(), spacing, rtol=1e-5, atol=0):
        raise UnreadableError(f"{name} is not the scan that was scored: its size or spacing differs. Score it again.")
    # A file may round the spacing, and scores are to be those of the run to the last digit.
    scan.image.SetSpacing(spacing)
    return scan


def whole_map(calcium_map: sitk.Image, image: sitk.Image, name: str) -> sitk.Image:
    """A calcium map, HU, kept on a part of the scan's grid or on all of it, on the whole.

    image: on the scan's grid. name: for messages. Raises UnreadableError where it does not lie on the scan's voxels.
    """
    part = Grid.of(image).box(calcium_map)
    within = all(own.start >= 0 and own.stop <= n for own, n in zip(part, image.GetSize(), strict=True))
    if not within or not same_grid(calcium_map, image[part]):
        raise UnreadableError(f"{name} does not lie on the CT's voxels. Score the scan again.")
    return Grid.of(image).paste(calcium_map)


def estimates_of_record(record: dict) -> tuple[WholeScanEstimate, ...]:
    """The whole-scan estimates of a run. Raises UnreadableError when they cannot be read."""
    try:
        return estimates_from_json(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableError(
            f"The whole-scan estimates of the record cannot be read ({error!r}). Score again."
        ) from error
