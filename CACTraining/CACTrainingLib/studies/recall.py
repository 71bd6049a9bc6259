"""Recall of the automatic clinical score by coronary segment, on digital patients with a plaque in each segment.

A plaque is a lesion where its voxels make up 1 mm² at 130 HU in the scan. It is found where the score counts any of
these voxels in a coronary artery. Scans and answers are kept, so that the study resumes.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import ARTERIES, Artery
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import write_table
from CACScoringLib.models.cards import StoredModel
from CACScoringLib.models.choice import ModelChoice, Networks
from CACScoringLib.pipeline import score_scan
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.scores import Lesion, LesionSet
from CACScoringLib.results import CalciumResult
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.scores import score_of

from .. import phantom
from ..evaluation.jobs import JobSettings, job_key, kept_jobs, make_folder
from ..evaluation.measures import ExperimentComparison, Measure, mean_value
from ..evaluation.page import facts_of, write_study
from ..evaluation.papers import texts_of
from ..evaluation.parts import Cell, Section, TablePart, count, heading
from .scoring import models_key, records_of, scoring_models, with_networks

TEXTS = texts_of("recall")

LESIONS = "lesions.csv"
"""In the output folder: every lesion with the score's answer."""

ANSWERS_VERSION = 1
"""Raised whenever the same networks would give other rows of LESIONS."""

NO_CANDIDATE = "no candidate: outside the territories, or no 130 HU where it is scored"
COUNTED = "counted"

AGATSTON_BANDS = (0.0, 3.0, 10.0, 30.0, 100.0, math.inf)

MEASURES = {"counted": "Counted", "right": "In its artery", "map": "Touched by the map"}
"""Columns of a lesion's row that are true or false, with their titles."""

Row = dict[str, Any]


@dataclass(frozen=True)
class RecallSettings:
    """Settings of the study.

    Attributes:
        output: Folder for page, tables and answers.
        models: Models in place of the bundled ones: names, or paths of cards.
        patients: Number of digital patients, each scanned once by each protocol.
        first_number: Number of the first patient.
        protocols: Names in PROTOCOLS.
        share: Probability that a segment has a plaque.
        workers: Processes.
        device: Device of the networks.
        seed: Seed of the bootstrap.
    """

    output: Path
    models: tuple[str, ...] = ()
    patients: int = 40
    first_number: int = 970000
    protocols: tuple[str, ...] = ("cardiac", "radiotherapy")
    share: float = 1.0
    workers: int = 1
    device: str = "auto"
    seed: int = 0


def evaluate_recall(settings: RecallSettings, progress: Progress | None = None) -> Path:
    """Make the study; returns its page. Raises CTError, ModelError, OutputError."""
    progress, started = progress or Progress(), time.perf_counter()
    progress.begin(["scans", "page"])
    if unknown := set(settings.protocols) - set(phantom.PROTOCOLS):
        raise CTError(f"There is no scanning protocol {min(unknown)!r}; choose of {', '.join(phantom.PROTOCOLS)}.")
    models = scoring_models(ModelChoice(settings.models))
    make_folder(settings.output)
    with progress.step("scans"):
        rows, failed = _lesions(settings, models, progress)
    if not rows:
        reason = next(iter(failed.values()), "no plaque has 1 mm² at 130 HU")
        raise CTError(f"There is no lesion to find: {reason}. Ask for more patients.")
    with progress.step("page"):
        write_table(settings.output / LESIONS, list(rows[0]), rows)
        facts = facts_of(records_of(models), settings.seed, time.perf_counter() - started)
        page = write_study(settings.output, TEXTS.title, _sections(settings, rows, failed), facts)
    return page


def _lesions(
    settings: RecallSettings, models: Mapping[str, StoredModel], progress: Progress
) -> tuple[list[Row], dict[str, str]]:
    """Rows of all lesions, and why scans have none."""
    scans = settings.output / "scans"
    make_folder(scans)
    if not phantom.same_settings(
        scans / "scans.json", {"version": phantom.SEGMENT_SCANS_VERSION, "share": settings.share}
    ):
        raise CTError(f"{scans} holds scans of another share or version (scans.json). Choose another folder.")
    jobs = {}
    for number in range(settings.first_number, settings.first_number + settings.patients):
        for protocol in settings.protocols:
            content = (
                ANSWERS_VERSION,
                phantom.SEGMENT_SCANS_VERSION,
                number,
                protocol,
                settings.share,
                models_key(models),
            )
            folder = scans / protocol / f"patient_{number}"
            jobs[job_key(f"{number} {protocol}", *content)] = (number, protocol, settings.share, folder)
    work = JobSettings(settings.workers, settings.device, progress)
    prepare = partial(with_networks, _answers, dict(models), settings.device)
    results, failed = kept_jobs(jobs, settings.output / "answers.jsonl", prepare, work)
    return [row for key in jobs if key in results for row in results[key]["lesions"]], failed


