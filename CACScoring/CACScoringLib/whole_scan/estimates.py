"""Whole-scan estimates: predictions of models without lesions, and their agreement with a scan's scores.

They are plain numbers and sentences stored in `scores.json`, so that a reopened result shows them without a network.
`whole_scan.run` runs the models.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.ct import ScanWarning, UnreadableError
from ..core.labels import MAIN_ARTERIES, Artery
from ..core.text import percent
from ..networks.configs import ESTIMATORS, RADIOMICS, VESSELS
from ..record.score_record import EstimateModelRecord, EstimateRecord
from ..scoring import scores

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..record.score_record import ScoreRecord
    from ..scoring.methods import MethodResult

TITLES = {VESSELS: "Vessel regression", RADIOMICS: "Radiomics"}

NONE_BELOW = 0.5
"""Agatston score below which an estimate, which is hardly ever 0, counts as no calcium."""

MUCH_CALCIUM = 100.0
"""Agatston score from which a prediction of no calcium differs widely."""

FAR_CLASSES = 2
"""Distance of risk classes from which two predictions differ widely, beyond chance at a class's edge."""

DIFFERS = "second-opinion-differs"
"""Code of the warning."""

SALIENCY_FILE = "saliency_vessels.nii.gz"


@dataclass(frozen=True)
class WholeScanEstimate:
    """Whole-scan estimate of a model.

    Attributes:
        network: Kind of ESTIMATORS.
        model: Name of the model.
        sha256: Hash of its weights.
        agatston: Estimated scores by artery; None for a model that only detects calcium.
        total: Estimated total score; None for a model that only detects calcium.
        probability: Probability of any coronary calcium, 0 to 1; None for a model that estimates scores.
        limit: Probability from which it counts as calcium; None for a model that estimates scores.
        contributions: Contribution of each feature (standardised value × weight), the largest first; positive ones
            favour calcium.
        slice_weights: Weights of the model's slices, from the feet; None without such weights.
        trust: Sentences for readers on the model's tests.
        saliency: Saliency map on the scan's grid, not stored in JSON.
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
        """Prediction for comparison with others."""
        if self.total is not None:
            return Prediction(TITLES[self.network], self.total if self.total >= NONE_BELOW else 0.0)
        if self.probability is None or self.limit is None:
            raise ValueError("An estimate holds a score, or a probability and its limit.")
        return Prediction(TITLES[self.network], None, self.probability >= self.limit)


@dataclass(frozen=True)
class Prediction:
    """Prediction of a scan's calcium.

    Attributes:
        method: Title of the method.
        agatston: Score; None for a yes-or-no prediction.
        answer: True for coronary calcium, in a yes-or-no prediction.
    """

    method: str
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
            return f"{self.method}: {'calcium' if self.calcium else 'no calcium'}"
        return f"{self.method}: {self.agatston:.0f}" if self.agatston >= 1 else f"{self.method}: {self.agatston:.1g}"


@dataclass(frozen=True)
class Agreement:
    """Agreement of two predictions.

    Attributes:
        agrees: True for the same risk class, or the same answer if one is a yes-or-no prediction.
        classes_apart: Distance of risk classes; None if one is a yes-or-no prediction.
        differs_widely: True for a difference that needs a review.
    """

    agrees: bool
    classes_apart: int | None
    differs_widely: bool

    @property
    def text(self) -> str:
        if self.classes_apart is None:
            return "agrees" if self.agrees else "differs"
        return {0: "same class", 1: "one class apart"}.get(self.classes_apart, f"{self.classes_apart} classes apart")


def agreement(first: Prediction, second: Prediction) -> Agreement:
    """Return the agreement of two predictions of a scan."""
    missed = any(
        not a.calcium and b.agatston is not None and b.agatston >= MUCH_CALCIUM
        for a, b in ((first, second), (second, first))
    )
    if first.agatston is None or second.agatston is None:
        return Agreement(first.calcium == second.calcium, None, missed)
    apart = abs(scores.class_number(first.agatston) - scores.class_number(second.agatston))
    return Agreement(apart == 0, apart, missed or apart >= FAR_CLASSES)


def prediction_of(name: str, method: MethodResult) -> Prediction | None:
    """Return the prediction of a pipeline method, on the scale of clinical scores if it is known.

    It is None for candidates by the clinical rule that neither network nor reader has evaluated. name: key of
    `ScoreResult.methods`.
    """
    if name == "threshold":
        if method.status == "candidates":
            return None
        state = "" if method.reviewed else f", {method.status}"
        return Prediction(f"Clinical rule{state}", method.total.agatston)
    scaled = method.scaled_agatston
    if scaled is None:
        return Prediction("Calcium map, adjusted", method.total.agatston)
    return Prediction("Calcium map", scaled)


def agreements(estimate: WholeScanEstimate, methods: Mapping[str, MethodResult]) -> dict[str, Agreement | None]:
    """Return the agreement of a whole-scan estimate with each method by key; None for methods without a prediction."""
    prediction = {name: prediction_of(name, method) for name, method in methods.items()}
    return {
        name: None if predicted is None else agreement(estimate.prediction, predicted)
        for name, predicted in prediction.items()
    }


def disagreements(
    estimates: Iterable[WholeScanEstimate], methods: Mapping[str, MethodResult]
) -> tuple[ScanWarning, ...]:
    """Warn of each pair with a whole-scan estimate that differs widely.

    Returns:
        A warning for each such pair.
    """
    estimates = tuple(estimates)
    predictions = [prediction_of(name, method) for name, method in methods.items()]
    pairs = [(estimate.prediction, p) for estimate in estimates for p in predictions if p is not None]
    pairs += itertools.combinations([estimate.prediction for estimate in estimates], 2)
    return tuple(
        ScanWarning(
            DIFFERS, f"{first}; {_lower(str(second))}. They differ widely. Review the slices before using either."
        )
        for first, second in pairs
        if agreement(first, second).differs_widely
    )


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def estimate_record(estimate: WholeScanEstimate, methods: Mapping[str, MethodResult]) -> EstimateRecord:
    """Return an entry of "second_opinions" in `scores.json`."""
    prediction, agreed = estimate.prediction, agreements(estimate, methods)
    by_artery = estimate.agatston
    return EstimateRecord(
        model=EstimateModelRecord(estimate.model, estimate.sha256),
        calcium=prediction.calcium,
        agatston=None if by_artery is None else {artery.key: value for artery, value in by_artery.items()},
        total=estimate.total,
        risk_class=prediction.risk_class,
        slice_weights=estimate.slice_weights,
        probability=estimate.probability,
        limit=estimate.limit,
        contributions=estimate.contributions,
        agreement={
            name: None if item is None else {"agrees": item.agrees, "classes_apart": item.classes_apart}
            for name, item in agreed.items()
        },
        trust=estimate.trust,
    )


def recorded_estimates(record: ScoreRecord) -> tuple[WholeScanEstimate, ...]:
    """Read the whole-scan estimates of a recorded result.

    Returns:
        The estimates, without saliency; none of networks of later versions.

    Raises:
        UnreadableError: An estimate has no number.
    """
    estimates = []
    for network, recorded in record.second_opinions.items():
        if network not in ESTIMATORS:  # of a later version
            continue
        if recorded.total is None and None in (recorded.probability, recorded.limit):
            raise UnreadableError(f"The record of the score has no numbers of {network}. Score the scan again.")
        model, scores = recorded.model, recorded.agatston
        by_artery = None if scores is None else {a: scores[a.key] for a in MAIN_ARTERIES if a.key in scores}
        names = ("total", "probability", "limit", "contributions", "slice_weights", "trust")
        values = {name: getattr(recorded, name) for name in names}
        estimates.append(WholeScanEstimate(network, model.name, model.sha256, by_artery, **values))
    return tuple(estimates)


def estimates_as_text(estimates: Iterable[WholeScanEstimate], methods: Mapping[str, MethodResult]) -> list[str]:
    """Return lines for a terminal."""
    lines = []
    for estimate in estimates:
        lines.append(f"Whole-scan estimate, {TITLES[estimate.network].lower()}: {describe_estimate(estimate)}")
        for name, verdict in agreements(estimate, methods).items():
            prediction = prediction_of(name, methods[name])
            if verdict is not None:
                lines.append(f"  {_lower(str(prediction))}, {verdict.text}")
        lines.append(f"  {estimate.trust}")
    return lines


def describe_estimate(estimate: WholeScanEstimate) -> str:
    """Return a text as "Agatston about 120 (class 11–100)", or "calcium (87%; positive from 31%)"."""
    prediction = estimate.prediction
    if estimate.probability is not None and estimate.limit is not None:
        word = "calcium" if prediction.calcium else "no calcium"
        return f"{word} ({percent(estimate.probability)}; positive from {percent(estimate.limit)})"
    return f"Agatston about {estimate.total:.0f} (class {prediction.risk_class})"
