"""Tell from held-out slices whether discriminators see calcium, before generators learn from them.

Generators learn from discriminators alone where calcium is. Discriminators that do not see lesions reward any change of
a slice, or none, and the map then holds noise, valves and haze (`docs/papers/van-velzen.md`). Not in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.warning_codes import run_check
from CACScoringLib.models.preprocessing import MAP_HU, SLICE_SIZE
from CACScoringLib.statistics.roc import area

from ..data.datasets import SliceDataset
from .decomposition_metrics import FLOOR_HU, SliceSample, sample_slices

LOOKS = 5
"""Validations in a row whose mean has to meet the conditions: single ones swing by .1 to .17 on 65 slices."""

GATE_SLICES = 400
"""Slices of each kind to measure on; with fewer there is a warning."""

MIN_AREA = 0.85
"""Lowest area under the curve of “calcium or not”."""

MIN_REWARDED = 0.8
"""Smallest share of slices in which the true map, added or taken away, raises the logit."""

MIN_REWARD = 0.2
"""Smallest mean rise of the logit by the true map: generators follow its gradient."""

MAX_MOVED = 0.5
"""Largest share of slices in which a moved map raises the logit: as many as by chance."""

MAX_HAZED = 0.5
"""Largest share of slices in which a haze over the heart raises the logit."""

MIN_REWARD_OVER_HAZE = 2.0
"""Smallest ratio of the mean rise by the true map to that by a haze."""

HAZE_HU = 10.0
"""Haze over the heart, which fresh generators find first where it is rewarded."""

MOVED_PIXELS = 25
"""Distance of a moved map from the true one, in pixels of 1 mm: more than a lesion's length, less than a heart's."""

IMAGES_AT_ONCE = 32

Logits = Callable[[str, torch.Tensor], torch.Tensor]
"""Function of a discriminator's name and images [n, 1, j, i]; returns the logits [n]."""


