"""Score scans with known calcium for `cac calibrate`: all lesions of the map and all candidates, in several settings.

Results are cached in a folder, so that an interrupted calibration can be resumed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.anatomy.heart_search import find_heart
from CACScoringLib.anatomy.territories import Territories
from CACScoringLib.calcium_map.decomposition import (
    DecompositionSettings,
    assembled,
    overlaps,
    raw_maps,
    slice_probabilities,
)
from CACScoringLib.cohort.workers import run_jobs
from CACScoringLib.core.ct import CTScan, ScanWarning
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import LEFT_SECONDS, read_json, remove_partial, write_text_atomically
from CACScoringLib.core.labels import MAIN_ARTERIES, Artery
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models.cards import LoadedModel, load_model, read_card
from CACScoringLib.models.inference import use_threads
from CACScoringLib.quality.acquisition import measure_blood
from CACScoringLib.quality.calibration import framing
from CACScoringLib.record.findings import BloodPool
from CACScoringLib.record.rules import ScoringRules, rules_for_tube_voltage
from CACScoringLib.record.scores import LesionSet
from CACScoringLib.scoring.artefacts import without_metal
from CACScoringLib.scoring.borders import sites_by_looks
from CACScoringLib.scoring.evidence import lies_elsewhere, map_features, shared_voxels
from CACScoringLib.scoring.judge import candidate_features, slices_of_coronary_looks
from CACScoringLib.scoring.lesion_network import lesion_kinds
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.noise_specks import NoiseSpecks
from CACScoringLib.scoring.scores import rules_of_map, scores_by_site
from CACScoringLib.scoring.sites import candidate_sites, verdicts_by_place

from ..phantom import patient_of, reference_scores
from ..project.training_scan import TrainingScan

ModelPaths = tuple[Path, Path, Path, Path]
"""Cards of the models for territories, slices, decomposition and lesions."""

VERSION = 17
"""Version of the cached results; those of other versions are measured again."""

MAP_RULES = ((None, 20.0), (None, 40.0))
"""Lowest HU of the healthy image (None for no such rule) and floor of the map, tried in pairs. The published rule of
−10 HU is left out: arteries lie in fat, and with it the bundled map captures half as much calcium (0.35 instead of
0.70)."""

CORONARY_MG_CM3 = 10.0
"""Density of coronary calcium in a voxel that makes a lesion of the map a coronary one."""


@dataclass(frozen=True)
class MapSettings:
    """Settings that the calcium map depends on, as in `DecompositionSettings`."""

    slice_threshold: float
    min_healthy_hu: float | None
    floor_hu: float


@dataclass(frozen=True)
class LesionTable:
    """Lesions of one scan by one method.

    Attributes:
        features: Evidence of each lesion, float [n] by name of the feature.
        coronary: True if the lesion holds coronary calcium, bool [n].
        agatston: Agatston scores on the clinical scale, float [n].
        pseudo_mass: Pseudo-masses in HU·mm³, float [n].
        artery: `Artery` of each lesion, int [n].
        shared: Voxels that each lesion of the map shares with each candidate of the clinical rule, int [n, candidates].
        elsewhere: True for lesions of the map that hold calcium or metal outside the arteries, bool [n].
    """

    features: dict[str, np.ndarray]
    coronary: np.ndarray
    agatston: np.ndarray
    pseudo_mass: np.ndarray
    artery: np.ndarray
    shared: np.ndarray
    elsewhere: np.ndarray

    @classmethod
    def of(
        cls,
        lesion_set: LesionSet,
        features: dict[str, np.ndarray],
        truth: np.ndarray,
        shared: np.ndarray,
        elsewhere: np.ndarray,
    ) -> LesionTable:
        """Tabulate a lesion set. truth: Voxels with coronary calcium, bool [k, j, i]."""
        coronary = set(np.unique(lesion_set.id_map[truth]).tolist())
        return cls(
            features,
            np.array([lesion.id in coronary for lesion in lesion_set.lesions], bool),
            np.array([lesion.clinical_agatston for lesion in lesion_set.lesions], float),
            np.array([lesion.pseudo_mass_hu_mm3 for lesion in lesion_set.lesions], float),
            np.array([int(lesion.site) for lesion in lesion_set.lesions], int),
            shared,
            elsewhere,
        )

    def selected(self, selection: np.ndarray) -> LesionTable:
        """Return some of the lesions. selection: True for these, bool [n]."""
        features = {name: values[selection] for name, values in self.features.items()}
        columns = {name: values[selection] for name, values in vars(self).items() if name != "features"}
        return LesionTable(features, **columns)

    def scores(self, is_counted: np.ndarray, scan: MeasuredScan) -> dict[str, dict[str, float]]:
        """Return each artery's scores (keys of `uncertainty.LIMITS`). is_counted: True for lesions that count, [n]."""
        scores = {}
        for artery in MAIN_ARTERIES:
            in_artery = is_counted & (self.artery == artery)
            mass = float(self.pseudo_mass[in_artery].sum()) * scan.mg_per_hu_mm3
            scores[artery.key] = {"agatston": float(self.agatston[in_artery].sum()), "mass_mg": mass}
        return scores

    def as_json(self) -> dict[str, object]:
        """Return the lesions as JSON."""
        columns = {name: values.tolist() for name, values in vars(self).items() if name != "features"}
        return {"features": {name: values.tolist() for name, values in self.features.items()}, **columns}

    @classmethod
    def read(cls, content: dict[str, Any]) -> LesionTable:
        """Read lesions from JSON."""
        features = {name: np.array(values, float) for name, values in content["features"].items()}
        kinds: dict[str, type] = {"coronary": bool, "artery": int, "shared": int, "elsewhere": bool}
        columns: dict[str, np.ndarray] = {
            name: np.array(content[name], kinds.get(name, float)) for name in content if name != "features"
        }
        return cls(features, **columns)


