"""Measure how often each check of a scan warns or refuses on sound scans, variants of them and made faults.

    python Testing/Benchmarks/check_rates.py TABLE SCANS [--kinds sound variants faults] [--changes NAME ...]
        [--only NAME ...] [--fast] [--csv CSV]

TABLE is a CSV with the columns name, scan (a path below SCANS) and true_alarms (codes that are right for that scan). A
variant is a sound scan that was cut, padded, cropped, averaged to thick slices, or given noise, another kernel, streaks
or a jitter of its slices. Each scan is read, its heart is found by the installed networks and its quality is examined;
--fast stops after reading, as faults of DISKS always do. A fault is seen if there is a warning or refusal that the scan
itself does not have, DESCRIPTIONS aside. The goal: no severe warning or refusal on sound scans, 1 % of the variants at
most.
"""

from __future__ import annotations

import argparse
import csv
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from by_scanner import origin, write_rows
from scipy import ndimage

from CACScoringLib.anatomy.heart_search import locate_heart
from CACScoringLib.core.ct import CTScan, scan_from_image
from CACScoringLib.core.errors import CTError
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.choice import ModelChoice, Networks, chosen_models, load_models
from CACScoringLib.quality.examination import examine_quality
from CACScoringLib.quality.normalisation import normalisation_of, normalised

Spacing = tuple[float, float, float]
"""Distances of columns, rows and slices, mm."""
Change = Callable[[np.ndarray, Spacing, np.random.Generator], tuple[np.ndarray, Spacing] | None]
"""Function of HU [k, j, i] and spacing; None where it does not apply to the scan."""

AIR_HU, THICK_MM = -1024, 5.0
SCALES = (0.5, 1 / 1.5, 0.75, 0.8, 1 / 1.15, 1.15, 1.25, 1.5, 2.0)
"""Factors of wrong spacings."""
SEED, PLACES = 0, 3
"""Seed of noise and places; places in each scan of a fault of DISKS."""
SOUND = "none"
DESCRIPTIONS = {
    "beyond-calibration",
    "coarse-pixels",
    "kernel-normalised",
    "kernel-sharp",
    "noise",
    "slices-averaged",
    "unlike-calibration",
    "wide-spacing",
}
"""Warnings that state what a scan is like, true of a changed one, and do not doubt it."""


def part(low: float, high: float) -> Change:
    """Keep slices between two shares of the scan."""
    return lambda hu, mm, rng: (hu[round(low * len(hu)) : round(high * len(hu))], mm)


def cropped(hu: np.ndarray, mm: Spacing, rng: np.random.Generator) -> tuple[np.ndarray, Spacing] | None:
    middle = [n // 2 for n in hu.shape[1:]]
    half = [round(110 / step) for step in mm[1::-1]]
    rows, columns = (slice(max(0, place - size), place + size) for place, size in zip(middle, half, strict=True))
    return hu[:, rows, columns], mm


def thick(hu: np.ndarray, mm: Spacing, rng: np.random.Generator) -> tuple[np.ndarray, Spacing] | None:
    """Average neighbouring slices to about THICK_MM."""
    count = round(THICK_MM / mm[2])
    if count < 2:
        return None
    groups = hu[: len(hu) // count * count].astype(np.float32).reshape(-1, count, *hu.shape[1:])
    return np.rint(groups.mean(1)), (mm[0], mm[1], mm[2] * count)


def noisy(hu: np.ndarray, mm: Spacing, rng: np.random.Generator) -> tuple[np.ndarray, Spacing]:
    """Add noise of 15 HU with the grain of a soft kernel; air stays."""
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, np.float32), (0, 0.7 / mm[1], 0.7 / mm[0]))
    return np.where(hu > -950, hu + noise * (15 / noise.std()), hu), mm


def blurred(sigma_mm: float) -> Change:
    return lambda hu, mm, rng: (
        ndimage.gaussian_filter(hu.astype(np.float32), (0, sigma_mm / mm[1], sigma_mm / mm[0])),
        mm,
    )


