"""Second estimates: what models that score no lesions say of a scan, and whether that agrees with its scores.

Plain numbers and sentences, which go into `scores.json` and come back from it, so that a result that was opened again
shows them without any network. `whole_scan.run` asks the models.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.ct import ScanWarning
from ..core.labels import MAIN_ARTERIES, Artery
from ..core.text import percent
from ..models.choice import ESTIMATORS, RADIOMICS, VESSELS
from ..scoring import scores

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..results import MethodResult

TITLES = {VESSELS: "Vessel regression", RADIOMICS: "Radiomics"}

NONE_BELOW = 0.5
"""An estimate is hardly ever 0; below this Agatston score it rounds to 0 and counts as no calcium."""

MUCH_CALCIUM = 100.0
"""An Agatston score that none who says "no calcium" should have missed."""

FAR_CLASSES = 2
"""So many risk classes apart, two answers are too different for chance at a class's edge."""

DIFFERS = "second-opinion-differs"
"""Code of the warning."""

SALIENCY_FILE = "saliency_vessels.nii.gz"


@dataclass(frozen=True)
class WholeScanEstimate:
    """Whole-scan estimate of a model.

    network: one of ESTIMATORS. model, sha256: its name and the hash of its weights.
    agatston: estimates by artery, and total of all; None of a model that only detects calcium.
    probability: of any coronary calcium, 0 to 1, and limit: from which on the model says yes; None of a model that
    estimates scores.
    contributions: by feature what it adds to the answer (standardised value × weight), the largest first; above 0 it
    speaks for calcium. slice_weights: of the model's own slices, from the feet; None where it has none.
    trust: what the model's tests say of it, sentences for readers.
    saliency: where a change would change the answer most, on the scan's grid, not in JSON.
    """

    network: str
    model: str
    sha256: str
    agatston: dict[Artery, float] | None = None
    total: float | None = None
    probability: float | None = None
    limit: float | None = None
    contributions: dict[str, float] = field(default_factory=dict)
    slice_weights: tuple[float, ...] | None = None
    trust: str = ""
    saliency: sitk.Image | None = None

    @property
    def prediction(self) -> Prediction:
        """The answer as it is compared with others."""
        if self.total is None:
            return Prediction(TITLES[self.network], None, self.probability >= self.limit)
        return Prediction(TITLES[self.network], self.total if self.total >= NONE_BELOW else 0.0)


@dataclass(frozen=True)
class Prediction:
    """Prediction of a scan's calcium. agatston: None for a yes-or-no prediction.

    answer: whether there is coronary calcium; needed only where no score says so.
    """

    who: str
    agatston: float | None
    answer: bool | None = None

    @property
    def calcium(self) -> bool:
        return bool(self.answer) if self.agatston is None else self.agatston > 0

    @property
    def risk_class(self) -> str | None:
        return None if self.agatston is None else scores.risk_class(self.agatston)

    def __str__(self) -> str:
        if self.agatston is None:
            return f"{self.who}: {'calcium' if self.calcium else 'no calcium'}"
        return f"{self.who}: {self.agatston:.0f}" if self.agatston >= 1 else f"{self.who}: {self.agatston:.1g}"


@dataclass(frozen=True)
class Agreement:
    """True if two statements agree: in the risk class, or in whether there is calcium where one only says that.

    classes_apart: None where one says only yes or no. far: so different that somebody should look.
    """

    agrees: bool
    classes_apart: int | None
    far: bool

    @property
    def text(self) -> str:
        if self.classes_apart is None:
            return "agrees" if self.agrees else "differs"
        return {0: "same class", 1: "one class apart"}.get(self.classes_apart, f"{self.classes_apart} classes apart")


def agreement(one: Prediction, other: Prediction) -> Agreement:
    """Agreement of two predictions of a scan."""
    missed = any(
        not a.calcium and b.agatston is not None and b.agatston >= MUCH_CALCIUM for a, b in ((one, other), (other, one))
    )
    if one.agatston is None or other.agatston is None:
        return Agreement(one.calcium == other.calcium, None, missed)
    apart = abs(scores.class_number(one.agatston) - scores.class_number(other.agatston))
    return Agreement(apart == 0, apart, missed or apart >= FAR_CLASSES)


def prediction_of(name: str, method: MethodResult) -> Prediction | None:
    """Prediction of a method of the pipeline, on the scale of clinical scores where it is known; None of candidates by
    the clinical rule that nobody, neither network nor reader, has evaluated: they may be anything dense.

    name: key of `ScoreResult.methods`.
    """
    if name == "threshold":
        if method.status == "candidates":
            return None
        return Prediction("Clinical rule" if method.reviewed else "Clinical rule, automatic", method.total.agatston)
    scaled = method.scaled_agatston
    if scaled is None:
        return Prediction("Calcium map, adjusted", method.total.agatston)
    return Prediction("Calcium map", scaled)