@dataclass(frozen=True)
class MeasuredScan:
    """Scan with all lesions of the map and all candidates of the clinical rule.

    Attributes:
        patient: Patient of the scan.
        kind: Kind of scan, one of `datasets.KINDS`.
        visible: True if coronary calcium is visible in a slice.
        lesions: Lesions of the map, by its settings.
        candidates: Candidates of the clinical rule, with their evidence, by the map's settings.
        reader: Scores by artery of an ideal reader, who knows every lesion of this scan (keys of `uncertainty.LIMITS`).
        reference_agatston: Agatston score by artery of a motion- and noise-free scan (`reference_scores`), or None.
        true_mass_mg: True mass by artery.
        mg_per_hu_mm3: The scanner's calibration of mass.
        facts: Acquisition and image quality, which determine difficulty and calibration range.
    """

    patient: str
    kind: str
    visible: bool
    lesions: dict[MapSettings, LesionTable]
    candidates: dict[MapSettings, LesionTable]
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
    """Measure all scans; one that cannot be scored becomes a warning.

    Args:
        scans: The scans.
        models: Cards of the models.
        thresholds: Probabilities from which a slice is decomposed.
        cache: Folder of results.
        workers: Processes.
        progress: Progress of the run.
    """
    cache.mkdir(parents=True, exist_ok=True)
    remove_partial(cache, LEFT_SECONDS)
    measured = []
    events = run_jobs(
        partial(partial, _measure_or_explain, models, thresholds, cache), scans, workers, progress.counted
    )
    for scan, event in zip(scans, events, strict=True):
        if isinstance(event.result, MeasuredScan):
            measured.append(event.result)
        else:
            progress.warning(ScanWarning("scan-left-out", f"{scan.ct}: {event.result or event.reason}"))
    return sorted(measured, key=lambda scan: scan.patient)


def _measure_or_explain(
    models: ModelPaths, thresholds: Sequence[float], cache: Path, scan: TrainingScan
) -> MeasuredScan | str:
    try:
        return measure(scan, models, thresholds, cache)
    except CTError as error:
        return str(error)


