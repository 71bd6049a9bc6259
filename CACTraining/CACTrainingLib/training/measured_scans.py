"""Scans with known calcium, scored in many ways with nothing left out of the calcium map: what `cac calibrate` reads.

What takes long is kept in a folder, so that a calibration that was ended continues.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.anatomy.heart_search import find_heart
from CACScoringLib.calcium_map.decomposition import DecompositionSettings, assembled, raw_maps, slice_probabilities
from CACScoringLib.cohort.workers import run_jobs
from CACScoringLib.core.ct import CTError, CTScan, ScanWarning
from CACScoringLib.core.files import LEFT_SECONDS, remove_partial, write_text_atomically
from CACScoringLib.core.labels import MAIN_ARTERIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models.cards import load_model, read_card
from CACScoringLib.models.inference import use_threads
from CACScoringLib.quality.acquisition import BloodPool, measure_blood
from CACScoringLib.quality.artefacts import without_metal
from CACScoringLib.quality.calibration import framing
from CACScoringLib.scoring.evidence import FEATURES, candidate_sites, lesion_features, suggested_arteries
from CACScoringLib.scoring.lesions import LesionSet, ScoringRules, find_lesions
from CACScoringLib.scoring.rules import rules_for_tube_voltage
from CACScoringLib.scoring.scores import rules_of_map, score_lesions, score_sites

from ..data.datasets import TrainingScan
from ..phantom.cohort.cohort import patient_of, reference_scores

ModelPaths = tuple[Path | None, Path | None, Path, Path]
"""Cards of the models for heart (None: none of its own), territories (None: none), slices and decomposition."""

VERSION = 9
"""Of what is kept; another one is measured anew."""

MAP_RULES = ((None, 20.0), (None, 40.0))
"""Least HU of the healthy image (None: no such rule) and floor of the map, tried together. The published rule of −10 HU
is left out: arteries lie in fat, and with it the bundled map captures half as much calcium (0.35 instead of 0.70)."""

CORONARY_MG_CM3 = 10.0
"""A lesion of the map that reaches a voxel with this much coronary calcium is taken for coronary."""


@dataclass(frozen=True)
class MapSettings:
    """Settings that the calcium map depends on, as in `DecompositionSettings`."""

    slice_threshold: float
    min_healthy_hu: float | None
    floor_hu: float


@dataclass(frozen=True)
class FoundLesions:
    """Lesions of one scan by one method. features: float [n, 5], `evidence.FEATURES`. coronary: bool [n], whether there
    is coronary calcium in it. agatston (on the clinical scale), pseudo_mass: float [n], of the method. artery: int [n],
    `Artery` it lies in."""

    features: np.ndarray
    coronary: np.ndarray
    agatston: np.ndarray
    pseudo_mass: np.ndarray
    artery: np.ndarray

    @classmethod
    def of(
        cls, found: LesionSet, features: np.ndarray, truth: np.ndarray, spacing: tuple, rules: ScoringRules
    ) -> FoundLesions:
        """truth: bool [k, j, i], where there is coronary calcium."""
        coronary = set(np.unique(found.id_map[truth]).tolist())
        scores = [score_lesions([lesion], spacing, rules) for lesion in found.lesions]
        return cls(
            features,
            np.array([lesion.id in coronary for lesion in found.lesions], bool),
            np.array([score.clinical_agatston for score in scores], float),
            np.array([score.pseudo_mass_hu_mm3 for score in scores], float),
            np.array([int(lesion.artery) for lesion in found.lesions], int),
        )

    def scores(self, counted: np.ndarray, scan: MeasuredScan) -> dict[str, dict[str, float]]:
        """Scores of each artery, by the lesions that count (bool [n]); see `uncertainty.LIMITS`."""
        found = {}
        for artery in MAIN_ARTERIES:
            own = counted & (self.artery == artery)
            mass = float(self.pseudo_mass[own].sum()) * scan.mg_per_hu_mm3
            found[artery.key] = {"agatston": float(self.agatston[own].sum()), "mass_mg": mass}
        return found

    @classmethod
    def read(cls, content: dict) -> FoundLesions:
        """Read lesions from JSON."""
        features = np.array(content["features"], float).reshape(-1, len(FEATURES))
        kinds = {"coronary": bool, "artery": int}
        others = {name: np.array(content[name], kinds.get(name, float)) for name in content if name != "features"}
        return cls(features, **others)


@dataclass(frozen=True)
class MeasuredScan:
    """A scan scored with nothing left out of the map, nor of the candidates of the clinical rule.

    kind: as in `datasets.KINDS`. visible: whether coronary calcium shows in any slice. lesions: of the map. candidates:
    of the clinical rule, whose features depend on the map too. reader: by artery, the scores of the ideal reader, who
    knows every lesion of this scan (keys as of `uncertainty.LIMITS`). reference_agatston: by artery, of a still,
    noise-free scan (`reference_scores`); None where it is unknown. true_mass_mg: by artery. mg_per_hu_mm3: the
    scanner's calibration of mass. facts: of the scan, which give its difficulty, and how unlike others it is
    (`familiarity.FACTS`).
    """

    patient: str
    kind: str
    visible: bool
    lesions: dict[MapSettings, FoundLesions]
    candidates: dict[MapSettings, FoundLesions]
    reader: dict[str, dict[str, float]]
    reference_agatston: dict[str, float] | None
    true_mass_mg: dict[str, float]
    mg_per_hu_mm3: float
    facts: dict[str, float | str | None]


def measure_all(
    scans: Sequence[TrainingScan],
    models: ModelPaths,
    thresholds: Sequence[float],
    cache: Path,
    workers: int,
    progress: Progress,
) -> list[MeasuredScan]:
    """All scans that can be scored; why another cannot becomes a warning.

    models: cards for the heart (None: by the lungs), slices and decomposition. thresholds: probabilities from which a
    slice is decomposed. cache: folder of what is kept.
    """
    cache.mkdir(parents=True, exist_ok=True)
    remove_partial(cache, LEFT_SECONDS)
    measured = []
    events = run_jobs(
        partial(partial, _measured_or_why_not, models, thresholds, cache), scans, workers, progress.counted
    )
    for scan, event in zip(scans, events, strict=True):
        if isinstance(event.result, MeasuredScan):
            measured.append(event.result)
        else:
            progress.warning(ScanWarning("scan-left-out", f"{scan.ct}: {event.result or event.reason}"))
    return sorted(measured, key=lambda scan: scan.patient)


def _measured_or_why_not(
    models: ModelPaths, thresholds: Sequence[float], cache: Path, scan: TrainingScan
) -> MeasuredScan | str:
    try:
        return measure(scan, models, thresholds, cache)
    except CTError as error:
        return str(error)


def measure(scan: TrainingScan, models: ModelPaths, thresholds: Sequence[float], cache: Path) -> MeasuredScan:
    """One scan, from the cache where it was measured before. Raises CTError."""
    hashes = [path and read_card(path).sha256 for path in models]
    digest = hashlib.sha256(json.dumps([VERSION, scan.fingerprint(), *hashes, *thresholds]).encode()).hexdigest()
    kept = cache / f"{digest[:24]}.json"
    if not kept.is_file():
        content = dict(vars(_measured(scan, models, thresholds)))
        for name in _BY_SETTINGS:
            content[name] = [
                (asdict(settings), {key: values.tolist() for key, values in vars(own).items()})
                for settings, own in content[name].items()
            ]
        write_text_atomically(kept, json.dumps(content))
    content = json.loads(kept.read_text(encoding="utf-8"))
    for name in _BY_SETTINGS:
        content[name] = {MapSettings(**settings): FoundLesions.read(own) for settings, own in content[name]}
    return MeasuredScan(**content)


_BY_SETTINGS = ("lesions", "candidates")


def _measured(scan: TrainingScan, models: ModelPaths, thresholds: Sequence[float]) -> MeasuredScan:
    use_threads(1)  # scans are scored side by side
    *finders, classifier, generator = models
    ct, known = read_ct(scan.ct), json.loads((scan.ct.parent / "truth.json").read_text(encoding="utf-8"))
    kvp = ct.acquisition.kvp or known["scanner"]["kvp"]  # images do not state it
    ct = replace(ct, acquisition=replace(ct.acquisition, kvp=kvp))
    region = find_heart(ct, None, *(None if path is None else load_model(path) for path in finders))
    territory_labels = None if region.territories is None else region.territories.labels(ct.image)
    slice_model, map_model = load_model(classifier), load_model(generator)
    stored = DecompositionSettings.of(slice_model, map_model)
    found_slices = slice_probabilities(ct, region.mask, slice_model)
    slices, probabilities = found_slices.slices, found_slices.on_grid
    maps, _ = raw_maps(slices, probabilities >= min(thresholds), ct.image.GetSize()[2], map_model, stored.batch_size)
    blood = measure_blood(ct, region.mask)
    noise_hu = None if blood is None else blood.noise_hu
    truth = sitk.GetArrayFromImage(read_mask(scan.ct.parent / "calcium_map.nii.gz")) >= CORONARY_MG_CM3
    spacing, rules = ct.image.GetSpacing(), rules_for_tube_voltage(ct.acquisition, ScoringRules())
    dense = candidate_sites(region, territory_labels, ct.hu >= rules.threshold_hu)
    clinical = without_metal(find_lesions(ct.image, dense, rules), ct.image)[0].coronary
    places = suggested_arteries(clinical, ct, region)
    lesions, candidates = {}, {}
    for settings in (MapSettings(threshold, *rule) for threshold in thresholds for rule in MAP_RULES):
        decomposed = probabilities >= settings.slice_threshold
        parts = assembled(ct, region.mask, slices, maps, decomposed, replace(stored, **asdict(settings)))
        features = lesion_features(clinical, places, parts.calcium_map, found_slices.on_scan, noise_hu)
        candidates[settings] = FoundLesions.of(clinical, features, truth, spacing, rules)
        map_rules = rules_of_map(rules, settings.floor_hu, ct.acquisition.calcium_kvp)
        dense = sitk.GetArrayViewFromImage(parts.calcium_map) >= settings.floor_hu
        sites = candidate_sites(region, territory_labels, dense)
        in_map = find_lesions(parts.calcium_map, sites, map_rules, peaks=ct.image)
        found = without_metal(in_map, ct.image)[0].coronary
        own_places = suggested_arteries(found, ct, region)
        features = lesion_features(found, own_places, parts.calcium_map, found_slices.on_scan, noise_hu)
        lesions[settings] = FoundLesions.of(found, features, truth, spacing, map_rules)
    regions = sitk.GetArrayFromImage(read_mask(scan.ct.parent / "regions.nii.gz"))
    mg_per_hu_mm3 = 1 / (1000 * known["calcium_hu_per_mg_cm3"])
    seen = score_sites(find_lesions(ct.image, regions, rules).lesions, spacing, rules)
    reader = {
        artery.key: {
            "agatston": seen[artery].agatston,
            "mass_mg": seen[artery].pseudo_mass_hu_mm3 * mg_per_hu_mm3,
        }
        for artery in MAIN_ARTERIES
    }
    patient = patient_of(known)
    reference = None
    if patient is not None:
        reference = {artery: score.agatston for artery, score in reference_scores(patient).items()}
    return MeasuredScan(
        scan.patient,
        scan.kind,
        scan.shows_calcium(),
        lesions,
        candidates,
        reader,
        reference,
        known["mass_mg_by_artery"],
        mg_per_hu_mm3,
        _facts(ct, region.mask, blood, known["scanner"]),
    )


def _facts(ct: CTScan, heart: sitk.Image, blood: BloodPool | None, scanner: dict) -> dict[str, float | str | None]:
    """Facts of a scan (`MeasuredScan`). scanner: of its truth, for what its header lacks."""
    acquisition, spacing = ct.acquisition, ct.image.GetSpacing()
    return {
        "pixel_mm": spacing[0],
        "slice_spacing_mm": spacing[2],
        "slice_thickness_mm": acquisition.slice_thickness_mm or scanner["slice_thickness_mm"],
        "kernel": acquisition.kernel or scanner["kernel"]["name"],
        "kvp": acquisition.kvp,
        **({} if blood is None else asdict(blood)),
        **framing(sitk.GetArrayViewFromImage(heart), spacing),
    }
