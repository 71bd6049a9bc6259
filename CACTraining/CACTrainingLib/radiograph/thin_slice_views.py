"""A finished cohort of radiographs once more, as if its CTs had had thinner slices about the heart.

Projecting is linear: to the radiograph of the whole CT is added what the box about the heart has more in thin slices
than in its own. Towards the box's borders the difference is faded to nothing, so that no edge shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.cohort.workers import Workers
from CACScoringLib.core.ct import CTError
from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.core.output import OutputError
from CACScoringLib.core.progress import Progress
from CACScoringLib.drr.projection import water_equivalent_mm
from CACScoringLib.models.cards import LoadedModel

from .cases import CASES, HeartBox, add_thin_slices, has_thin_slices, read_box, read_case
from .super_resolution import interpolated, learned, super_resolution_model
from .thin_slices import FACTOR

SETTINGS = "sharpening.json"
SCHEMA = "cac-sharpening/1"
FADE_MM = 9.0
"""Within this of the box's border its difference fades; `cohort.BOX_MARGIN_MM` leaves more about the heart."""

_AIR_HU = -1000.0


def add_thin_slice_views(
    folder: Path, workers: int = 1, model: str | None = None, progress: Progress | None = None
) -> tuple[int, dict[str, str]]:
    """Add the sharpened radiographs to every case of a cohort that has a box about the heart.

    Called again after an interruption, it goes on. model: of the network "super_resolution", by name; None is the one
    that comes with CAC. Returns how many cases have them now, and why others do not, by name.
    Raises CTError when the folder holds no cases, OutputError when they were sharpened by another model.
    """
    progress = progress or Progress()
    files = sorted((folder / CASES).glob("*.npz"))
    files = [file for file in files if not file.name.startswith(".")]
    if not files:
        raise CTError(f"{folder} holds no radiographs in {CASES}. Make them first, with cac radiographs digital.")
    if workers < 1:
        raise OutputError(f"At least one worker is needed, not {workers}.")
    card = super_resolution_model(FACTOR, name=model).card
    _check_settings(folder, {"model": card.name, "sha256": card.sha256, "factor": FACTOR, "fade_mm": FADE_MM})
    failed: dict[str, str] = {}
    done = 0
    with (
        Workers(min(workers, len(files)), partial(_prepare, model)) as pool,
        closing(pool.run(files)) as events,
    ):
        for event in events:
            if event.state == "begun":
                continue
            if event.state == "lost":
                failed[files[event.index].stem] = event.reason
            elif event.result is not None:
                failed[files[event.index].stem] = event.result
            else:
                done += 1
            progress.counted(done + len(failed), len(files))
    return done, failed


def _prepare(model: str | None) -> Callable[[Path], str | None]:
    import torch

    # All cores are at work already, so each worker keeps to one.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    torch.set_num_threads(1)
    return partial(_add_thin, super_resolution_model(FACTOR, name=model))


def _add_thin(model: LoadedModel, path: Path) -> str | None:
    """Sharpen one case; returns why that was not possible."""
    try:
        if has_thin_slices(path):
            return None
        box = read_box(path)
        if box is None:
            return "It was made without the box around the heart."
        bodies = {name: view.body for name, view in read_case(path).items()}
        thin = {"interpolated": interpolated(box.hu, FACTOR), "learned": learned(box.hu, model)}
        add_thin_slices(path, thin_slice_bodies(bodies, box, thin))
    except CTError as error:
        return str(error)
    except OSError as error:
        return f"It cannot be written ({error.strerror})."
    return None


def thin_slice_bodies(
    bodies: dict[str, np.ndarray], box: HeartBox, thin: dict[str, np.ndarray]
) -> dict[tuple[str, str], np.ndarray]:
    """Radiographs of the CT with thin slices in the box, mm of water, by view and way.

    bodies: of the CT as it is, by view. thin: HU [n k, j, i] by way, n odd slices in each of the box's own.
    """
    found = {}
    for view, body in bodies.items():
        before = water_equivalent_mm(_faded(as_projected(box.hu, _factor(box, thin)), box), box.geometries[view])
        for method, hu in thin.items():
            found[view, method] = body + water_equivalent_mm(_faded(hu, box), box.geometries[view]) - before
    return found


def as_projected(hu: np.ndarray, factor: int) -> np.ndarray:
    """Thick slices as the projector sees them, on thin ones: linear in between, float32 [factor k, j, i].

    factor: odd, so that the middle of each thick slice is one of a thin one. Beyond the end slices they are repeated.
    """
    place = np.clip((np.arange(factor * len(hu)) - (factor - 1) / 2) / factor, 0, len(hu) - 1)
    below = np.minimum(place.astype(int), len(hu) - 2)
    part = (place - below).astype(np.float32)[:, None, None]
    return hu[below] * (1 - part) + hu[below + 1] * part


def fade(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Weights from 0 at the border of a volume [k, j, i] to 1 from FADE_MM on, float32. spacing_mm: x, y, z."""
    ramps = []
    for n, spacing in zip(shape, spacing_mm[::-1], strict=True):
        from_border = (np.minimum(np.arange(n), np.arange(n)[::-1])) * spacing
        ramps.append(np.clip(from_border / FADE_MM, 0, 1).astype(np.float32))
    return ramps[0][:, None, None] * ramps[1][:, None] * ramps[2]


def _faded(thin: np.ndarray, box: HeartBox) -> sitk.Image:
    """Thin slices in place of a box, faded to air towards its borders."""
    factor = len(thin) // len(box.hu)
    step = box.spacing_mm[2] / factor
    spacing = (*box.spacing_mm[:2], step)
    dense = np.maximum(thin, np.float32(_AIR_HU)) - np.float32(_AIR_HU)
    image = sitk.GetImageFromArray(dense * fade(thin.shape, spacing) + np.float32(_AIR_HU))
    image.SetSpacing(spacing)
    image.SetOrigin((*box.origin_mm[:2], box.origin_mm[2] - step * (factor - 1) / 2))
    return image


def _factor(box: HeartBox, thin: dict[str, np.ndarray]) -> int:
    factor = len(next(iter(thin.values()))) // len(box.hu)
    if factor % 2 == 0 or any(len(hu) != factor * len(box.hu) for hu in thin.values()):
        raise ValueError("Each slice of the box becomes the same odd number of thin ones.")
    return factor


def _check_settings(folder: Path, settings: dict) -> None:
    path = folder / SETTINGS
    wanted = {"schema": SCHEMA, **settings}
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"{path} cannot be read ({error}). Remove it, and make the radiographs anew.") from error
        if found != wanted:
            raise OutputError(
                f"{folder} holds super-resolution with other settings ({path}). Work on a copy of the radiographs."
            )
        return
    write_text_atomically(path, json.dumps(wanted, indent=1) + "\n")