def measure(scan: TrainingScan, models: ModelPaths, thresholds: Sequence[float], cache: Path) -> MeasuredScan:
    """Measure one scan, or read it from the cache. Raises CTError."""
    hashes = [path and read_card(path).sha256 for path in models]
    digest = hashlib.sha256(json.dumps([VERSION, scan.fingerprint(), *hashes, *thresholds]).encode()).hexdigest()
    path = cache / f"{digest[:24]}.json"
    use_threads(1)  # scans are scored side by side
    if not path.is_file():
        write_text_atomically(path, json.dumps(_measured(scan, models, thresholds)))
    content = read_json(path)
    for name in ("lesions", "candidates"):
        content[name] = {MapSettings(**settings): LesionTable.read(table) for settings, table in content[name]}
    return MeasuredScan(**content)


@dataclass(frozen=True)
class _ScanWithHeart:
    """A scan with its heart.

    Attributes:
        ct: The scan.
        record: Content of its `truth.json`.
        region: Heart and territories.
        blood: Blood and noise; None if not measured.
        truth: Voxels with coronary calcium, bool [k, j, i].
    """

    ct: CTScan
    record: dict[str, Any]
    region: HeartRegion
    blood: BloodPool | None
    truth: np.ndarray

    @classmethod
    def of(cls, scan: TrainingScan, territories: Path) -> _ScanWithHeart:
        """Find the heart of a scan. territories: Card of the model. Raises CTError."""
        ct, record = read_ct(scan.ct), read_json(scan.ct.parent / "truth.json")
        kvp = ct.acquisition.kvp or record["scanner"]["kvp"]  # missing from NIfTI
        ct = replace(ct, acquisition=replace(ct.acquisition, kvp=kvp))
        region = find_heart(ct, None, load_model(territories))
        truth = sitk.GetArrayFromImage(read_mask(scan.ct.parent / "calcium_map.nii.gz")) >= CORONARY_MG_CM3
        return cls(ct, record, region, measure_blood(ct, region.mask), truth)

    @property
    def noise_hu(self) -> float | None:
        """Noise of blood, SD; None if not measured."""
        return None if self.blood is None else self.blood.noise_hu

    @property
    def territories(self) -> Territories:
        """Territories, by whose places lesions are judged. Raises CTError without them."""
        if self.region.territories is None:
            raise CTError("The calibration found no territories in a scan. Choose a model with --territories.")
        return self.region.territories


def _measured(scan: TrainingScan, models: ModelPaths, thresholds: Sequence[float]) -> dict[str, Any]:
    """Measure candidates, lesions of the map, and what is true of the scan: fields of MeasuredScan as JSON."""
    territories, classifier, generator, judge = models
    heart, network = _ScanWithHeart.of(scan, territories), load_model(judge)
    ct, region, record = heart.ct, heart.region, heart.record
    rules = rules_for_tube_voltage(ct.acquisition, ScoringRules())
    tables = _lesions(heart, rules, thresholds, load_model(classifier), load_model(generator), network)
    regions = sitk.GetArrayFromImage(read_mask(scan.ct.parent / "regions.nii.gz"))
    mg_per_hu_mm3 = 1 / (1000 * record["calcium_hu_per_mg_cm3"])
    reader_scores = scores_by_site(find_lesions(ct.image, regions, rules).lesions, Artery)
    reader = {
        artery.key: {
            "agatston": reader_scores[artery].agatston,
            "mass_mg": reader_scores[artery].pseudo_mass_hu_mm3 * mg_per_hu_mm3,
        }
        for artery in MAIN_ARTERIES
    }
    patient, reference = patient_of(record), None
    if patient is not None:
        reference = {artery: score.agatston for artery, score in reference_scores(patient).items()}
    return {
        "patient": scan.patient,
        "kind": scan.kind,
        "visible": scan.shows_calcium(),
        "lesions": [(asdict(settings), of_map.as_json()) for settings, (of_map, _) in tables.items()],
        "candidates": [(asdict(settings), candidates.as_json()) for settings, (_, candidates) in tables.items()],
        "reader": reader,
        "reference_agatston": reference,
        "true_mass_mg": record["mass_mg_by_artery"],
        "mg_per_hu_mm3": mg_per_hu_mm3,
        "facts": _facts(ct, region.mask, heart.blood, record["scanner"]),
    }