def sharpened(hu: np.ndarray, mm: Spacing, rng: np.random.Generator) -> tuple[np.ndarray, Spacing]:
    soft, _ = blurred(0.9)(hu, mm, rng)  # type: ignore[misc]
    return np.maximum(1.5 * hu.astype(np.float32) - 0.5 * soft, AIR_HU), mm


def streaked(hu: np.ndarray, mm: Spacing, rng: np.random.Generator) -> tuple[np.ndarray, Spacing]:
    """Add streaks along the rows, which grow towards the shoulders to 40 HU, in tissue."""
    streaks = ndimage.gaussian_filter(rng.standard_normal(hu.shape, np.float32), (0, 0.7 / mm[1], 20 / mm[0]))
    growth = np.clip((np.arange(len(hu)) / len(hu) - 0.6) / 0.4, 0, 1) * rng.uniform(0.5, 1.0, len(hu))
    return np.where(hu > -950, hu + streaks / streaks.std() * (40 * growth)[:, None, None], hu), mm


def jittered(hu: np.ndarray, mm: Spacing, rng: np.random.Generator) -> tuple[np.ndarray, Spacing] | None:
    """Take slices from varying heights, as breathing and beating organs show them."""
    step = round(3 / mm[2])
    if step < 2:
        return None
    places = np.arange(1, len(hu) - 1, step)
    return hu[places + rng.integers(-1, 2 if step > 2 else 1, len(places))], (mm[0], mm[1], mm[2] * step)


VARIANTS: dict[str, Change] = {
    "upper fifth cut": part(0.0, 0.8),
    "lower fifth cut": part(0.2, 1.0),
    "both cut": part(0.12, 0.88),
    "air of 40 pixels": lambda hu, mm, rng: (np.pad(hu, ((0, 0), (40, 40), (40, 40)), constant_values=AIR_HU), mm),
    "crop to 220 mm": cropped,
    "thick slices": thick,
    "noise": noisy,
    "softer": blurred(0.5),
    "sharper": sharpened,
    "streaks": streaked,
    "jitter": jittered,
}


def scaled(*factors: float) -> Change:
    return lambda hu, mm, rng: (hu, tuple(step * factor for step, factor in zip(mm, factors, strict=True)))  # type: ignore[return-value]


def with_slices(change: Callable[[np.ndarray, int], np.ndarray], count: int = 1) -> Change:
    """Replace slices in the scan's middle. change: Function of HU and the first slice."""

    def changed(hu: np.ndarray, mm: Spacing, rng: np.random.Generator) -> tuple[np.ndarray, Spacing]:
        k, hu = len(hu) // 2, hu.astype(np.float32)
        hu[k : k + count] = change(hu, k)
        return np.rint(hu), mm

    return changed


