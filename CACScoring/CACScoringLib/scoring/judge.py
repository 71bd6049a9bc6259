"""Verdicts about lesions: the lesion network answers for every dense voxel, and each lesion carries what follows.

Voxels that the network names alike make a lesion, and pieces of one plaque are judged together. A lesion of an artery
counts in it; noise and devices where arteries run are left out; calcium of valves, aorta and pericardium is
non-coronary. Lesions far from any artery keep the site of their territory. What is dense in the calcium map has the
same verdicts; a lesion of the map where nothing is dense is judged by its place, its peak and the slice classifier,
with the weights of a logistic regression. Calibration and weights are stored with the model of the map
(`cac calibrate`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from ..anatomy.heart_region import HeartRegion
from ..calcium_map.decomposition import DecomposedHeart, DecompositionSettings
from ..core.ct import CTScan, ScanWarning
from ..core.labels import MAIN_ARTERIES, Artery, Labelled, NonCoronary, Site, site_of
from ..core.text import abbreviated_list
from ..facts.dense import DenseAnswers, DenseVoxels
from ..facts.measurement import ScanFacts
from ..models.cards import LoadedModel, ModelCard
from ..models.choice import Networks, with_verdicts
from ..networks.configs import KIND_ROWS, LESION_KINDS
from ..quality.calibration import Repeatability, calibration_facts, map_cards
from ..record.findings import BloodPool, Familiarity
from ..record.rules import ScoringRules
from ..record.score_record import ScoreRecord
from ..record.scores import OUTSIDE, LesionSet, Verdict
from .lesion_network import voxel_kinds
from .lesions import find_lesions
from .parts import (
    ANSWERS,
    CORONARY_KINDS,
    IN_ARTERY,
    VoxelParts,
    artery_chances,
    connected_voxels,
    dense_means,
    hanging_together,
    slice_components,
    voxel_parts,
    without_devices_in_plaque,
    without_faint_stents,
)
from .score import LesionLabels
from .sites import coronary_probabilities, dense_voxels, map_features, second_artery, verdicts_by_place
from .uncertainty import ScanErrors, ScoreCalibration, VerdictCalibration

REACHED = 0.01
"""Probability of an artery's territory, anywhere in connected voxels, from which the network is asked about them."""

DEVICE_HU = 500.0
"""Peak from which what the network calls a device is reported as one; fainter specks are left out alone."""

STENT_PROBABILITY = 0.5
"""Probability from which a lesion is named as a possible stent."""

WORDS = {row["kind"]: row["words"] for row in KIND_ROWS if row["words"]}
"""Words for those of LESION_KINDS that are not in a coronary artery."""

NO_CALCIUM = (*ANSWERS["device"], "noise")
"""Kinds that are no calcium."""

SITE_OF_ANSWER = {row["answer"]: site_of(int(row["site"])) for row in KIND_ROWS if row["site"]}
"""Site of the answers that are calcium."""


def coronary_slices(judged: LesionSet) -> tuple[int, ...]:
    """Return the slices with a lesion that is probably coronary calcium, rising."""
    rows = zip(judged.columns["components"], judged.verdicts, strict=True)
    probable = (parts for parts, verdict in rows if verdict is not None and verdict.probability >= 0.5)
    return tuple(sorted({part.slice for parts in probable for part in parts}))


def devices(judged: LesionSet) -> list[tuple[str, Site, int]]:
    """Return kind, site and lowest slice of lesions that are devices, stents excepted, and dense enough (DEVICE_HU)."""
    columns = (judged.columns[name] for name in ("site", "components", "peak_hu"))
    rows = zip(map(likeliest_kind, judged.verdicts), *columns, strict=True)
    return [
        (kind, site, min(part.slice for part in parts))
        for kind, site, parts, peak_hu in rows
        if peak_hu >= DEVICE_HU and kind in ANSWERS["device"]
    ]


