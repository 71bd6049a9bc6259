"""Trial of a model before it is installed: its role on the bundled sample, with calcium placed in every artery."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..anatomy.courses import Course, artery_courses
from ..anatomy.heart_region import HeartRegion
from ..anatomy.heart_search import locate_heart
from ..core.ct import AIR_HU, CTScan
from ..core.decoding import restore
from ..core.errors import ModelError, WrongValueError
from ..core.files import resource_rows
from ..core.grid import Grid, bounding_box
from ..core.labels import MAIN_ARTERIES, TERRITORIES, Artery
from ..io.reading import read_ct
from ..models.cards import SAMPLE, LoadedModel, ModelCard
from ..models.choice import ModelChoice, Networks, chosen_models, load_networks
from ..models.inference import predict
from ..models.preprocessing import RESIDUAL_HU, interpolated_slices, thick_slice_input
from ..mrml.sample_data import sample_file
from ..networks.configs import LESION_KINDS, SliceSuperResolutionConfig
from ..pipeline import score_scan
from ..radiograph.view import enhance, standard_view
from ..record.rules import ScoringRules
from ..results import ScoreResult
from ..scoring.lesion_network import voxel_kinds
from ..scoring.uncertainty import COUNTS_FROM
from ..whole_scan.radiomics import radiomics_estimate
from ..whole_scan.vessels import vessel_scores

LIMITS = {row["figure"]: (float(row["low"]), float(row["high"])) for row in resource_rows("trial_limits.csv")}
"""Lowest and highest figure of a model that is installed, by the beginning of the figure's name."""

MAX_CHANGE = 0.1
"""Largest difference from a figure that the card states; computers and versions of libraries differ by less."""

PLACES = (0.25, 0.5, 0.75)
"""Positions of the calcium placed in an artery, as shares of its course."""
NEAR_MM = 2.5
CALCIUM_HU, CALCIUM_SD_MM, EDGE_HU = 500.0, 1.5, 80.0
"""Peak and width of the placed calcium, and the rise from which a voxel belongs to it."""


@dataclass(frozen=True)
class Trial:
    """Figures of a model on the sample.

    Attributes:
        figures: Totals, and what LIMITS bounds.
        models: Hash of each bundled model beside it (`identity`), by network.
    """

    figures: dict[str, float]
    models: dict[str, str]


@dataclass(frozen=True)
class Bench:
    """Sample for trials.

    Attributes:
        networks: The bundled networks.
        plain: The sample.
        heart: Its heart and territories.
        rises: Density of the calcium placed in each artery, HU [k, j, i].
        usual: Result of the sample with all of it, by the bundled networks.
    """

    networks: Networks
    plain: CTScan
    heart: HeartRegion
    rises: dict[Artery, np.ndarray]
    usual: ScoreResult

    @classmethod
    def of(cls, networks: Networks) -> Bench:
        """Place calcium in the sample, and score it."""
        plain = read_ct(sample_file())
        heart = locate_heart(plain, networks=networks)
        courses = artery_courses(heart.territory_labels, plain.image.GetSpacing())
        rises = {artery: _rise(plain, heart, artery, courses[artery]) for artery in MAIN_ARTERIES}
        return cls(networks, plain, heart, rises, score_scan(_denser(plain, rises.values()), networks=networks))

    def with_calcium(self, *arteries: Artery) -> CTScan:
        """Return the sample with the calcium placed in some arteries."""
        return _denser(self.plain, [self.rises[artery] for artery in arteries])


def _denser(scan: CTScan, rises: Iterable[np.ndarray]) -> CTScan:
    hu = np.rint(scan.hu + sum(rises, np.zeros(1, np.float32))).astype(np.int16)
    return replace(scan, image=Grid.of(scan.image).image(hu))


def _rise(scan: CTScan, heart: HeartRegion, artery: Artery, course: Course) -> np.ndarray:
    """Return the density of calcium placed in an artery, HU [k, j, i]: at each of PLACES the likeliest voxel."""
    assert heart.territories is not None
    spacing_mm, shape = np.array(scan.image.GetSpacing()[::-1]), scan.hu.shape
    voxels = np.rint(course.places_mm / spacing_mm).astype(int)
    chances = heart.territories.at(np.ravel_multi_index(tuple(voxels.T), shape), shape)
    rise = np.zeros(shape, np.float32)
    for share in PLACES:
        gaps_mm = np.abs(course.distances_mm - course.first_mm - share * (course.last_mm - course.first_mm))
        is_near = gaps_mm <= max(NEAR_MM, gaps_mm.min())
        middle = voxels[np.argmax(np.where(is_near, chances[:, TERRITORIES.index(artery.key)], -1))]
        sides = zip(shape, middle, spacing_mm, strict=True)
        k, j, i = np.ix_(*(((np.arange(count) - place) * mm / CALCIUM_SD_MM) ** 2 for count, place, mm in sides))
        rise += CALCIUM_HU * np.exp(-(k + j + i) / 2)
    return rise


