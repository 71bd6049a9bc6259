"""Score scans with known calcium for `cac calibrate`: results in which every lesion is compared with the truth.

Tables of the lesions are cached in a folder, so that an interrupted calibration can be resumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import read_json
from CACScoringLib.core.labels import MAIN_ARTERIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.facts.dense import DenseVoxels
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models.cards import StoredModel, read_card
from CACScoringLib.models.choice import Networks, load_networks
from CACScoringLib.models.inference import use_threads
from CACScoringLib.models.operating_points import SCORING_LIMIT
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.quality.calibration import calibration_facts
from CACScoringLib.record.scores import LesionSet
from CACScoringLib.results import ScoreResult
from CACScoringLib.scoring.judge import lesions_beneath
from CACScoringLib.scoring.lesions import score_labels
from CACScoringLib.scoring.sites import map_features, verdicts_by_place
from CACScoringLib.scoring.uncertainty import LesionCalibration, log_odds, place_log_odds

from ..evaluation.jobs import JobSettings, job_key, kept_jobs
from ..phantom import patient_of, reference_scores
from ..project.training_scan import TrainingScan
from .scored_scan import CORONARY_MG_CM3

ModelPaths = Mapping[str, Path]
"""Cards of the models that score, by network."""

VERSION = 24
"""Version of the cached results; those of other versions are measured again."""

MAP_RULE = {"min_healthy_hu": None, "floor_hu": 20.0}
"""Settings of a map that has none yet. The published rule of −10 HU is left out: arteries lie in fat, and with it the
bundled map captures half as much calcium (0.35 instead of 0.70)."""

LOGIT, PLACE = "network_logit", "place_logit"
"""Evidence of a dense lesion, of its plaque: log-odds of being coronary calcium by the lesion network, before
calibration, and of lying in the territory of an artery."""


@dataclass(frozen=True)
class MeasuredScan:
    """Scan with all lesions of the map and everything dense.

    Attributes:
        patient: Patient of the scan.
        kind: Kind of scan, one of `datasets.KINDS`; "" for a user's.
        visible: True if coronary calcium is visible in a slice.
        lesions: Lesions of the map, a row each: MAP_FEATURES; coronary, True if it holds coronary calcium; agatston, on
            the clinical scale; artery, its key, or NaN if it cannot count; beneath, the number of the dense lesion
            whose verdict it has, or −1. For a user's scan, the probability by the former calibration instead.
        dense: Dense lesions that the lesion network has judged, with LOGIT and PLACE instead of MAP_FEATURES. For a
            user's scan, FORMER instead; may_count, False for one that no calibration lets count; and coronary may be
            None if it is unknown.
        reader_agatston: Agatston score by artery of an ideal reader, who knows every lesion of this scan; for a user's
            scan the scores of the reference, also the total.
        reference_agatston: Agatston score by artery of a motion- and noise-free scan (`reference_scores`), or None; for
            a user's scan the same as of the reader.
        facts: Acquisition and image quality, which determine the calibration range.
        is_gated: True if the scan was gated.
    """

    patient: str
    kind: str
    visible: bool
    lesions: pd.DataFrame
    dense: pd.DataFrame
    reader_agatston: dict[str, float]
    reference_agatston: dict[str, float] | None
    facts: dict[str, float | str | None]
    is_gated: bool


def measure_all(
    scans: Sequence[TrainingScan], models: ModelPaths, cache: Path, workers: int, progress: Progress
) -> list[MeasuredScan]:
    """Measure all scans; one that cannot be scored becomes a warning.

    Args:
        scans: The scans.
        models: Cards of the models.
        cache: Folder of results, with a file for these models.
        workers: Processes.
        progress: Progress of the run.
    """
    hashes = [read_card(path).sha256 for path in models.values()]
    file = cache / f"{job_key('', VERSION, hashes, _settings(models))}.jsonl"
    jobs = {job_key(scan.name, scan.fingerprint()): scan for scan in scans}
    measured, failed = kept_jobs(jobs, file, partial(_measuring, models), JobSettings(workers, progress=progress))
    for key, reason in failed.items():
        progress.warning(ScanWarning("scan-left-out", f"{jobs[key].ct}: {reason}"))
    return sorted((_read(measured[key]) for key in jobs if key in measured), key=lambda scan: scan.patient)


def _measuring(models: ModelPaths) -> Callable[[TrainingScan], dict[str, Any]]:
    use_threads(1)  # scans are scored side by side
    return partial(_measured, _uncalibrated(models), _settings(models))


def _read(content: dict[str, Any]) -> MeasuredScan:
    return MeasuredScan(**{**content, **{name: _lesions(content[name]) for name in ("lesions", "dense")}})


def _lesions(content: dict[str, Any]) -> pd.DataFrame:
    """Read lesions from JSON."""
    keys = {int(artery): artery.key for artery in MAIN_ARTERIES}
    columns = {name: np.array(values, float) for name, values in content["features"].items()}
    kinds = {"coronary": bool, "agatston": float, "beneath": int}
    columns |= {name: np.array(content[name], kind) for name, kind in kinds.items()}
    return pd.DataFrame(columns).assign(artery=pd.Series([keys.get(n) for n in content["artery"]], dtype=object))


def _settings(models: ModelPaths) -> DecompositionSettings:
    """Return the settings of the map, as stored or usual, by which no lesion of it is left out."""
    slices, decomposition = (read_card(models[network]) for network in ("slices", "decomposition"))
    usual = {**MAP_RULE, "slice_threshold": SCORING_LIMIT}
    stored = replace(decomposition, calibration={**usual, **slices.calibration, **decomposition.calibration})
    return replace(DecompositionSettings.of(slices, stored), evidence_weights=None, most_not_coronary=1.0)


_ALL_COUNT = 100.0
"""Log-odds that let every lesion count whose likeliest answer is an artery."""


def _uncalibrated(models: ModelPaths) -> Networks:
    """Load the networks; dense lesions count wherever an artery is the lesion network's likeliest answer."""
    stored = {network: StoredModel(read_card(path), path, "user") for network, path in models.items()}
    networks = load_networks(stored, "cpu")
    assert networks is not None
    card = networks.decomposition.card
    candidates = {"candidates": asdict(LesionCalibration(intercept=_ALL_COUNT, gated_intercept=_ALL_COUNT))}
    loaded = replace(networks.decomposition, card=replace(card, calibration={**card.calibration, **candidates}))
    return replace(networks, decomposition=loaded)


