"""Ablation study: the same scan pairs scored without each part of the method.

After van Velzen et al., section 5.4 and figure 6: with and without the heart mask and the slice classifier, at its
published operating point; besides, the classifier's limit of scoring, the rule about the healthy image and the
evaluation of the map's lesions, which the paper lacks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from CACScoringLib.anatomy.between_lungs import landmarks
from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.decoding import decoded
from CACScoringLib.core.errors import CTError
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import Calibration, LoadedModel, StoredModel
from CACScoringLib.models.choice import ModelChoice, Networks, chosen_models, load_networks
from CACScoringLib.models.inference import Runner, predict, use_threads
from CACScoringLib.models.operating_points import PUBLISHED, SCORING, operating_point
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.statistics.agreement import rank_correlation

from ..evaluation.figures import panels_of_values
from ..evaluation.jobs import JobSettings, Prepared, job_key, kept_jobs
from ..evaluation.measures import Measure
from ..evaluation.parts import Section
from ..references.reference import ReferenceScan
from .detection import rates_of
from .records import TEXTS, ComparedScan, Sample, Scores, pairs_of, score_table, scores_of
from .reproducibility import icc_of_pairs, relative_difference

if TYPE_CHECKING:
    import torch

VERSION = 5
"""Version of the stored scores; those of another version are not used."""

PUBLISHED_MIN_HEALTHY_HU = -10.0


@dataclass(frozen=True)
class AblationConfiguration:
    """Parts of the method that a score uses.

    Attributes:
        key: Name in tables.
        title: Title of its row.
        heart: Restrict the map to the heart.
        slices: Slices to decompose: those that the classifier calls positive at an operating point, PUBLISHED or
            SCORING; None for all.
        other_rule: Switch the rule about the healthy image: off if the models have it on, else on.
        completed: Add what the map misses of certain lesions of the clinical rule.
        evaluated: Exclude lesions that are probably not coronary calcium.
    """

    key: str
    title: str
    heart: bool = True
    slices: str | None = PUBLISHED
    other_rule: bool = False
    completed: bool = True
    evaluated: bool = True

    def settings(self, base: DecompositionSettings, published_limit: float) -> DecompositionSettings:
        """Settings of this configuration.

        Args:
            base: Settings stored with the models.
            published_limit: Limit of the classifier's published operating point.
        """
        if self.slices != SCORING:
            base = replace(base, slice_threshold=0.0 if self.slices is None else published_limit)
        if self.other_rule:
            base = replace(base, min_healthy_hu=PUBLISHED_MIN_HEALTHY_HU if base.min_healthy_hu is None else None)
        if not self.completed:
            base = replace(base, without_completion=True)
        return base if self.evaluated else replace(base, most_not_coronary=1.0)


FULL_METHOD = AblationConfiguration("whole", "heart and slice classifier")
WITH_EVALUATION = (
    FULL_METHOD,
    AblationConfiguration("scoring_limit", "with the slice classifier's limit of scoring", slices=SCORING),
    AblationConfiguration("no_classifier", "without the slice classifier", slices=None),
    AblationConfiguration("no_heart", "without the heart", heart=False),
    AblationConfiguration("neither", "without both", heart=False, slices=None),
    AblationConfiguration("other_rule", "with the −10 HU rule switched", other_rule=True),
    AblationConfiguration("no_completion", "without completion by the clinical rule", completed=False),
)
CONFIGURATIONS = WITH_EVALUATION + tuple(
    replace(item, key=f"all_{item.key}", title=f"{item.title}, all lesions", evaluated=False)
    for item in WITH_EVALUATION
)
_TITLE = "Ablation"


def sections(
    scans: Sequence[ReferenceScan],
    records: Sequence[ComparedScan],
    folder: Path,
    pairs: int,
    models: Mapping[str, StoredModel],
    work: JobSettings,
    generator: np.random.Generator,
) -> tuple[Section, ...]:
    """Score the first pairs in every configuration and compare.

    Args:
        scans: Scans of the study.
        records: Records of the scans.
        folder: Folder that keeps the scores.
        pairs: Number of pairs, from the first.
        models: Models by network.
        work: Workers and progress.
        generator: Source of the bootstrap's draws.
    """
    paired = {record.name: record for pair in pairs_of(records)[:pairs] for record in pair}
    paired_scans = [scan for scan in scans if scan.name in paired]
    if not paired_scans:
        return (Section("ablation", _TITLE, ("There is no pair of which both scans were scored.",)),)
    values = score_configurations(paired_scans, models, CONFIGURATIONS, folder / "cells.jsonl", work)
    limit = operating_point(models["slices"].card, PUBLISHED).threshold
    scored = [replace(record, values=values.get(name, {})) for name, record in paired.items()]
    sample = Sample(scored, generator, {item.key: item.title for item in CONFIGURATIONS}, FULL_METHOD.key)
    scores = score_table(scored)
    measures = [
        *rates_of(scores),
        *(relative_difference(sample, in_both) for in_both in (True, False)),
        icc_of_pairs(sample),
    ]
    if any(record.truth_mg for record in scored):
        measures.append(Measure("Rank correlation with true mass", rank_correlation, scores[scores.truth.notna()]))
    text = (
        f"{len(scored)} scans of {len(scored) // 2} patients were scored again, each without a part of the method. All "
        "settings share the same networks and resamples, so that differences are paired. "
        f"The slice classifier decides at its published limit, {limit:.3g}.",
    )
    tables = (
        sample.value_table(TEXTS, "ablation", measures),
        sample.difference_table(TEXTS, "ablation_differences", measures),
    )
    methods = {"Lesions evaluated": WITH_EVALUATION, "All lesions of the map": CONFIGURATIONS[len(WITH_EVALUATION) :]}
    panels = {
        measure.title: {name: [sample.estimate(measure, item.key) for item in part] for name, part in methods.items()}
        for measure in measures
        if measure.title in TEXTS.parts["ablation"].published
    }
    draw = partial(panels_of_values, groups=[item.title for item in WITH_EVALUATION], panels=panels, y_title="")
    figure = TEXTS.figure("ablation_figure", draw, (7, 4))
    return (Section("ablation", _TITLE, text, tables, (figure,), values=(scores,)),)


def score_configurations(
    scans: Sequence[ReferenceScan],
    models: Mapping[str, StoredModel],
    configurations: Sequence[AblationConfiguration],
    file: Path,
    work: JobSettings,
) -> dict[str, dict[str, Scores]]:
    """Score the calcium map of each scan in each configuration; failures are left out.

    Args:
        scans: Scans to score.
        models: Models by network.
        configurations: Configurations to score in.
        file: File that keeps finished scans.
        work: Workers and progress.

    Returns:
        Scores by name of the scan and key of the configuration.
    """
    limit = operating_point(models["slices"].card, PUBLISHED).threshold
    identity = (VERSION, configurations, models_key(models), limit)
    keys = {job_key(scan.name, *identity, files=[scan.ct]): scan for scan in scans}
    score = partial(_scored, configurations=tuple(configurations), published_limit=limit)
    results, _ = kept_jobs(keys, file, partial(with_networks, score, dict(models), work.device), work)
    return {keys[key].name: decoded(values, dict[str, Scores], key) for key, values in results.items()}


def _scored(
    networks: Networks, scan: ReferenceScan, configurations: tuple[AblationConfiguration, ...], published_limit: float
) -> dict[str, Any]:
    ct = read_ct(scan.ct, scan.series)
    per_mass = scan.hu_mm3_per_mass()
    networks = remembering(networks)
    full_result = score_scan(ct, networks=networks)
    assert full_result.decomposition is not None
    base = full_result.decomposition.settings
    room = None if all(configuration.heart for configuration in configurations) else chest_room(ct)
    values = {}
    for configuration in configurations:
        result = full_result
        decomposition = configuration.settings(base, published_limit)
        if decomposition != base or not configuration.heart:
            # In the room of the whole chest bones would be taken for enhanced blood.
            no_heart = not configuration.heart  # its room is no heart that contrast or orientation can be seen in
            changed = ScoreSettings(decomposition=decomposition, allow_contrast=no_heart, allow_reversed=no_heart)
            try:
                result = score_scan(ct, changed, None if configuration.heart else room, networks=networks)
            except CTError:  # so many lesions that it is noise; the scan's other configurations stand
                continue
        values[configuration.key] = scores_of(result.methods["decomposition"], per_mass)
    return values


def scoring_models(choice: ModelChoice) -> dict[str, StoredModel]:
    """Return the models that score scans, by network. Raises ModelError, and CTError if they are not installed."""
    models = chosen_models(choice).networks
    if not models:
        raise CTError("The study needs the networks that score scans, which are not installed (cac models list).")
    return models


def with_networks(do_job: Callable[..., dict[str, Any]], models: Mapping[str, StoredModel], device: str) -> Prepared:
    """Bind networks to a worker's function for jobs, on one core."""
    use_threads(1)
    networks = load_networks(dict(models), device)
    assert networks is not None
    return partial(do_job, networks)