def measure_on_sample(model: LoadedModel) -> dict[str, Any]:
    """Try a model in its role, and compare with the bundled models.

    Returns:
        Entry for the validation of its card; none for a model that only trains others.

    Raises:
        ModelError: A figure is out of bounds, or differs from that on the card; or a map is not calibrated.
        CTError: The sample cannot be scored with the model.
    """
    card, stored = model.card, chosen_models(ModelChoice(device="cpu")).networks
    networks = load_networks(stored, "cpu")
    if card.network not in TRIALS or networks is None:
        return {}
    if card.lacks_calibration:
        raise ModelError(
            f"{card.name} is not calibrated: every lesion of its map would count, coronary or not. It was not "
            "installed. Calibrate it first (cac calibrate)."
        )
    figures = TRIALS[card.network](Bench.of(networks), model)
    partners = {name: identity(stored[name].card) for name in stored if name != card.network}
    try:
        former = restore(card.validation[SAMPLE], Trial) if SAMPLE in card.validation else None
    except WrongValueError as wrong:
        raise ModelError(f"The figures of the sample on the card of {card.name} have no valid {wrong}.") from None
    stated = former.figures if former and former.models == partners else figures
    faults = []
    for name, figure in figures.items():
        before, words = stated.get(name, figure), f"the {name} is {figure:.4g}"
        low, high = next((limits for kind, limits in LIMITS.items() if name.startswith(kind)), (0.0, np.inf))
        if not low <= figure <= high:
            bounds = f"at least {low:g}" if figure < low else f"at most {high:g}"
            faults.append(f"{words}, {bounds} is needed")
        elif abs(figure - before) > MAX_CHANGE * max(1.0, abs(before)):
            faults.append(f"{words}, and the card states {before:.4g}")
    if faults:
        raise ModelError(
            f"With the model {card.name} the answers about the sample, which has calcium in all arteries, are wrong: "
            f"{'; '.join(faults)}. It was not installed. Train it longer, or install another model."
        )
    return {SAMPLE: asdict(Trial(figures, partners))}


def identity(card: ModelCard) -> str:
    """Return a SHA-256 of what scores depend on: a model's weights and calibration, and COUNTS_FROM."""
    return hashlib.sha256(json.dumps([card.sha256, card.scored_by, COUNTS_FROM], sort_keys=True).encode()).hexdigest()


def _scores(bench: Bench, model: LoadedModel) -> dict[str, float]:
    """Return totals, agreements with the bundled models from 0 to 1, and the contrast of slices with calcium."""
    usual, networks = bench.usual, replace(bench.networks, **{model.card.network: model})
    result = score_scan(usual.scan, networks=networks)
    figures = {
        "clinical score": result.methods["threshold"].total.agatston,
        "map score": result.methods["decomposition"].total.clinical_agatston,
    }
    for method, words in (("threshold", "clinical agreement"), ("decomposition", "map agreement")):
        for artery in MAIN_ARTERIES:
            pair = [scored.methods[method].arteries[artery].clinical_agatston for scored in (result, usual)]
            figures[f"{words} in {artery.key}"] = min(pair) / max(1.0, *pair)
    assert usual.territory_labels is not None
    labels = np.zeros_like(usual.territory_labels) if result.territory_labels is None else result.territory_labels
    figures["heart agreement"] = _dice(result.region.mask, usual.region.mask)
    for number, name in enumerate(TERRITORIES):
        figures[f"territory agreement of {name}"] = _dice(labels == number, usual.territory_labels == number)
    probabilities = np.array(result.record.slice_probabilities, float)
    has_calcium = np.zeros(len(probabilities), bool)
    for lesion in usual.methods["threshold"].lesions:
        has_calcium[list(lesion.slices)] = True
    contrast = np.nanmean(probabilities[has_calcium]) - np.nanmean(probabilities[~has_calcium])
    return figures | {"slice contrast": float(contrast)}


def _dice(mask: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (mask & other).sum() / max(1, mask.sum() + other.sum()))