def _lesions(
    heart: _ScanWithHeart,
    rules: ScoringRules,
    thresholds: Sequence[float],
    classifier: LoadedModel,
    generator: LoadedModel,
    judge: LoadedModel,
) -> dict[MapSettings, tuple[LesionTable, LesionTable]]:
    """Measure the lesions of the calcium map, and the candidates of the clinical rule, in all settings of the map.

    Args:
        heart: Scan and heart.
        rules: Clinical rule.
        thresholds: Probabilities to decompose a slice from.
        classifier: Slice classifier.
        generator: Generator of maps.
        judge: Lesion network.
    """
    ct, region = heart.ct, heart.region
    sites = candidate_sites(region, ct.hu >= rules.threshold_hu)
    sites = sites_by_looks(sites, ct, heart.territories, judge)
    with_metal = find_lesions(ct.image, sites, rules)
    dense = without_metal(with_metal, ct.image)[0]
    candidates, specks = dense.coronary, NoiseSpecks.of(dense, heart.territories)
    places = verdicts_by_place(candidates, region.territories)
    kinds = lesion_kinds(candidates.id_map, candidates.ids, ct, heart.territories, judge)
    stored = DecompositionSettings.of(classifier, generator)
    slice_calcium = slice_probabilities(ct, region.mask, classifier)
    slices, count = slice_calcium.slices, ct.image.GetSize()[2]
    is_certain = overlaps(slices.grid, count)[:, list(slices_of_coronary_looks(candidates, kinds))].any(1)
    probabilities = np.where(is_certain, np.float32(1), slice_calcium.on_grid)
    maps, _ = raw_maps(slices, probabilities >= min(thresholds), count, generator, stored.batch_size)
    tables = {}
    for settings in (MapSettings(threshold, *rule) for threshold in thresholds for rule in MAP_RULES):
        decomposed = probabilities >= settings.slice_threshold
        parts = assembled(ct, region.mask, slices, maps, decomposed, replace(stored, **asdict(settings)))
        features = candidate_features(candidates, places, kinds, specks, parts.hu)
        no_share, nowhere = np.zeros((len(candidates.lesions), 0), int), np.zeros(len(candidates.lesions), bool)
        clinical = LesionTable.of(candidates, features, heart.truth, no_share, nowhere)
        map_rules = rules_of_map(rules, settings.floor_hu, ct.acquisition.calcium_kvp)
        sites = candidate_sites(region, parts.hu >= settings.floor_hu)
        map_lesions = find_lesions(parts.image(), sites, map_rules, peaks=ct.image)
        coronary = without_metal(map_lesions, ct.image)[0].coronary
        features = map_features(
            coronary, verdicts_by_place(coronary, region.territories), slice_calcium.on_scan, heart.noise_hu
        )
        shared, elsewhere = shared_voxels(coronary, candidates), lies_elsewhere(coronary, with_metal, candidates)
        of_map = LesionTable.of(coronary, features, heart.truth, shared, elsewhere)
        tables[settings] = of_map, clinical
    return tables


def _facts(
    ct: CTScan, heart: sitk.Image, blood: BloodPool | None, scanner: dict[str, Any]
) -> dict[str, float | str | None]:
    """Return the facts of a scan (`MeasuredScan`). scanner: Simulated scanner, for facts missing from the header."""
    acquisition, spacing = ct.acquisition, ct.image.GetSpacing()
    return {
        "pixel_mm": spacing[0],
        "slice_spacing_mm": spacing[2],
        "slice_thickness_mm": acquisition.slice_thickness_mm or scanner["slice_thickness_mm"],
        "kernel": acquisition.kernel or scanner["kernel"]["name"],
        "kvp": acquisition.kvp,
        **({} if blood is None else asdict(blood)),
        **framing(voxels_of(heart), spacing),
    }
