"""What normalisation of the kernel does to scores: on digital twins, and on a real pair of reconstructions.

Run from the repository's root; KEPT is a folder in which the numbers of each scan stay, so that a run that was ended
goes on:

    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/kernel_normalisation.py twins KEPT
        [--patients N] [--first NUMBER] [--automatic]
    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/kernel_normalisation.py pair KEPT
        [--seeds N] [--automatic]
    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/kernel_normalisation.py sharpness FOLDER

twins: the same digital patient in the same pose through kernels from soft to very sharp, and in thin slices, with the
noise of the same raw data. pair: the scan A0001, which was reconstructed with a soft kernel (B) and a sharp one (L),
both with the same plaques at the same places, each seen through the scan's own kernel. Lesions are where they were
inserted (a reader who knows), or found (automatic, map). The transfer of L relative to B is that of the two scans
themselves. sharpness: the measured sharpness of the scans of a digital cohort, by kernel.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import fft, ndimage

from CACScoringLib.core.ct import Acquisition, CTScan, scan_from_image
from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.io.reading import read_ct
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.results import Networks
from CACScoringLib.run import ModelChoice, chosen_models, load_models
from CACScoringLib.scoring.equivalent import usual_calibration
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACScoringLib.scoring.normalisation import normalisation_of
from CACScoringLib.scoring.scores import score_lesions
from CACTrainingLib.phantom.anatomy.patient import draw_patient, stream
from CACTrainingLib.phantom.cohort.export import as_ct_scan, image_on
from CACTrainingLib.phantom.insertion.background import prepare_background
from CACTrainingLib.phantom.insertion.inserted import InsertedScan, InsertedSettings, clean_scan, inserted_scan
from CACTrainingLib.phantom.scanner.protocol import PROTOCOLS, draw_pair
from CACTrainingLib.phantom.scanner.scanner import KERNELS, Grid, Kernel, Scanner
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient

DATA = Path(os.environ.get("CAC_REAL_CT_DIR", Path(__file__).parents[3] / "shared" / "data"))
FIRST = 85100
HEART_MM = (-84.0, 66.0)
MIDDLE_MM = (-30.0, 30.0)
"""Heights of the scans that are scored at known places only."""

BONE = Kernel("bone", 0.2, 3.0, 0.5)
ALL_KERNELS = {**KERNELS, "bone": BONE, "thin": KERNELS["soft"]}
SLICES_3_MM = {"slice_thickness_mm": 3.0, "slice_spacing_mm": 3.0}
THIN = {"slice_thickness_mm": 0.6, "slice_spacing_mm": 0.6}
PAIR = ("A0001_philips_B_5mm.nii.gz", "A0001_philips_L_5mm_heart.nii.gz")
L_SLICES = slice(14, 36)
"""Those of B that L shows."""

SEED = 23
SEEN_MG_CM3 = 10.0
STEP_PER_MM = 0.02
LAST_COHERENT_PER_MM = 0.62
"""Of the pair; beyond, neither kernel passes anything."""


@dataclass(frozen=True)
class MeasuredKernel(Kernel):
    """A kernel by its transfer at multiples of STEP_PER_MM, the focal spot's and detector's blur included."""

    curve: tuple[float, ...] = ()

    def transfer(self, frequency_per_mm: np.ndarray) -> np.ndarray:
        """As of `Kernel`."""
        return np.interp(frequency_per_mm, STEP_PER_MM * np.arange(len(self.curve)), self.curve, right=0.0)


def known_lesions(scan: CTScan, region: np.ndarray) -> tuple[float, float]:
    """Agatston score and mass in mg of what reaches 130 HU in a region."""
    rules = ScoringRules(calibration_mg_per_mm3_hu=usual_calibration(120.0))
    found = find_lesions(scan.image, region.astype(np.uint8), rules)
    score = score_lesions(found.lesions, scan.image.GetSpacing(), rules)
    return score.agatston, score.mass_mg


def found_lesions(scan: CTScan, mode: str, networks: Networks) -> dict[str, float]:
    """The automatic scores of a scan."""
    result = score_scan(scan, ScoreSettings(normalisation=mode), networks=networks)
    return {name: method.total.clinical_agatston for name, method in result.methods.items()}


def twins(number: int, networks: Networks | None) -> dict:
    """A patient's scores by kernel and slices, as the scan is and normalised; automatic ones with networks."""
    patient = draw_patient(number, heart_shape="anatomical")
    usual, pose = draw_pair(PROTOCOLS["varied"], stream(number, 20))[0]
    noise = float(stream(number, 85).uniform(8, 22))
    usual = replace(usual, kvp=120.0, kernel=KERNELS["soft"], noise_hu=noise, **SLICES_3_MM)
    row: dict = {"number": number, "mass_mg": patient.mass_mg, "noise_hu": noise}
    for name, kernel in ALL_KERNELS.items():
        scanner = replace(usual, kernel=kernel, **(THIN if name == "thin" else {}))
        grid = scan_grid(patient, scanner, pose, MIDDLE_MM if networks is None else HEART_MM)
        own_noise = noise * _noise_factor(kernel, usual, grid) * np.sqrt(3.0 / scanner.slice_thickness_mm)
        seen = scan_patient(patient, replace(scanner, noise_hu=float(own_noise)), pose, 1, grid, 1)
        reach = round(1.5 / scanner.slice_spacing_mm)
        region = ndimage.binary_dilation(seen.calcium_mg_cm3 > SEEN_MG_CM3, np.ones((2 * reach + 1, 5, 5)))
        row[name] = both_scored(as_ct_scan(seen, patient), region, networks) | {"noise_hu": float(own_noise)}
    return row