def has_coronary_device(judged: LesionSet) -> bool:
    """Return True if a device lies where an artery runs."""
    return any(site == Artery.UNASSIGNED for _, site, _ in devices(judged))


def likeliest_kind(verdict: Verdict | None) -> str:
    """Return the likeliest of WORDS for a lesion that does not count; empty for others, and where nothing is known."""
    if verdict is None or verdict.counts:
        return ""
    return max((kind for kind in verdict.kinds if kind in WORDS), key=lambda kind: verdict.kinds[kind], default="")


def verdict_calibration(networks: Networks | None, settings: DecompositionSettings | None = None) -> VerdictCalibration:
    """Return the calibration of verdicts that is stored with networks.

    settings: Settings of the calcium map in use, which hold the limits of its lesions; None for those stored.

    Raises:
        CTError: The calibration is damaged.
    """
    if networks is None:
        return VerdictCalibration()
    if settings is None:
        settings = DecompositionSettings.of(networks.slices.card, networks.decomposition.card)
    territories = {} if networks.territories is None else networks.territories.card.calibration
    return VerdictCalibration(
        lesions=networks.calibrated.calibration_as(ScoreCalibration).candidates,
        temperature=float(territories.get("temperature", 1.0)),
        map_weights=settings.evidence_weights,
        most_not_coronary=settings.most_not_coronary,
    )


def dense_answers(
    scan: CTScan, heart: HeartRegion, rules: ScoringRules, noise_hu: float | None, network: LoadedModel
) -> DenseAnswers:
    """Find everything dense in heart and territories, and ask the lesion network about what may be a lesion.

    Args:
        scan: The scan as scored.
        heart: Heart with territories.
        rules: Rules of the clinical score.
        noise_hu: SD of the scan's noise; None if it could not be measured.
        network: Lesion network.

    Raises:
        CTError: The device has too little memory.
    """
    assert heart.territories is not None
    dense = dense_voxels(heart, scan.hu >= rules.threshold_hu, scan.grid)
    is_near = hanging_together(dense.flat, dense.arteries.sum(axis=1) >= REACHED, scan.hu.shape)
    one_site = np.zeros(len(dense.flat), np.uint8)
    _, is_large = slice_components(dense.flat, one_site, scan.hu.shape, scan.grid.spacing_mm, rules)
    may_be_lesion = hanging_together(dense.flat, is_large, scan.hu.shape)
    is_asked = may_be_lesion[is_near]
    kinds = voxel_kinds(dense.flat[is_near], scan, heart.territories, noise_hu, network, is_asked)[is_asked]
    return DenseAnswers(dense, is_near & may_be_lesion, kinds)


def verdicts(facts: ScanFacts, calibration: VerdictCalibration) -> LesionLabels | None:
    """Label everything dense by the lesion network's answers and their calibration; no network runs.

    Lesions that count are each of an artery, left-out ones UNASSIGNED, and the others non-coronary. Those far from any
    artery have no verdict.

    Args:
        facts: Facts of the scan.
        calibration: Calibration of the answers.

    Returns:
        The labels of an automatic score; None without answers or their calibration.
    """
    if facts.answers is None or calibration.lesions is None:
        return None
    scan, dense, is_asked = facts.scan, facts.answers.voxels, facts.answers.is_asked
    nearby = dense.where(is_asked)
    kinds = without_faint_stents(facts.answers.kinds, nearby.flat, scan.hu)
    kinds = without_devices_in_plaque(kinds, nearby.flat, scan.hu)
    hu, is_gated = scan.hu.reshape(-1)[nearby.flat], scan.acquisition.gating is not None

    parts = voxel_parts(nearby.flat, nearby.arteries, kinds, hu, scan.grid)
    coronary, in_artery = parts.means[:, CORONARY_KINDS].sum(axis=1), parts.means[:, len(LESION_KINDS) :].sum(axis=1)
    evidence = np.stack([calibration.lesions.probability(coronary, in_artery, is_gated), coronary, in_artery], axis=1)
    evidence = evidence[parts.plaque]
    sites = dense.sites.copy()
    sites[is_asked] = _sites_of_parts(parts, nearby, evidence[:, 0] >= calibration.counts_from)[parts.part]
    lesions = find_lesions(scan, Labelled(dense.flat, sites), facts.rules)
    voxels = lesions.voxels
    _, at_lesion, at_nearby = np.intersect1d(voxels.flat, nearby.flat, assume_unique=True, return_indices=True)
    # A lesion's probability is the mean of its plaques': at the limit or above it exactly if the lesion counts.
    columns = np.column_stack([kinds, nearby.arteries, evidence[parts.part]])[at_nearby]
    means = dense_means(voxels.ids[at_lesion], columns, hu[at_nearby])
    judged = _with_verdicts(lesions, means[:, : -evidence.shape[1]], means[:, -evidence.shape[1] :])
    return LesionLabels("automatic", facts.rules, _calcium_of(judged), knows_elsewhere=True, judged=judged)


