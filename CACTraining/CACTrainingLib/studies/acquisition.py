"""Acquisition study: one digital patient scanned with varied acquisition parameters.

Each setting changes one parameter of BASE_SCANNER or BASE_POSE: kernel, slices, dose, cardiac phase, position, tube
voltage, size of the body. Each is scanned several times with different noise, to separate its effect from chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from CACScoringLib.models.cards import StoredModel
from CACScoringLib.models.choice import Networks
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.scores import score_lesions

from ..evaluation import figures as study_figures
from ..evaluation.jobs import JobSettings, job_key, kept_jobs
from ..evaluation.parts import METHODS, Figure, Section, Table
from ..phantom import KERNELS, Scanner, ScanPose, annotate, as_ct_scan, draw_patient, scan_grid, scan_patient, stream
from ..statistics.bootstrap import Estimate
from .scoring import forget, models_key, value_of, with_networks

VERSION = 2
"""Version of the settings; stored scans of another version are not used."""

HEART_MM = (-84.0, 66.0)
"""Scanned range in mm along z, relative to the heart's centre; includes the lung by which the heart is found."""

BASE_SCANNER = Scanner(field_of_view_mm=460.0, noise_hu=16.0, rotation_s=0.44, table_speed_mm_s=34.0, half_scan=True)
BASE_POSE = ScanPose(inspiration=0.8, heart_rate_bpm=68.0, start_phase=0.3)


@dataclass(frozen=True)
class AcquisitionSettings:
    """Settings of the acquisition study.

    Attributes:
        patient: Number of the digital patient. The default is the first from 950000 with calcium in all four arteries.
        repeats: Number of scans of each setting, with independent noise.
    """

    patient: int = 950191
    repeats: int = 3


@dataclass(frozen=True)
class Setting:
    """Acquisition of a scan.

    Attributes:
        changed: Title of the changed parameter.
        value: Title of its value.
        scanner: Scanner settings.
        pose: Position and motion.
        fat_mm: Thickness of the subcutaneous fat; None for the patient's own.
    """

    changed: str
    value: str
    scanner: Scanner = BASE_SCANNER
    pose: ScanPose = BASE_POSE
    fat_mm: float | None = None


def scan_settings() -> list[Setting]:
    """List all settings of the study, grouped by the changed parameter."""
    base, pixel, slice_mm = BASE_SCANNER, BASE_SCANNER.pixel_mm, BASE_SCANNER.slice_spacing_mm
    # Noise as in `phantom.scanner.motion`: sharp kernels and thin slices are noisier, in part made up for by dose.
    kernels = {"soft": 1.0, "medium": 1.15, "sharp": 1.9}
    slices = ((1.0, 1.0), (1.5, 1.0), (2.0, 2.0), (3.0, 1.5), (3.0, 3.0), (5.0, 2.5), (5.0, 5.0))
    still = (0.0, 0.0, 0.0)
    positions = {
        "as it is": (still, still),
        "½ pixel": ((pixel / 2, pixel / 2, 0.0), still),
        "½ slice": ((0.0, 0.0, slice_mm / 2), still),
        "20 mm aside": ((20.0, 0.0, 0.0), still),
        "tilted 5°": (still, (5.0, 0.0, 0.0)),
    }
    scanners: dict[str, dict[str, dict[str, Any]]] = {
        "Kernel": {
            name: {"kernel": KERNELS[name], "noise_hu": base.noise_hu * factor} for name, factor in kernels.items()
        },
        "Thickness / spacing, mm": {
            f"{thickness:g} / {spacing:g}": {
                "slice_thickness_mm": thickness,
                "slice_spacing_mm": spacing,
                "noise_hu": base.noise_hu * (3.0 / thickness) ** 0.35,
            }
            for thickness, spacing in slices
        },
        "Dose: noise, HU": {f"{noise:g}": {"noise_hu": noise} for noise in (8.0, 12.0, 16.0, 24.0, 34.0)},
        "Tube voltage, kVp": {f"{kvp:g}": {"kvp": kvp} for kvp in (80.0, 100.0, 120.0, 135.0)},
    }
    poses: dict[str, dict[str, dict[str, Any]]] = {
        "Heart phase, first slice": {f"{phase:g}": {"start_phase": phase} for phase in (0.1, 0.3, 0.5, 0.7, 0.9)},
        "Position": {n: {"table_shift_mm": shift, "tilt_degrees": tilt} for n, (shift, tilt) in positions.items()},
    }
    settings = [Setting(c, v, scanner=replace(base, **d)) for c, values in scanners.items() for v, d in values.items()]
    settings += [Setting(c, v, pose=replace(BASE_POSE, **d)) for c, values in poses.items() for v, d in values.items()]
    return settings + [Setting("Body: fat under the skin, mm", f"{mm:g}", fat_mm=mm) for mm in (8.0, 16.0, 26.0, 38.0)]