def both_scored(scan: CTScan, region: np.ndarray, networks: Networks | None) -> dict:
    """A scan as it is ("off") and as it is by default ("auto"): at known places, or automatic with networks."""
    found = normalisation_of(scan)
    row: dict = {"sharpness": found.sharpness}
    for mode in ("off", "auto") if found.changes else ("off",):
        known = {"known": known_lesions(normalisation_of(scan, mode).of(scan), region)}
        row[mode] = known if networks is None else found_lesions(scan, mode, networks)
    row.setdefault("auto", row["off"])
    return row


def _noise_factor(kernel: Kernel, scanner: Scanner, grid: Grid) -> float:
    """Noise of a kernel relative to that of the scanner's own, from the same raw data."""
    frequency = np.hypot(
        np.fft.fftfreq(grid.shape[1], grid.spacing_mm[0])[:, None], np.fft.fftfreq(grid.shape[2], grid.spacing_mm[0])
    )
    power = [float(((frequency + 0.05) * k.transfer(frequency) ** 2).mean()) for k in (kernel, scanner.kernel)]
    return float(np.sqrt(power[0] / power[1]))


def real_pair() -> tuple[CTScan, CTScan]:
    """B and L on the slices that both show."""
    folder = DATA / "lung_pet_ct_dx"
    soft, sharp = (read_ct(folder / name) for name in PAIR)
    facts = Acquisition("nifti", kvp=120.0, slice_thickness_mm=5.0, kernel="B")
    soft = CTScan(soft.image[:, :, L_SLICES], facts)
    image = sitk.GetImageFromArray(sharp.hu)
    image.CopyInformation(soft.image)
    return soft, scan_from_image(image, replace(facts, kernel="L"))


def transfer_ratio(soft: CTScan, sharp: CTScan) -> tuple[float, ...]:
    """Of L relative to B at multiples of STEP_PER_MM: their cross spectrum over the power of B, in windows of 54 mm."""
    spacing = soft.image.GetSpacing()[0]
    side = 64
    taper = np.outer(*(np.hanning(side + 2)[1:-1],) * 2)
    spectra = []
    for scan in (soft, sharp):
        hu = scan.hu.astype(np.float32)[:, 60:-40, 60:-60]
        view = np.lib.stride_tricks.sliding_window_view(hu, (side, side), (1, 2))[:, ::32, ::32]
        windows = view.reshape(-1, side, side)
        spectra.append(fft.fft2((windows - windows.mean((1, 2), keepdims=True)) * taper))
    cross, power = (spectra[1] * spectra[0].conj()).mean(0).real, (np.abs(spectra[0]) ** 2).mean(0)
    plane = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side, spacing),) * 2))
    curve = [1.0]
    for centre in np.arange(STEP_PER_MM, LAST_COHERENT_PER_MM, STEP_PER_MM):
        ring = np.abs(plane - centre) < STEP_PER_MM
        curve.append(float(cross[ring].mean() / power[ring].mean()))
    return tuple(curve)