def _calcium_of(judged: LesionSet) -> LesionSet:
    """Return judged lesions without what is no calcium outside the arteries."""
    rows = zip(judged.statuses, judged.verdicts, strict=True)
    return judged.part(status != OUTSIDE or likeliest_kind(verdict) not in NO_CALCIUM for status, verdict in rows)


def _sites_of_parts(parts: VoxelParts, nearby: DenseVoxels, counts: np.ndarray) -> np.ndarray:
    """Return the `Site` of each part, uint8 [parts].

    Noise, devices, and what does not count, is UNASSIGNED where an artery runs, else "other".
    """
    sizes = np.bincount(parts.part)
    is_at_artery = np.bincount(parts.part, nearby.sites <= max(Artery)) > 0.5 * sizes
    sites = np.where(is_at_artery, int(Artery.UNASSIGNED), int(NonCoronary.OTHER))
    for number, answer in enumerate(ANSWERS):
        if answer in SITE_OF_ANSWER:
            sites[(parts.answers == number) & (counts | (number >= IN_ARTERY))] = SITE_OF_ANSWER[answer]
    return sites.astype(np.uint8)


def _with_verdicts(lesions: LesionSet, means: np.ndarray, evidence: np.ndarray) -> LesionSet:
    """Return lesions with verdicts by the mean answer about their voxels.

    Args:
        lesions: Lesions with their sites.
        means: Mean probability of LESION_KINDS and of the territories of MAIN_ARTERIES in each, by its ID
            [IDs, columns]; 0 without an answer.
        evidence: Of the plaque of each, by its ID [IDs, 3]: calibrated probability of being coronary calcium, that by
            the lesion network alone, and the probability of an artery's territory.
    """
    arteries = artery_chances(means, means[:, len(LESION_KINDS) :])
    verdicts: list[Verdict | None] = []
    for number, site in zip(lesions.ids, lesions.columns["site"], strict=True):
        is_judged = number < len(means) and means[number].any()
        judged = _verdict(site, means[number], arteries[number], evidence[number]) if is_judged else None
        verdicts.append(judged)
    return lesions.with_columns(verdict=verdicts)


def _verdict(site: Site, means: np.ndarray, arteries: np.ndarray, evidence: np.ndarray) -> Verdict:
    """Return the verdict about a lesion.

    Args:
        site: Site of the lesion.
        means: Mean probability of LESION_KINDS and of the territories of MAIN_ARTERIES in it, [columns].
        arteries: Probability of each of MAIN_ARTERIES if it is coronary, [4].
        evidence: Of its plaque, as of `_with_verdicts`, [3].
    """
    probability, coronary, in_artery = evidence.tolist()
    counts = site in MAIN_ARTERIES
    artery = Artery(site) if counts else MAIN_ARTERIES[int(arteries.argmax())]
    verdict = Verdict(
        artery=artery,
        confidence=float(arteries[artery - Artery.LM]),
        not_coronary_probability=1 - probability,
        second=second_artery(arteries, artery),
        counts=counts,
        kinds={kind: float(share) for kind, share in zip(LESION_KINDS, means, strict=False)},
        is_stent=bool(means[LESION_KINDS.index("stent")] >= STENT_PROBABILITY),
        coronary=coronary,
        in_artery=in_artery,
    )
    return verdict if counts else replace(verdict, reason=f"looks like {WORDS[likeliest_kind(verdict)]}")