def agreements(estimate: WholeScanEstimate, methods: Mapping[str, MethodResult]) -> dict[str, Agreement | None]:
    """Agreement of a whole-scan estimate with each method, by its key; None where the method says nothing yet."""
    prediction = {name: prediction_of(name, method) for name, method in methods.items()}
    return {
        name: None if other is None else agreement(estimate.prediction, other) for name, other in prediction.items()
    }


def disagreements(
    estimates: Iterable[WholeScanEstimate], methods: Mapping[str, MethodResult]
) -> tuple[ScanWarning, ...]:
    """Warn of each pair, of which one is a whole-scan estimate, that differs so much that the slices should be
    reviewed.

    Returns:
        A warning for each such pair.
    """
    estimates = tuple(estimates)
    own = [prediction for name, method in methods.items() if (prediction := prediction_of(name, method)) is not None]
    pairs = [(estimate.prediction, prediction) for estimate in estimates for prediction in own]
    pairs += itertools.combinations([estimate.prediction for estimate in estimates], 2)
    return tuple(
        ScanWarning(DIFFERS, f"{one}; {_lower(str(other))}. They differ widely. Review the slices before using either.")
        for one, other in pairs
        if agreement(one, other).far
    )


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def estimate_as_json(estimate: WholeScanEstimate, methods: Mapping[str, MethodResult]) -> dict:
    """An entry of "second_opinions" in `scores.json`; `estimates_from_json` reads it."""
    prediction = estimate.prediction
    document: dict = {"model": {"name": estimate.model, "sha256": estimate.sha256}, "calcium": prediction.calcium}
    if estimate.agatston is not None:
        document |= {
            "agatston": {artery.key: value for artery, value in estimate.agatston.items()},
            "total": estimate.total,
            "risk_class": prediction.risk_class,
            "slice_weights": None if estimate.slice_weights is None else list(estimate.slice_weights),
        }
    else:
        document |= {"probability": estimate.probability, "limit": estimate.limit}
        document["contributions"] = estimate.contributions
    agreed = agreements(estimate, methods)
    document["agreement"] = {
        name: None if found is None else {"agrees": found.agrees, "classes_apart": found.classes_apart}
        for name, found in agreed.items()
    }
    return {**document, "trust": estimate.trust}


def estimates_from_json(record: Mapping) -> tuple[WholeScanEstimate, ...]:
    """Read the whole-scan estimates of a `scores.json`.

    Returns:
        The estimates, without saliency; none where it has none, as in earlier versions.

    Raises:
        KeyError: A key is missing.
        TypeError: A value is of another type.
        ValueError: A value is no number.
        AttributeError: If it is none of ours.
    """
    arteries = {artery.key: artery for artery in MAIN_ARTERIES}
    found = []
    for network, content in (record.get("second_opinions") or {}).items():
        if network not in ESTIMATORS:  # of a later version
            continue
        by_artery, weights = content.get("agatston"), content.get("slice_weights")
        found.append(
            WholeScanEstimate(
                network,
                str(content["model"]["name"]),
                str(content["model"]["sha256"]),
                None if by_artery is None else {arteries[key]: float(value) for key, value in by_artery.items()},
                None if by_artery is None else float(content["total"]),
                None if by_artery is not None else float(content["probability"]),
                None if by_artery is not None else float(content["limit"]),
                {str(name): float(value) for name, value in content.get("contributions", {}).items()},
                None if weights is None else tuple(map(float, weights)),
                str(content["trust"]),
            )
        )
    return tuple(found)


def estimates_as_text(estimates: Iterable[WholeScanEstimate], methods: Mapping[str, MethodResult]) -> list[str]:
    """A few lines for a terminal."""
    lines = []
    for estimate in estimates:
        lines.append(f"Whole-scan estimate, {TITLES[estimate.network].lower()}: {described(estimate)}")
        for name, found in agreements(estimate, methods).items():
            other = prediction_of(name, methods[name])
            if found is not None:
                lines.append(f"  {_lower(str(other))}, {found.text}")
        lines.append(f"  {estimate.trust}")
    return lines


def described(estimate: WholeScanEstimate) -> str:
    """ "Agatston about 120 (11–100)", or "calcium (87%; positive from 31%)"."""
    prediction = estimate.prediction
    if estimate.total is None:
        word = "calcium" if prediction.calcium else "no calcium"
        return f"{word} ({percent(estimate.probability)}; positive from {percent(estimate.limit)})"
    return f"Agatston about {estimate.total:.0f} (class {prediction.risk_class})"