class PairWithPlaque:
    """The real pair with the same plaques in both."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        soft, sharp = real_pair()
        whole = read_ct(DATA / "lung_pet_ct_dx" / PAIR[0])
        self.background = prepare_background(whole, name="A0001", network=networks.territories)
        self.settings = InsertedSettings(deposits=(), motion_scale=0.0, seed=SEED, slice_thickness_mm=5.0)
        clean = clean_scan(self.background, self.settings)
        grid = clean.grid
        first = grid.origin_mm[2] + L_SLICES.start * grid.spacing_mm[2]
        grid = Grid(soft.hu.shape, grid.spacing_mm, (*grid.origin_mm[:2], first))
        frequency = STEP_PER_MM * np.arange(int(LAST_COHERENT_PER_MM / STEP_PER_MM) + 1)
        system = clean.scanner.transfer(frequency)
        ratio = np.array(transfer_ratio(soft, sharp))
        curves = {"B": system, "L": system[: len(ratio)] * ratio}
        self.clean: dict[str, InsertedScan] = {}
        self.scans = {"B": soft, "L": sharp}
        for name, scan in self.scans.items():
            kernel = MeasuredKernel(name, 0.0, curve=tuple(float(value) for value in curves[name]))
            own = replace(clean.scanner, kernel=kernel, aperture_sigma_mm=0.0)
            part = {"hu": scan.hu, "heart": clean.heart[L_SLICES], "calcium_mg_cm3": clean.calcium_mg_cm3[L_SLICES]}
            noise = clean.noise_sd_hu[L_SLICES]
            self.clean[name] = replace(clean, grid=grid, scanner=own, noise_sd_hu=noise, territories=None, **part)

    def scored(self, number: int, automatic: bool) -> dict:
        """The scores of both, with the plaques of this number: at known places, or automatic."""
        row: dict = {"number": number}
        region = None
        settings = replace(self.settings, plaques=2 * (1 + number % 10))
        for name in self.clean:
            seen = inserted_scan(self.clean[name], self.background, number, settings)
            if region is None:
                region = ndimage.binary_dilation(seen.calcium_mg_cm3 > SEEN_MG_CM3, np.ones((1, 3, 3)), 2)
                row |= {"mass_mg": sum(plaque.mass_mg for plaque in seen.plaques), "plaques": len(seen.plaques)}
            scan = CTScan(image_on(seen.grid, seen.hu), self.scans[name].acquisition)
            row[name] = both_scored(scan, region, self.networks if automatic else None)
        return row


def concordance(pairs: np.ndarray) -> float:
    """Lin's concordance correlation coefficient of pairs [n, 2] (Lin 1989, doi:10.2307/2532051)."""
    first, second = pairs.T
    covariance = np.cov(first, second, bias=True)
    return float(2 * covariance[0, 1] / (covariance.trace() + (first.mean() - second.mean()) ** 2))