def device_warning(judged: LesionSet) -> list[ScanWarning]:
    """Warn of devices, which are left out with any calcium that the network did not tell from them."""
    dense_devices = devices(judged)
    kinds = {kind: [k for name, _, k in dense_devices if name == kind] for kind in ANSWERS["device"]}
    names = [f"{WORDS[kind]} (slice {abbreviated_list(map(str, slices))})" for kind, slices in kinds.items() if slices]
    if not (count := len(dense_devices)):
        return []
    message = f"{count} dense lesion(s) look like a device and are left out: {'; '.join(names)}."
    return [ScanWarning("metal", message)]


def judge_map(
    facts: ScanFacts,
    rules: ScoringRules,
    decomposed: DecomposedHeart,
    calibration: VerdictCalibration,
    dense: LesionSet | None = None,
) -> LesionSet:
    """Find the lesions of the calcium map and give them verdicts.

    What hangs together with something dense has the site of the nearest dense voxel, and its lesion's verdict.

    Args:
        facts: Facts of the scan.
        rules: Rules of the map.
        decomposed: Slice probabilities, and the map.
        calibration: Weights and limit of lesions where nothing is dense.
        dense: Everything dense with its verdicts; None where nothing was judged.

    Returns:
        Lesions of arteries; those left out are UNASSIGNED.

    Raises:
        CTError: The stored weights do not match this version.
    """
    scan, hu, box = facts.scan, decomposed.parts.hu, decomposed.parts.box
    is_dense = np.zeros(hu.shape, bool)
    np.greater_equal(hu[box], rules.threshold_hu, out=is_dense[box])
    in_map = dense_voxels(facts.region, is_dense, scan.grid)
    sites = in_map.sites if dense is None else _sites_by_dense(in_map, dense, scan.grid.spacing_mm[::-1])
    lesions = find_lesions(scan, Labelled(in_map.flat, sites), rules, hu).coronary
    by_place = verdicts_by_place(lesions, in_map, calibration.temperature)
    if calibration.map_weights:
        noise_hu = None if facts.blood is None else facts.blood.noise_hu
        features = map_features(lesions, by_place, decomposed.slices.on_scan, noise_hu)
        probabilities = coronary_probabilities(features, calibration.map_weights)
        by_place = [
            replace(verdict, not_coronary_probability=float(1 - p))
            for verdict, p in zip(by_place, probabilities, strict=True)
        ]
    judged = None if dense is None else dense.part(verdict is not None for verdict in dense.verdicts)
    of_dense = {} if judged is None else lesions_beneath(lesions, judged)
    verdict_of = {} if judged is None else dict(zip(judged.ids, judged.verdicts, strict=True))
    new_sites, verdicts = [], []
    for number, site, of_place in zip(lesions.ids, lesions.columns["site"], by_place, strict=True):
        verdict = verdict_of.get(of_dense.get(number, 0)) or of_place
        counts = site in MAIN_ARTERIES
        if verdict is of_place:
            counts = verdict.not_coronary_probability <= calibration.most_not_coronary
            site = verdict.artery if counts else Artery.UNASSIGNED
        new_sites.append(site)
        verdicts.append(replace(verdict, counts=counts, kinds={}, reason=""))
    return lesions.with_columns(site=new_sites, verdict=verdicts)