def boxed(hu: np.ndarray, k: int, value: float, sides: tuple[int, int] = (30, 40)) -> np.ndarray:
    plane = hu[k].copy()
    j, i = (n // 2 for n in plane.shape)
    plane[j : j + sides[0], i : i + sides[1]] = value
    return plane


def box_of_noise(hu: np.ndarray, mm: Spacing, rng: np.random.Generator) -> tuple[np.ndarray, Spacing]:
    """Add noise of 30 HU to 60 × 60 pixels of ten slices."""
    hu = hu.astype(np.float32)
    box = hu[
        tuple(slice(n // 2 - size // 2, n // 2 + size // 2) for n, size in zip(hu.shape, (10, 60, 60), strict=True))
    ]
    box += rng.normal(0, 30, box.shape)
    return np.rint(hu), mm


def every_second_a_mean(hu: np.ndarray, mm: Spacing, rng: np.random.Generator) -> tuple[np.ndarray, Spacing]:
    hu = hu.astype(np.float32)
    means = np.arange(1, len(hu) - 1, 2)
    hu[means] = (hu[means - 1] + hu[means + 1]) / 2
    return np.rint(hu), mm


def with_block(pixels: int, distance: int) -> Change:
    """Replace a block of consecutive pixels, as of a file, in the middle half of a scan by that of another slice."""

    def changed(hu: np.ndarray, mm: Spacing, rng: np.random.Generator) -> tuple[np.ndarray, Spacing] | None:
        ends, count = len(hu) // 4, hu[0].size // pixels
        k = int(rng.integers(ends, len(hu) - ends))
        source = k + distance if k + distance < len(hu) else k - distance
        if source < 0:
            return None
        start = pixels * int(rng.integers(count // 4, count - count // 4))
        hu = hu.copy()
        hu.reshape(len(hu), -1)[k, start : start + pixels] = hu[source].ravel()[start : start + pixels]
        return hu, mm

    return changed


def without(count: int) -> Change:
    return lambda hu, mm, rng: (np.delete(hu, range(len(hu) // 2, len(hu) // 2 + count), 0), mm)


def valued(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Change values, with air cut off at AIR_HU."""
    return lambda hu, mm, rng: (np.maximum(np.rint(change(hu.astype(np.float32))), AIR_HU), mm)


def interpolated(hu: np.ndarray, mm: Spacing, rng: np.random.Generator) -> tuple[np.ndarray, Spacing]:
    zoom = (1.18, 0.93, 0.93)
    out = ndimage.zoom(hu.astype(np.float32), zoom, order=1)
    return np.rint(out), tuple(s * n / m for s, n, m in zip(mm, hu.shape[::-1], out.shape[::-1], strict=True))  # type: ignore[return-value]


DISKS: dict[str, Change] = {
    f"{pixels} pixels of a slice {distance} away": with_block(pixels, distance)
    for pixels in (256, 2048)
    for distance in (3, 10, 25)
}
"""Blocks of 512 and 4,096 bytes in wrong places, which are looked for while a scan is read."""
FAULTS: dict[str, Change] = {
    **DISKS,
    "mirrored slice": with_slices(lambda hu, k: hu[k, :, ::-1]),
    "box of water": with_slices(lambda hu, k: boxed(hu, k, 0)),
    "box of 40 HU, 18 pixels wide": with_slices(lambda hu, k: boxed(hu, k, 40, (18, 18))),
    "line of 30 pixels of 1,023 HU": with_slices(lambda hu, k: boxed(hu, k, 1023, (1, 30))),
    "box of noise of 30 HU": box_of_noise,
    "box of air": with_slices(lambda hu, k: boxed(hu, k, -1000)),
    "every second slice a mean of its neighbours": every_second_a_mean,
    "mean of neighbours": with_slices(lambda hu, k: (hu[k - 1] + hu[k + 1]) / 2),
    "copied slice": with_slices(lambda hu, k: hu[k - 1]),
    "slice shifted by 24 HU": with_slices(lambda hu, k: hu[k] + 24),
    "two slices exchanged": with_slices(lambda hu, k: hu[[k + 1, k]], 2),
    "six slices smoothed": with_slices(lambda hu, k: ndimage.gaussian_filter(hu[k : k + 6], (0, 1, 1)), 6),
    "six slices lowered by 25 HU": with_slices(lambda hu, k: hu[k : k + 6] - 25, 6),
    "one slice lost": without(1),
    "two slices lost": without(2),
    "three slices lost": without(3),
    "interpolated": interpolated,
    "24 HU added": valued(lambda hu: hu + 24),
    "24 HU taken": valued(lambda hu: hu - 24),
    "12 HU added": valued(lambda hu: hu + 12),
    "scaled by 0.95": valued(lambda hu: hu * 0.95),
    "scaled by 1.05": valued(lambda hu: hu * 1.05),
    "drift of 45 HU": valued(lambda hu: hu + np.linspace(-22, 22, len(hu), dtype=np.float32)[:, None, None]),
    "calcium removed": valued(lambda hu: np.where(hu > 110, 60, hu)),
    **{f"slices × {scale:.2f}": scaled(1, 1, scale) for scale in SCALES},
    **{f"pixels × {scale:.2f}": scaled(scale, scale, 1) for scale in SCALES},
    **{f"columns × {scale:.2f}": scaled(scale, 1, 1) for scale in SCALES},
    **{f"rows × {scale:.2f}": scaled(1, scale, 1) for scale in SCALES},
    **{f"all × {scale:.2f}": scaled(scale, scale, scale) for scale in SCALES},
}


def alarms(scan: CTScan, networks: Networks | None) -> dict[str, bool]:
    """Return the codes of warnings, True for severe ones; "refused" and the error's class if it is refused."""
    try:
        scan = scan_from_image(scan.image, scan.acquisition)
        warnings = scan.warnings
        if networks is not None:
            normalisation = normalisation_of(scan)
            scored = normalised(scan, normalisation)
            heart = locate_heart(scored, None, networks)
            quality = examine_quality(scan, scored, heart, normalisation)
            warnings += heart.warnings + quality.warnings
    except CTError as error:
        return {f"refused: {type(error).__name__}": True}
    return {warning.code: bool(warning.severe) for warning in warnings}


def changed_scans(scan: CTScan, kind: str, parts: Sequence[str]) -> Iterator[tuple[str, CTScan]]:
    """Yield a scan itself, its variants or its faults, by name. parts: Of the names to yield; empty for all."""
    changes = {"sound": {SOUND: lambda hu, mm, rng: (hu, mm)}, "variants": VARIANTS, "faults": FAULTS}[kind]
    for name, change in changes.items():
        if kind != "sound" and parts and not any(part in name for part in parts):
            continue
        for place in range(PLACES if name in DISKS else 1):
            result = change(scan.hu, scan.image.GetSpacing(), np.random.default_rng([SEED, place]))
            if result is not None:
                hu, spacing = result
                image = sitk.GetImageFromArray(np.ascontiguousarray(np.rint(hu).astype(np.int16)))
                image.SetSpacing([float(step) for step in spacing])
                yield name, CTScan(image, scan.acquisition)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("scans", type=Path)
    parser.add_argument("--kinds", nargs="+", default=["sound", "variants", "faults"])
    parser.add_argument("--changes", nargs="+", default=[], help="names of variants or faults, or parts of them")
    parser.add_argument("--only", nargs="+", help="parts of names of scans")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--csv", type=Path, help="table to write")
    options = parser.parse_args()
    networks = None if options.fast else load_models(chosen_models(ModelChoice())).networks
    rows = list(csv.DictReader(options.table.open(encoding="utf-8")))
    rows = [row for row in rows if not options.only or any(text in row["name"] for text in options.only)]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    codes: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        scan = read_ct(options.scans / row["scan"])
        ((_, itself),) = changed_scans(scan, "sound", [])
        usual = alarms(itself, networks)
        for kind in options.kinds:
            expected = {*usual, *DESCRIPTIONS} if kind == "faults" else row["true_alarms"].split()
            for name, changed in changed_scans(scan, kind, options.changes):
                warnings = alarms(changed, None if name in DISKS else networks)
                new = {code: severe for code, severe in warnings.items() if code not in expected}
                counts[name].update(scans=1, severe=int(any(new.values())), seen=int(kind == "faults" and bool(new)))
                codes[name].update(code for code in new if kind == "faults" or new[code])
        print(f"{row['name']} done", flush=True)
    for name, count in counts.items():
        frequent = ", ".join(f"{code} {number}" for code, number in codes[name].most_common())
        print(f"{name:44} seen {count['seen']}, severe {count['severe']} of {count['scans']}; {frequent}")
    if options.csv:
        settings = f"{len(rows)} scans of results/people.csv; --changes {shlex.join(options.changes)}"
        about = origin("Testing/Benchmarks/check_rates.py TABLE SCANS --csv CSV", settings, SEED)
        write_rows(options.csv, [{"fault": name, **_cells(name, count), **about} for name, count in counts.items()])


def _cells(name: str, count: Counter[str]) -> dict[str, object]:
    return {"seen": count["seen"] if name in FAULTS else "", "severe": count["severe"], "scans": count["scans"]}


if __name__ == "__main__":
    main()