def _answers(networks: Networks, job: tuple[int, str, float, Path]) -> dict[str, list[Row]]:
    """Rows of a patient's lesions by one protocol."""
    number, protocol, share, folder = job
    scan = phantom.segment_scan(number, protocol, share, folder)
    answers = Answers(score_scan(scan.ct, networks=networks))
    rows = [
        {"patient": number, "protocol": protocol, **answers.row(plaque, *lesion)}
        for plaque in scan.plaques
        if (lesion := true_lesion(scan, plaque)) is not None
    ]
    return {"lesions": rows}


def true_lesion(scan: phantom.SegmentScan, plaque: phantom.SegmentPlaque) -> tuple[np.ndarray, Row] | None:
    """Return the voxels of a plaque that the clinical rule counts, flat indices, and their score.

    None where no slice has the rule's least area.
    """
    boxes = ndimage.find_objects((scan.labels == plaque.id).view(np.uint8))
    if not boxes:
        return None
    box, rules = boxes[0], ScoringRules()
    labels = (scan.labels[box] == plaque.id).view(np.uint8) * np.uint8(Artery[plaque.artery])
    image = scan.ct.image[tuple(slice(part.start, part.stop) for part in box[::-1])]
    lesions = find_lesions(image, labels, rules)
    if not lesions.lesions:
        return None
    inside = np.zeros(scan.labels.shape, bool)
    inside[box] = lesions.id_map > 0
    score = score_of(lesions.lesions)
    return np.flatnonzero(inside), {"agatston": round(score.agatston, 2), "peak_hu": score.peak_hu}


class Answers:
    """Scores of a scan, looked up at the voxels of a true lesion."""

    def __init__(self, result: CalciumResult) -> None:
        threshold = result.methods["threshold"]
        self._counted, self._left_out = threshold.lesion_set, threshold.left_out_set
        self._map = result.methods["decomposition"].lesion_set
        self._elsewhere = None if result.record.non_coronary is None else result.record.non_coronary.lesion_set

    def row(self, plaque: phantom.SegmentPlaque, flat: np.ndarray, score: Row) -> Row:
        """Row of a lesion. flat: its voxels. score: its true score."""
        counted, left_out = (_lesions_at(lesions, flat) for lesions in (self._counted, self._left_out))
        voxels: Counter[str] = Counter()
        for lesion, n in counted:
            voxels[lesion.site.key] += n
        assigned = voxels.most_common(1)[0][0] if voxels else None
        verdicts = [lesion.verdict for lesion, _ in (*counted, *left_out)]
        probabilities = [verdict.probability for verdict in verdicts if verdict is not None]
        return {
            "plaque": plaque.id,
            "segment": plaque.segment,
            "artery": plaque.artery,
            "mass_mg": round(plaque.mass_mg, 2),
            "density_mg_cm3": round(plaque.density_mg_cm3),
            **score,
            "counted": assigned is not None,
            "right": assigned == plaque.artery,
            "map": bool(_lesions_at(self._map, flat)),
            "assigned": assigned,
            "share_right": round(voxels[plaque.artery] / len(flat), 3),
            "probability": round(max(probabilities), 4) if probabilities else None,
            "outcome": COUNTED if assigned else self._outcome(left_out, flat),
        }

    def _outcome(self, left_out: list[tuple[Lesion, int]], flat: np.ndarray) -> str:
        """Reason why nothing of a lesion counts."""
        if left_out:
            verdict = left_out[0][0].verdict
            return "" if verdict is None else verdict.reason
        if self._elsewhere is not None and (elsewhere := _lesions_at(self._elsewhere, flat)):
            return elsewhere[0][0].site.full_name
        return NO_CANDIDATE