def _lesions(bench: Bench, model: LoadedModel) -> dict[str, float]:
    """Add each artery's probability where its calcium is, and mean and spread of all log probabilities."""
    scan, territories = bench.usual.scan, bench.heart.territories
    assert territories is not None
    assert bench.networks.lesions is not None
    flat = np.flatnonzero((scan.hu >= ScoringRules().threshold_hu) & bench.heart.mask)
    kinds, usual = (voxel_kinds(flat, scan, territories, None, m) for m in (model, bench.networks.lesions))
    logs, usual_logs = (np.log(np.maximum(answer, 1e-8)) for answer in (kinds, usual))
    means = {f"log probability of {kind}": float(logs[:, n].mean()) for n, kind in enumerate(LESION_KINDS)}
    named = {
        f"probability of {artery.key}": float(
            kinds[rise.reshape(-1)[flat] > EDGE_HU, LESION_KINDS.index(artery.key)].mean()
        )
        for artery, rise in bench.rises.items()
    }
    scale = float(logs.std(axis=1).mean() / usual_logs.std(axis=1).mean())
    return _scores(bench, model) | named | means | {"scale of answers": scale}


def _vessels(bench: Bench, model: LoadedModel) -> dict[str, float]:
    """Return the sum of each artery's responses to its own calcium, relative to the best order of the outputs."""
    scans = [bench.plain, *(bench.with_calcium(artery) for artery in MAIN_ARTERIES)]
    plain, *outputs = (vessel_scores(scan, bench.heart, model)[0] for scan in scans)
    rises = np.maximum(0, np.stack(outputs) - plain)
    shares = rises / np.maximum(rises.max(axis=1, keepdims=True), 1.0)
    best = shares[linear_sum_assignment(-shares)].sum()
    return {"response by artery": float(np.trace(shares) / max(1.0, best))}


def _radiograph(bench: Bench, model: LoadedModel) -> dict[str, float]:
    """Return by how much each threshold's log odds at least exceed those of the next higher one."""
    hu, (i_mm, j_mm, k_mm) = bench.usual.scan.hu[::-1], bench.plain.image.GetSpacing()
    water = np.maximum(hu, AIR_HU).astype(np.float32) / 1000 + 1
    pictures = {"PA": (water.sum(1) * j_mm, (i_mm, k_mm)), "lateral": (water.sum(2) * i_mm, (j_mm, k_mm))}
    config = model.card.config
    views = [enhance(standard_view(*pictures[view]), config["enhancement"]) for view in config["views"]]
    (logits,), _ = predict(model.network, np.stack(views)[None], 1)
    return {"order of thresholds": float((logits[:-1] - logits[1:]).min(initial=1.0))}


def _radiomics(bench: Bench, model: LoadedModel) -> dict[str, float]:
    """Return by how much the probability of calcium exceeds the limit from which it is positive."""
    record = radiomics_estimate(bench.usual.scan, bench.heart, model)[0].record
    assert record.probability is not None
    assert record.limit is not None
    return {"detection of calcium": record.probability - record.limit}


def _sharpener(bench: Bench, model: LoadedModel) -> dict[str, float]:
    """Return scale, offset and error of what the network adds to interpolated slices, on means of the sample's."""
    config = SliceSuperResolutionConfig(**model.card.config)
    box = bounding_box(bench.heart.mask)
    hu = bench.usual.scan.hu[box].astype(np.float32)
    thin = hu[: len(hu) // config.factor * config.factor]
    thick = thin.reshape(-1, config.factor, *thin.shape[1:]).mean(1)
    true = thin - interpolated_slices(thick, config.factor)
    added = RESIDUAL_HU * predict(model.network, thick_slice_input(thick, config.neighbours), 8)[0].reshape(true.shape)
    scale = (added**2).sum() / max(1e-6, float((added * true).sum()))
    return {
        "scale of added detail": float(scale),
        "offset of added detail in HU": float(added.mean() - true.mean()),
        "error of slices": float(((true - added) ** 2).sum() / (true**2).sum()),
    }


TRIALS: dict[str, Callable[[Bench, LoadedModel], dict[str, float]]] = {
    **dict.fromkeys(("territories", "slices", "decomposition"), _scores),
    "lesions": _lesions,
    "vessels": _vessels,
    "radiograph": _radiograph,
    "radiomics": _radiomics,
    "super_resolution": _sharpener,
}
"""Trial of each network that answers about scans."""
