"""A patient with an automatic clinical score: ten lesions and five false candidates, five of which are misclassified.

The lesion network judges by brightness alone. Two of the nine brightest candidates, which count, are false; three
of the other six, which are excluded, are lesions.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import heart_with_territories
import panel_results
import SimpleITK as sitk
from handmade_networks import LooksAsBright, loaded

from CACScoringLib import pipeline
from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import NonCoronary
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import ModelCard
from CACScoringLib.models.choice import Networks
from CACScoringLib.networks.configs import LesionNetConfig
from CACScoringLib.record.scores import LesionSet
from CACScoringLib.results import ScoreResult
from CACScoringLib.run import RunSettings, write_result
from CACScoringLib.scoring.scores import method_score, non_coronary_score
from CACScoringLib.scoring.uncertainty import LesionCalibration

LESIONS = (True, True, True, True, False, True, True, True, False, True, False, True, True, False, False)
"""True for candidates that are lesions, from the brightest to the faintest."""

_HU = (720, 660, 600, 550, 500, 450, 400, 360, 330, 215, 195, 185, 175, 167, 160)
SPREADS = {"automatic": 0.5, "decomposition": 0.8}
"""SD of ln(1 + score) beside the lesions, by kind of score."""

REPEATS = 40.0
"""Limit of agreement (95 %) between two reviewed scores."""


def places() -> list[tuple[int, int, int]]:
    """First voxel (k, j, i) of each candidate, which has two voxels along k and three along j and i."""
    columns = [(26, 22), (26, 30), (26, 38), (34, 26), (34, 36)]
    order = [(k, *column) for k in (5, 9, 13) for column in columns]
    return [order[n * 4 % 15] for n in range(15)]  # brightness and place are unrelated


def image() -> sitk.Image:
    """Make the chest of `panel_results` with these candidates."""
    chest = panel_results.chest_image()
    hu = sitk.GetArrayFromImage(chest)
    for *at, _ in panel_results.LESIONS.values():
        hu[_box(at)] = panel_results.TISSUE_HU
    for at, value in zip(places(), _HU, strict=True):
        hu[_box(at)] = value
    return Grid.of(chest).image(hu)


def map_card(judges: bool = True, domain: dict | None = None) -> ModelCard:
    """Make a card of the calcium map's model with known errors of scores.

    Args:
        judges: False for a card without a calibration of lesions.
        domain: Stored calibration range (`CalibrationRange`).
    """
    errors = {kind: {"spread": spread, "level": 0.9} for kind, spread in SPREADS.items()}
    calibration: dict = {"uncertainty": {kind: {"total": part, "artery": part} for kind, part in errors.items()}}
    if judges:
        calibration["candidates"] = asdict(LesionCalibration())
    if domain is not None:
        calibration["known"] = domain
    limits = {"intercept": REPEATS, "slope": 0.0, "factor": 1.0, "pairs": 40, "highest": 1e5}
    parts = dict.fromkeys(("total", "artery"), limits)
    study = {"digital": True, "data": "pairs", "date": "2026-11-22", "models": {}, "acquisition": {}}
    study["settings"] = None
    study["limits"] = {"threshold": {"agatston": parts}}
    card = panel_results.known_networks().decomposition.card
    return replace(card, calibration=calibration, repeatability=study)


def scored(**changes: object) -> ScoreResult:
    """Return the patient's result, scored once for all tests; `changes` are arguments of `score`."""
    return score(**changes) if changes else _usual_result()


def score(
    judges: bool = True, domain: dict | None = None, lesions: sitk.Image | None = None, status: str = "reviewed"
) -> ScoreResult:
    """Score the patient with a model of `map_card`, optionally with lesions, whose score has a status."""
    scan = scan_from_image(image(), Acquisition("NRRD"))
    used = networks(judges, domain)
    with mock.patch("CACScoringLib.anatomy.heart_search.find_heart", lambda scan, *_: _heart(scan.image)):
        settings = pipeline.ScoreSettings(decomposition=DecompositionSettings())
        return pipeline.score_scan(scan, settings, lesions=lesions, networks=used, status=status)


def networks(judges: bool = True, domain: dict | None = None) -> Networks:
    """Return the networks that score the patient, with a model of `map_card`."""
    known = panel_results.known_networks()
    of_map = replace(known.decomposition, card=map_card(judges, domain))
    return Networks(known.slices, of_map, lesions=loaded(LooksAsBright(), LesionNetConfig()))


def write(folder: Path) -> ScoreResult:
    """Write the files of `cac score` without a scene, and return the result."""
    shutil.copytree(_usual_folder(), folder)
    return scored()


def write_elsewhere(folder: Path, counted: int) -> None:
    """Write a result in which a doubtful candidate lies in the aortic valve, beside the brightest counted lesions.

    counted: Number of these; all other lesions are gone.
    """
    method = scored().methods["threshold"]
    lesions = sorted(method.lesions, key=lambda lesion: -lesion.peak_hu)[:counted]
    doubtful = max(method.left_out, key=lambda lesion: lesion.verdict.probability)
    root = replace(doubtful, site=NonCoronary.AORTIC_VALVE)
    table = LesionSet.of((*lesions, root), method.table.every)
    elsewhere = non_coronary_score(False, table)
    methods = {"threshold": method_score("automatic", method.rules, table, non_coronary=elsewhere)}
    result = scored().stating(methods=methods)
    write_result(OutputFolder(folder, overwrite=True), replace(result, decomposition=None), RunSettings(), Progress())


@functools.cache
def _usual_result() -> ScoreResult:
    return score()


@functools.cache
def _usual_folder() -> str:
    folder = tempfile.mkdtemp(prefix="cac-automatic-patient-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_result(OutputFolder(Path(folder), overwrite=True), scored(), RunSettings(), Progress())
    return folder


def _box(at) -> tuple[slice, ...]:
    return tuple(slice(start, start + size) for start, size in zip(at, (2, 3, 3), strict=True))


def _heart(image: sitk.Image):
    slabs = {"LAD": slice(0, 8), "LCX": slice(8, 12), "RCA": slice(12, None)}
    boxes = {name: (k, slice(None), slice(None)) for name, k in slabs.items()}
    return heart_with_territories.region_of(image, boxes, panel_results.heart_mask(image))