def sections(
    folder: Path, settings: AcquisitionSettings, models: Mapping[str, StoredModel], work: JobSettings
) -> tuple[Section, ...]:
    """Scan and score a patient in every setting.

    Args:
        folder: Folder that keeps the scores.
        settings: Settings of the study.
        models: Models by network, not empty.
        work: Workers and progress.
    """
    # Keys are made of the parameters, not of their titles, so that settings shared by two panels are scanned once.
    identity = (VERSION, settings.patient, models_key(models))
    scans = {
        (setting, repeat): job_key("", identity, setting.scanner, setting.pose, setting.fat_mm, repeat)
        for setting in scan_settings()
        for repeat in range(1, settings.repeats + 1)
    }
    jobs = {key: (setting, repeat, settings.patient) for (setting, repeat), key in scans.items()}
    results, failed = kept_jobs(
        jobs, folder / "scans.jsonl", partial(with_networks, _scanned, dict(models), work.device), work
    )
    measurements = {scan: results[key] for scan, key in scans.items() if key in results}
    return (_section(settings, measurements, failed),)


def _scanned(networks: Networks, job: tuple[Setting, int, int]) -> dict[str, Any]:
    """Scan and score a patient: masses in mg and Agatston scores by method, and the true mass in mg."""
    setting, repeat, number = job
    patient = draw_patient(number)
    if setting.fat_mm is not None:
        patient = replace(patient, body=replace(patient.body, fat_mm=setting.fat_mm))
    grid = scan_grid(setting.scanner, HEART_MM)
    scan = scan_patient(patient, setting.scanner, setting.pose, repeat, grid, threads=1)
    regions = annotate(scan, stream(number, 21, repeat)).regions
    ct = as_ct_scan(scan, patient)
    per_mg = 1000 * scan.scanner.calcium_hu_per_mg_cm3
    forget(networks)
    result = score_scan(ct, ScoreSettings(), networks=networks)
    by_map, automatic = (value_of(result.methods[name], per_mg) for name in ("decomposition", "threshold"))
    rules = result.methods["threshold"].rules
    reader = score_lesions(find_lesions(ct.image, regions, rules).lesions, ct.image.GetSpacing(), rules)
    positive = float(scan.calcium_mg_cm3.sum(dtype=np.float64, where=scan.calcium_mg_cm3 > 0))
    return {
        "true_mg": patient.mass_mg,
        "mass_mg": {
            "map": by_map.mass,
            "reader": reader.pseudo_mass_hu_mm3 / per_mg,
            "automatic": automatic.mass,
            "noise_free": positive * math.prod(ct.image.GetSpacing()) / 1000,
        },
        "agatston": {"map": by_map.agatston, "reader": reader.agatston, "automatic": automatic.agatston},
    }


_TITLE = "Dependence of the score on the acquisition"
_QUANTITIES = {"mass_mg": "mass, mg", "agatston": "Agatston score"}

Scans = Mapping[tuple[Setting, int], dict[str, Any]]