_FAR_MM = 1e5
"""Distance beyond any in a scan."""


def _sites_by_dense(in_map: DenseVoxels, dense: LesionSet, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Return the `Site` of voxels of the map: that of the nearest dense voxel, if they hang together with one."""
    shape = dense.voxels.shape
    _, at_map, at_dense = np.intersect1d(in_map.flat, dense.voxels.flat, assume_unique=True, return_indices=True)
    sites = in_map.sites.copy()
    if not len(at_map):
        return sites
    sites[at_map] = dense.site_of_ids[dense.voxels.ids[at_dense]]
    piece = connected_voxels(in_map.flat, np.zeros(len(in_map.flat), np.uint8), shape)
    joined = np.setdiff1d(np.flatnonzero(np.isin(piece, piece[at_map])), at_map, assume_unique=True)
    # A fourth coordinate keeps other pieces far away.
    places_mm = np.stack([*np.unravel_index(in_map.flat, shape), piece], axis=1) * (*spacing_mm, _FAR_MM)
    sites[joined] = sites[at_map[cKDTree(places_mm[at_map]).query(places_mm[joined])[1]]]
    return sites


def lesions_beneath(lesions: LesionSet, dense: LesionSet) -> dict[int, int]:
    """Return the ID of the dense lesion that shares most voxels with each lesion of the map, by the latter's ID."""
    first, second = lesions.voxels, dense.voxels
    _, at_first, at_second = np.intersect1d(first.flat, second.flat, assume_unique=True, return_indices=True)
    pairs = np.stack([first.ids[at_first], second.ids[at_second]], axis=1)
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    return {int(pairs[n, 0]): int(pairs[n, 1]) for n in np.argsort(counts, kind="stable")}


def errors_in(
    card: ModelCard | None, scan: CTScan, blood: BloodPool | None, heart: np.ndarray, has_metal: bool
) -> ScanErrors:
    """Return the errors of scores in a scan.

    Args:
        card: Card of the calcium map's model; None for no errors.
        scan: The scan as scored.
        blood: Blood and noise; None if not measured.
        heart: Mask of the heart on the scan's grid.
        has_metal: True if there is metal among the arteries.

    Raises:
        CTError: The calibration does not match this version.
    """
    if card is None:
        return ScanErrors()
    facts, calibration_range = calibration_facts(scan, blood, heart), card.calibration_as(ScoreCalibration).known
    familiarity = None if calibration_range is None else calibration_range.familiarity(facts, has_metal)
    return stored_errors(card, familiarity)


def stored_errors(card: ModelCard, familiarity: Familiarity | None = None) -> ScanErrors:
    """Read the errors on the card of the calcium map's model. Raises CTError."""
    stored = card.calibration_as(ScoreCalibration)
    return ScanErrors(dict(stored.uncertainty), familiarity, stored.calibrated_on, card.repeatability_as(Repeatability))


def candidate_evidence(card: ModelCard) -> dict[str, object] | None:
    """Return the evidence of verdicts by the card of the calcium map's model, as `scores.json` states it.

    It is None without a calibration of lesions. Raises CTError if the calibration is damaged.
    """
    return VerdictCalibration(card.calibration_as(ScoreCalibration).candidates).evidence


def recorded_errors(record: ScoreRecord) -> ScanErrors:
    """Return the errors of a recorded result by the model that made its calcium map.

    There are none without that model, and none of automatic scores if it has been calibrated again since.
    Raises CTError.
    """
    cards = map_cards(record)
    if not cards:
        return ScanErrors(familiarity=record.familiarity)
    card = with_verdicts(cards[-1], record.model_hashes)
    errors = stored_errors(card, record.familiarity)
    is_recalibrated = candidate_evidence(card) != record.candidate_evidence
    by_kind = {kind: part for kind, part in errors.by_kind.items() if not (is_recalibrated and kind == "automatic")}
    return replace(errors, by_kind=by_kind)