def _lesions_at(lesions: LesionSet, flat: np.ndarray) -> list[tuple[Lesion, int]]:
    """Return the lesions that have some of these voxels, each with their number, the largest first."""
    ids, numbers = np.unique(lesions.id_map.reshape(-1)[flat], return_counts=True)
    voxels = dict(zip(ids.tolist(), numbers.tolist(), strict=True))
    touched = [(lesion, voxels[lesion.id]) for lesion in lesions.lesions if lesion.id in voxels]
    return sorted(touched, key=lambda pair: -pair[1])


def _sections(settings: RecallSettings, rows: Sequence[Row], failed: Mapping[str, str]) -> list[Section]:
    first, last = settings.first_number, settings.first_number + settings.patients - 1
    (least, most), (blurred_least, blurred_most) = phantom.MASS_MG, phantom.BLURRED_MASS_MG
    text = [
        f"Digital patients {first} to {last}, each scanned once by each protocol, with a plaque evenly placed in each "
        f"coronary segment (probability {settings.share:g}), of {least:g} to {most:g} mg in gated scans and "
        f"{blurred_least:g} to {blurred_most:g} mg in others. A lesion is a plaque with 1 mm² at 130 HU in the scan; "
        f"there are {len(rows)}. Intervals are of resampled patients."
    ]
    if failed:
        text.append(f"{count(len(failed), 'scan')} failed: {'; '.join(sorted(set(failed.values()))[:3])}")
    comparison = ExperimentComparison([row["patient"] for row in rows], MEASURES, np.random.default_rng(settings.seed))
    lesions, tables = pd.DataFrame(rows), []
    about = lesions.assign(scan=lesions.patient.astype(str) + " " + lesions.protocol, item=lesions.plaque, truth=True)
    answers = about.melt(about.columns.drop([*MEASURES]).tolist(), [*MEASURES], "method", "value")
    for protocol in settings.protocols:
        part = answers[answers.protocol == protocol]
        kind = "gated" if phantom.PROTOCOLS[protocol].gated else "not gated"
        lines = [
            comparison.measure_row(group, Measure(group, mean_value, members, proportion=True))
            for group, members in _groups(part)
        ]
        columns, values = ("Lesions", *MEASURES.values()), {"protocol": protocol, "kind": kind}
        tables.append(TEXTS.table(f"recall_{protocol}", columns, lines, "recall", **values))
    tables += [_artery_table(lesions, settings.protocols), _loss_table(lesions, settings.protocols)]
    return [Section("recall", TEXTS.title, tuple(text), tuple(tables), values=(answers,))]


def _groups(lesions: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Titled groups of lesions: all, by artery, by segment, by score; those without lesions left out."""
    groups = {"All": lesions.agatston >= 0}
    groups |= {artery: lesions.artery == artery for artery in ARTERIES}
    groups |= {f"{segment} {name}": lesions.segment == segment for segment, name in phantom.SEGMENTS.items()}
    for low, high in itertools.pairwise(AGATSTON_BANDS):
        title = f"Agatston from {low:g}" if math.isinf(high) else f"Agatston {low:g} to {high:g}"
        groups[title] = (low <= lesions.agatston) & (lesions.agatston < high)
    return ((title, lesions[members]) for title, members in groups.items() if members.any())


def _artery_table(lesions: pd.DataFrame, protocols: Sequence[str]) -> TablePart:
    columns = ("Artery", "Lesions", *ARTERIES)
    lines: list[tuple[Cell, ...]] = []
    for protocol in protocols:
        counted = lesions[(lesions.protocol == protocol) & lesions.counted.astype(bool)]
        lines.append(heading(protocol, columns))
        for artery, group in counted.groupby("artery"):
            shares = group.groupby("assigned").agatston.sum() / group.agatston.sum()
            lines.append((f"  {artery}", len(group), *(round(float(shares.get(name, 0.0)), 3) for name in ARTERIES)))
    return TEXTS.table("recall_arteries", columns, lines)


def _loss_table(lesions: pd.DataFrame, protocols: Sequence[str]) -> TablePart:
    columns = ("Reason", "Lesions", "Agatston", "Segments")
    lines: list[tuple[Cell, ...]] = []
    for protocol in protocols:
        lost = lesions[(lesions.protocol == protocol) & ~lesions.counted.astype(bool)]
        lines.append(heading(protocol, columns))
        for reason, n in Counter(lost.outcome).most_common():
            group = lost[lost.outcome == reason]
            places = ", ".join(f"{segment}: {times}" for segment, times in Counter(group.segment).most_common())
            lines.append((f"  {reason}", n, round(float(group.agatston.sum()), 1), places))
    return TEXTS.table("recall_losses", columns, lines)