def models_key(models: Mapping[str, StoredModel]) -> list[tuple[str, str, Calibration]]:
    """Identity of models, given by network, for the key of a job."""
    return [(network, model.card.sha256, model.card.calibration) for network, model in sorted(models.items())]


def remembering(networks: Networks) -> Networks:
    """Return networks that cache their outputs for one scan, whose configurations share most inputs."""
    values = {field.name: getattr(networks, field.name) for field in fields(networks)}
    models = {name: value for name, value in values.items() if isinstance(value, LoadedModel)}
    return replace(networks, **{name: replace(m, network=Memory(m.network)) for name, m in models.items()})


class Memory:
    """A network that caches its outputs by digest of each input."""

    def __init__(self, network: Runner | torch.nn.Module) -> None:
        self.network = network
        self.answers: dict[bytes, np.ndarray] = {}

    def run(self, inputs: np.ndarray) -> np.ndarray:
        keys = [hashlib.blake2b(item.tobytes(), digest_size=16).digest() for item in inputs]
        missing = [n for n, key in enumerate(keys) if key not in self.answers]
        if missing:
            answers, _ = predict(self.network, inputs[missing], len(missing))
            self.answers |= {keys[n]: answer for n, answer in zip(missing, answers, strict=True)}
        return np.stack([self.answers[key] for key in keys])


def chest_room(scan: CTScan) -> sitk.Image:
    """Mask of the space inside the chest wall on the scan's grid, in place of a heart mask.

    Raises NoHeartError if the scan shows no lungs.
    """
    coarse = scan.coarse
    space = sitk.GetImageFromArray(landmarks(sitk.GetArrayFromImage(coarse)).space.astype(np.uint8))
    space.CopyInformation(coarse)
    return sitk.Resample(space, scan.image, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