def gate_slices(data: SliceDataset, seed: int, known_maps: bool = True) -> SliceSample:
    """Draw GATE_SLICES with visible calcium, and as many without, half of them with other calcium where there are."""
    sample = sample_slices(data, GATE_SLICES, seed, known_maps)
    distractor = sample.distractor[: max(GATE_SLICES // 2, GATE_SLICES - len(sample.clean))]
    return replace(sample, distractor=distractor, clean=sample.clean[: GATE_SLICES - len(distractor)])


class DiscriminatorCheck:
    """Held-out slices on which both discriminators are measured.

    Slices with visible calcium and a true map make pairs: calcium is taken from the slice, or a map is added to what
    remains.

    Args:
        data: Slices of validation patients.
        sample: Slices to measure on.
        crop: Side of the image that discriminators see, in pixels.
        dither_hu: Noise on their input.
        device: Device of the training.
    """

    def __init__(
        self, data: SliceDataset, sample: SliceSample, crop: int, dither_hu: float, device: torch.device | str
    ) -> None:
        def images(slices: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(data.network_input(slices, 0, False, crop)).to(device)

        self.calcium = images(sample.visible)
        self.healthy = images(np.concatenate([sample.distractor, sample.clean]))
        mapped = sample.visible[data.has_map[sample.visible]]
        maps: np.ndarray = np.zeros((len(mapped), SLICE_SIZE, SLICE_SIZE), np.float32)
        moved, heart = maps, maps
        if len(mapped):
            maps, heart = data.true_map(mapped)[:, 0], data.heart(mapped)
            moved = moved_maps(maps, heart)
        edge = (maps.shape[-1] - crop) // 2
        middle = (slice(None), slice(edge, edge + crop), slice(edge, edge + crop))
        inside = maps[middle].max((1, 2), initial=0) > FLOOR_HU / MAP_HU
        self.maps, self.moved, self.haze = (
            torch.from_numpy(array[middle][inside, None].astype(np.float32)).to(device)
            for array in (maps, moved, heart * np.float32(HAZE_HU / MAP_HU))
        )
        self.mapped = images(mapped)[torch.from_numpy(inside)] if len(mapped) else self.maps
        count = max(len(self.calcium), len(self.healthy))
        noise = torch.randn((count, 1, crop, crop), generator=torch.Generator().manual_seed(count))
        self.noise = (noise * dither_hu / MAP_HU).to(device)

    def warnings(self) -> list[ScanWarning]:
        """Return the warning that there are too few slices to rely on."""
        return run_check("discriminators-few-slices", min(len(self.calcium), len(self.healthy)))

    def metrics(self, logits: Logits) -> dict[str, float]:
        """Return what discriminators see, by name and discriminator (`with_calcium`, `without_calcium`).

        - `area`: How well the logit tells slices with visible calcium from others.
        - `rewarded`: Share of slices in which it rises when the true map is added (with), or taken away (without).
        - `reward`: Mean rise then.
        - `moved`: Share in which it rises when a moved map is added or taken away instead.
        - `hazed`, `haze_reward`: Share and mean rise for a haze of HAZE_HU over the heart instead.

        All but the area only with true maps.
        """

        def answers(name: str, images: torch.Tensor) -> np.ndarray:
            images = images + self.noise[: len(images)]
            parts = [logits(name, part).float().cpu() for part in images.split(IMAGES_AT_ONCE)]
            return torch.cat(parts).numpy()

        metrics = {}
        for name, real, opposite in (
            ("with_calcium", self.calcium, self.healthy),
            ("without_calcium", self.healthy, self.calcium),
        ):
            values = np.concatenate([answers(name, real), answers(name, opposite)])
            metrics[f"area_{name}"] = area(values, np.arange(len(values)) < len(real))
        if not len(self.mapped):
            return metrics
        emptied = (self.mapped - self.maps).clamp(0, 1)
        changes = {
            "with_calcium": (emptied, self.mapped, emptied + self.moved, emptied + self.haze),
            "without_calcium": (self.mapped, emptied, self.mapped - self.moved, self.mapped - self.haze),
        }
        for name, images in changes.items():
            before, true, moved, hazy = (answers(name, image.clamp(0, 1)) for image in images)
            metrics[f"rewarded_{name}"] = float((true > before).mean())
            metrics[f"reward_{name}"] = float((true - before).mean())
            metrics[f"moved_{name}"] = float((moved > before).mean())
            metrics[f"hazed_{name}"] = float((hazy > before).mean())
            metrics[f"haze_reward_{name}"] = float((hazy - before).mean())
        return metrics


def moved_maps(maps: np.ndarray, heart: np.ndarray) -> np.ndarray:
    """Return maps [n, j, i] moved by MOVED_PIXELS to the side where most of each lies in the heart, bool [n, j, i]."""
    angles = np.arange(8) * np.pi / 4
    moves = np.rint(MOVED_PIXELS * np.stack([np.sin(angles), np.cos(angles)], 1)).astype(int)
    moved = np.empty_like(maps)
    for n, (calcium, inside) in enumerate(zip(maps, heart, strict=True)):
        places = [np.roll(calcium, move, (0, 1)) for move in moves]
        moved[n] = places[int(np.argmax([(np.maximum(place, 0) * inside).sum() for place in places]))]
    return moved


def unmet(looks: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the conditions that the discriminators do not meet, in words; empty if they see calcium.

    looks: Metrics of their validations so far; the means of the last LOOKS count.
    """
    last = looks[-LOOKS:]
    names = last[-1].keys() if last else ()
    means = {name: float(np.mean([look[name] for look in last])) for name in names}

    def values(name: str) -> list[float]:
        return [value for key, value in means.items() if key.startswith(f"{name}_with")]

    conditions = []
    if len(last) < LOOKS:
        conditions.append(f"they were measured {len(last)} times ({LOOKS} needed)")
    if (share := min(values("area"), default=1.0)) < MIN_AREA:
        conditions.append(f"they tell slices with calcium from others with an area of {share:.2f} ({MIN_AREA} needed)")
    if (share := min(values("rewarded"), default=1.0)) < MIN_REWARDED:
        conditions.append(f"the true map is rewarded in {share:.0%} of slices ({MIN_REWARDED:.0%} needed)")
    if (rise := min(values("reward"), default=MIN_REWARD)) < MIN_REWARD:
        conditions.append(f"the true map raises the logit by {rise:.2f} ({MIN_REWARD} needed)")
    if (share := max(values("moved"), default=0.0)) > MAX_MOVED:
        conditions.append(f"a map in the wrong place is rewarded in {share:.0%} of slices (at most {MAX_MOVED:.0%})")
    if (share := max(values("hazed"), default=0.0)) > MAX_HAZED:
        conditions.append(f"a haze of {HAZE_HU:g} HU is rewarded in {share:.0%} of slices (at most {MAX_HAZED:.0%})")
    rises = zip(values("reward"), values("haze_reward"), strict=True)
    if any(true < MIN_REWARD_OVER_HAZE * haze for true, haze in rises):
        conditions.append(f"the true map raises the logit less than {MIN_REWARD_OVER_HAZE:g} times as much as haze")
    return conditions