def told(pairs: list[tuple[float, float]]) -> str:
    """Concordance with its 95 % bootstrap interval, and sums."""
    values = np.array(pairs, float)
    if not values.any():
        return "all 0"
    g = np.random.default_rng(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = [concordance(values[g.integers(0, len(values), len(values))]) for _ in range(2000)]
        low, high = np.nanpercentile(drawn, (2.5, 97.5))
        own = concordance(values)
    ratio = values[:, 1].sum() / values[:, 0].sum() if values[:, 0].any() else float("nan")
    return f"CCC {own:.3f} [{low:.3f}, {high:.3f}], sum divided by the soft one's {ratio:.2f} (n {len(values)})"


WAYS = {
    "known places, Agatston": lambda own: own.get("known", (None, None))[0],
    "known places, mass": lambda own: own.get("known", (None, None))[1],
    "automatic": lambda own: own.get("threshold"),
    "calcium map": lambda own: own.get("decomposition"),
}


def printed(rows: list[dict], reference: str, names: list[str]) -> None:
    """Agreement with the soft reconstruction, before and after."""
    ways = {way: value for way, value in WAYS.items() if value(rows[0][reference]["off"]) is not None}
    for name in names:
        sharpness = [row[name]["sharpness"] for row in rows]
        print(f"{name}: MTF {min(sharpness):.2f} to {max(sharpness):.2f}")
        for way, value in ways.items():
            for mode in ("off", "auto"):
                pairs = [(value(row[reference]["auto"]), value(row[name][mode])) for row in rows]
                print(f"  {way:26s}{mode:6s}{told(pairs)}")
    for row in rows:
        cells = [f"{row['number']} {row['mass_mg']:6.1f} mg"]
        for name in (reference, *names):
            for mode in ("off", "auto"):
                cells.append(f"{name} {mode} " + " ".join(f"{value(row[name][mode]):.0f}" for value in ways.values()))
        print("; ".join(cells))


def kept(path: Path, make) -> dict:
    """The numbers in a file, made where it is not there."""
    if not path.is_file():
        write_text_atomically(path, json.dumps(make(), indent=1))
    return json.loads(path.read_text(encoding="utf-8"))


def cohort_sharpness(folder: Path) -> None:
    """Print what is measured of the scans of a digital cohort."""
    found: dict[str, list[float]] = {}
    for path in sorted(folder.glob("patient_*/scan_*/truth.json")):
        kernel = json.loads(path.read_text(encoding="utf-8"))["scanner"]["kernel"]["name"]
        scan = scan_from_image(sitk.ReadImage(str(path.parent / "ct.nii.gz")), Acquisition("nifti"))
        measured = normalisation_of(scan).sharpness
        found.setdefault(kernel, []).append(np.nan if measured is None else measured)
    for kernel, values in found.items():
        print(f"{kernel:8s} n {len(values):3d}  median {np.nanmedian(values):.2f}", end="")
        print(f"  {np.nanmin(values):.2f} to {np.nanmax(values):.2f}, not measured {np.isnan(values).sum()}")


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("twins", "pair", "sharpness"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--first", type=int, default=FIRST)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--automatic", action="store_true", help="score automatically, too, which takes most time")
    options = parser.parse_args()
    if options.what == "sharpness":
        cohort_sharpness(options.folder)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    networks = load_models(chosen_models(ModelChoice(device="cpu"))).networks
    assert networks is not None
    if options.what == "twins":
        found = (n for n in count(options.first) if draw_patient(n, heart_shape="anatomical").mass_mg)
        numbers = list(islice(found, options.patients))
        for own in (None, networks)[: 1 + options.automatic]:
            path = str(options.folder / f"{'known' if own is None else 'automatic'}_{{}}.json")
            rows = [kept(Path(path.format(n)), lambda n=n, own=own: twins(n, own)) for n in numbers]
            printed(rows, "soft", ["medium", "sharp", "bone", "thin"])
        return
    pair = PairWithPlaque(networks)
    numbers = range(options.seeds)
    for automatic in (False, True)[: 1 + options.automatic]:
        path = str(options.folder / f"{'automatic' if automatic else 'known'}_{{}}.json")
        rows = [kept(Path(path.format(n)), lambda n=n, own=automatic: pair.scored(n, own)) for n in numbers]
        printed(rows, "B", ["L"])
    for name, scan in pair.scans.items() if options.automatic else ():
        path = options.folder / f"plain_{name}.json"
        plain = kept(path, lambda scan=scan: {m: found_lesions(scan, m, networks) for m in ("off", "auto")})
        print(name, "without plaque:", plain)


if __name__ == "__main__":
    main()