def _measured(networks: Networks, settings: DecompositionSettings, scan: TrainingScan) -> dict[str, Any]:
    """Score a scan and compare the result with what is true of it: fields of MeasuredScan as JSON."""
    ct, record = read_ct(scan.ct), read_json(scan.ct.parent / "truth.json")
    scanner, header = record["scanner"], ct.acquisition
    acquisition = replace(  # NIfTI files lack these
        header,
        kvp=header.kvp or scanner["kvp"],
        slice_thickness_mm=header.slice_thickness_mm or scanner["slice_thickness_mm"],
        kernel=header.kernel or scanner["kernel"]["name"],
        gating=None if scanner["gate_phase"] is None else "digital",
    )
    ct = replace(ct, acquisition=acquisition)
    result = score_scan(ct, ScoreSettings(decomposition=settings), networks=networks)
    truth = sitk.GetArrayFromImage(read_mask(scan.ct.parent / "calcium_map.nii.gz")) >= CORONARY_MG_CM3
    dense, in_map = _tables(result, truth)
    regions = sitk.GetArrayFromImage(read_mask(scan.ct.parent / "regions.nii.gz"))
    reader = score_labels(ct, regions).arteries
    patient, reference = patient_of(record), None
    if patient is not None:
        reference = {artery: score.agatston for artery, score in reference_scores(patient).items()}
    return {
        "patient": scan.patient,
        "kind": scan.kind,
        "visible": scan.shows_calcium(),
        "lesions": in_map,
        "dense": dense,
        "reader_agatston": {artery.key: reader[artery].agatston for artery in MAIN_ARTERIES},
        "reference_agatston": reference,
        "facts": calibration_facts(result.scored_scan, result.record.measured, result.region.mask),
        "is_gated": acquisition.gating is not None,
    }


def _tables(result: ScoreResult, truth: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the judged dense lesions of an uncalibrated result, and the lesions of its map, as JSON.

    truth: Voxels with coronary calcium, bool [k, j, i]. Raises CTError if the networks found no territories, or did not
    judge the lesions.
    """
    clinical, mapped = result.methods["threshold"], result.methods["decomposition"]
    if clinical.status != "automatic" or result.region.territories is None:
        raise CTError("The networks have judged no lesions. Choose a model with --territories or --lesions.")
    judged = [lesion for lesion in clinical.listed if lesion.verdict is not None]
    dense = LesionSet.of(judged, clinical.table.every)
    verdicts = [lesion.verdict for lesion in judged if lesion.verdict is not None]
    evidence = {
        LOGIT: log_odds(np.array([verdict.coronary for verdict in verdicts])),
        PLACE: place_log_odds(np.array([verdict.in_artery for verdict in verdicts])),
    }
    in_map, record = mapped.lesion_set, result.record
    probabilities = np.array([math.nan if p is None else p for p in record.slice_probabilities or ()], float)
    places = verdicts_by_place(in_map, DenseVoxels.of(in_map, result.region.territories))
    features = map_features(in_map, places, probabilities, record.noise_hu)
    numbers, beneath = {x.id: n for n, x in enumerate(judged)}, lesions_beneath(in_map, dense)
    of_map = [numbers[beneath[x.id]] if x.id in beneath else -1 for x in in_map.lesions]
    return _as_json(dense, evidence, truth, [-1] * len(judged)), _as_json(in_map, features, truth, of_map)


def _as_json(
    lesion_set: LesionSet, features: dict[str, np.ndarray], truth: np.ndarray, beneath: list[int]
) -> dict[str, Any]:
    coronary = set(np.unique(lesion_set.id_map[truth]).tolist())
    return {
        "features": {name: values.tolist() for name, values in features.items()},
        "coronary": [lesion.id in coronary for lesion in lesion_set.lesions],
        "agatston": [float(lesion.clinical_agatston) for lesion in lesion_set.lesions],
        "artery": [int(lesion.site) for lesion in lesion_set.lesions],
        "beneath": beneath,
    }