def _section(settings: AcquisitionSettings, measurements: Scans, failed: Mapping[str, str]) -> Section:
    s = BASE_SCANNER
    text = [
        f"Digital patient {settings.patient} was scanned {settings.repeats} times in each setting, with different "
        f"noise. All but the factor that a panel names is the same: {s.kernel.name} kernel, {s.slice_thickness_mm:g} "
        f"mm slices every {s.slice_spacing_mm:g} mm, {s.noise_hu:g} HU noise in an average body, {s.kvp:g} kVp, no "
        f"gating, breath held, heart rate {BASE_POSE.heart_rate_bpm:g} per minute."
    ]
    if failed:
        reasons = "; ".join(sorted(set(failed.values()))[:3])
        text.append(f"{len(failed)} scans could not be made or scored: {reasons}")
    if not measurements:
        return Section("acquisition", _TITLE, tuple(text))
    true_mg = next(iter(measurements.values()))["true_mg"]
    text.append(f"The patient truly has {true_mg:.1f} mg of coronary calcium, in every setting.")
    tables, figures, values = [], [], []
    for quantity, title in _QUANTITIES.items():
        scores = _frame(measurements, quantity)
        values.append(_long_table(settings.patient, quantity, scores, true_mg))
        tables.append(_spread_table(quantity, title, scores))
        figures.append(_figure(quantity, title, scores, true_mg if quantity == "mass_mg" else None))
    return Section("acquisition", _TITLE, tuple(text), tuple(tables), tuple(figures), values=tuple(values))


def _long_table(patient: int, quantity: str, scores: pd.DataFrame, true_mg: float) -> pd.DataFrame:
    """Scores by all methods, with the true mass as truth, and the setting of each scan."""
    rows = scores.reset_index(names=["changed", "setting"]).melt(["changed", "setting"], None, "method", "value")
    return rows.assign(patient=patient, scan=rows.groupby("method").cumcount(), item=quantity, truth=true_mg)


def _frame(measurements: Scans, quantity: str) -> pd.DataFrame:
    """Scores with a column per method, indexed by changed parameter and value, in the order of the settings."""
    index = pd.MultiIndex.from_tuples([(s.changed, s.value) for s, _ in measurements], names=["changed", "value"])
    scores = pd.DataFrame([content[quantity] for content in measurements.values()], index=index)
    return scores[[method for method in METHODS if method in scores]]


def _spread_table(quantity: str, title: str, scores: pd.DataFrame) -> Table:
    def spread(values: pd.Series) -> float:
        return (values.max() - values.min()) / values.mean() if values.mean() > 0 else math.nan

    settings = scores.groupby(["changed", "value"], sort=False)
    changed = settings.mean().groupby("changed", sort=False).agg(spread)
    noise = settings.agg(lambda values: spread(values) if len(values) > 1 else math.nan).mean()
    rows = [(name, *map(float, values)) for name, values in (*changed.iterrows(), ("Noise alone", noise))]
    note = (
        "Range of the means of the settings, divided by their overall mean; 0.5 is a change by half of the score. "
        "Noise alone: the same for the scans within a setting, averaged over the settings."
    )
    columns = ("Changed", *(METHODS[method] for method in scores))
    return Table(f"acquisition_{quantity}", f"Variation of the {title}", columns, tuple(rows), note)


def _figure(quantity: str, title: str, scores: pd.DataFrame, true: float | None) -> Figure:
    ends = scores.drop(columns="noise_free", errors="ignore").groupby(["changed", "value"], sort=False)
    ends = ends.agg(lambda values: Estimate(values.mean(), values.min(), values.max(), len(values)))
    panels = [
        study_figures.Panel(name, tuple(values.index.droplevel("changed")), {m: list(values[m]) for m in values})
        for name, values in ends.groupby("changed", sort=False)
    ]
    draw = partial(study_figures.panels_of_values, panels=panels, y_title=title, connected=True, reference=true)
    note = "Marks are means of the scans of a setting, bars their lowest and highest (no intervals)."
    note += " The line is the true mass." if true is not None else ""
    return Figure(f"acquisition_{quantity}_figure", f"{title} by acquisition", draw, note, (7, 8))
