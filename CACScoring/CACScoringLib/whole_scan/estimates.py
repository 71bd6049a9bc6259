"""Whole-scan estimates: predictions of models without lesions, and their agreement with a scan's scores.

They are plain numbers and sentences stored in `scores.json`, so that a reopened result shows them without a network.
`whole_scan.run` runs the models.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.ct import ScanWarning
from ..core.errors import UnreadableError
from ..core.text import percent
from ..networks.configs import ESTIMATORS
from ..record.score_record import EstimateModelRecord, EstimateRecord
from ..scoring.scores import class_number, risk_class
from .trust import trust_in

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..models.cards import ModelCard
    from ..record.score_record import ScoreRecord
    from ..record.scores import MethodScore

TITLES = {name: role.title for name, role in ESTIMATORS.items()}

NONE_BELOW = 0.5
"""Agatston score below which an estimate, which is hardly ever 0, counts as no calcium."""

MUCH_CALCIUM = 100.0
"""Agatston score from which a prediction of no calcium differs widely."""

FAR_CLASSES = 2
"""Distance of risk classes from which two predictions differ widely, beyond chance at a class's edge."""

UNDETERMINED = "undetermined: what is dense may be coronary calcium or not"
"""Words for an estimate without a number."""

DIFFERS = "second-opinion-differs"
"""Code of the warning."""

SALIENCY_FILE = "saliency_vessels.nii.gz"


@dataclass(frozen=True)
class WholeScanEstimate:
    """Whole-scan estimate of a model.

    Attributes:
        network: Kind of ESTIMATORS.
        record: The estimate as stored in "second_opinions", without agreement, which changes with a review.
        saliency: Saliency map on the scan's grid, not stored in JSON.
    """

    network: str
    record: EstimateRecord
    saliency: sitk.Image | None = None

    @property
    def prediction(self) -> Prediction | None:
        """Prediction for comparison with others; None if it is undetermined."""
        record, title = self.record, TITLES[self.network]
        if record.undetermined:
            return None
        if record.total is not None:
            return Prediction(title, record.total if record.total >= NONE_BELOW else 0.0, record.total >= NONE_BELOW)
        if record.probability is None or record.limit is None:
            raise ValueError("An estimate holds a score, or a probability and its limit.")
        return Prediction(title, None, record.probability >= record.limit)


def estimate_of(model: ModelCard, saliency: sitk.Image | None = None, **values: Any) -> WholeScanEstimate:
    """Return the estimate of a model. values: its numbers by field of `EstimateRecord`."""
    about, trust = EstimateModelRecord(model.name, model.sha256), trust_in(model.network, model.validation)
    record = EstimateRecord(model=about, trust=trust, **values)
    if prediction := WholeScanEstimate(model.network, record).prediction:
        record = replace(record, calcium=prediction.calcium, risk_class=prediction.risk_class)
    return WholeScanEstimate(model.network, record, saliency)


@dataclass(frozen=True)
class Prediction:
    """Prediction of a scan's calcium.

    Attributes:
        method: Title of the method.
        agatston: Score; None for a yes-or-no prediction.
        calcium: True for coronary calcium.
    """

    method: str
    agatston: float | None
    calcium: bool

    @property
    def risk_class(self) -> str | None:
        return None if self.agatston is None else risk_class(self.agatston)

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


def agreement_of_estimates(first: Prediction, second: Prediction) -> Agreement:
    """Return the agreement of two predictions of a scan."""
    is_missed = first.calcium != second.calcium and max(first.agatston or 0, second.agatston or 0) >= MUCH_CALCIUM
    if first.agatston is None or second.agatston is None:
        return Agreement(first.calcium == second.calcium, None, is_missed)
    apart = abs(class_number(first.agatston) - class_number(second.agatston))
    return Agreement(apart == 0, apart, is_missed or apart >= FAR_CLASSES)


def prediction_of(name: str, method: MethodScore) -> Prediction | None:
    """Return the prediction of a pipeline method, on the scale of clinical scores.

    It is None for candidates by the clinical rule that neither network nor reader has evaluated. name: key of
    `ScoreResult.methods`.
    """
    score, title = method.total.clinical_agatston, "Calcium map"
    if name == "threshold":
        if method.status == "candidates":
            return None
        title = f"Clinical rule{'' if method.reviewed else f', {method.status}'}"
    return Prediction(title, score, score > 0)


def agreements(estimate: WholeScanEstimate, methods: Mapping[str, MethodScore]) -> dict[str, Agreement | None]:
    """Return the agreement of a whole-scan estimate with each method by key; None without either's prediction."""
    estimated, predictions = estimate.prediction, {key: prediction_of(key, method) for key, method in methods.items()}
    return {
        key: None if estimated is None or prediction is None else agreement_of_estimates(estimated, prediction)
        for key, prediction in predictions.items()
    }


def disagreements(
    estimates: Iterable[WholeScanEstimate], methods: Mapping[str, MethodScore]
) -> tuple[ScanWarning, ...]:
    """Warn of each pair with a whole-scan estimate that differs widely.

    Returns:
        A warning for each such pair.
    """
    estimated = [prediction for estimate in estimates if (prediction := estimate.prediction)]
    predictions = [prediction_of(name, method) for name, method in methods.items()]
    pairs = [(first, second) for first in estimated for second in predictions if second is not None]
    pairs += itertools.combinations(estimated, 2)
    return tuple(
        ScanWarning(
            DIFFERS, f"{first}; {_lower(str(second))}. They differ widely. Review the slices before using either."
        )
        for first, second in pairs
        if agreement_of_estimates(first, second).differs_widely
    )


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def estimate_record(estimate: WholeScanEstimate, methods: Mapping[str, MethodScore]) -> EstimateRecord:
    """Return an entry of "second_opinions" in `scores.json`."""
    agreed: dict[str, dict[str, object] | None] = {
        name: None if item is None else {"agrees": item.agrees, "classes_apart": item.classes_apart}
        for name, item in agreements(estimate, methods).items()
    }
    return replace(estimate.record, agreement=agreed)


def recorded_estimates(record: ScoreRecord) -> tuple[WholeScanEstimate, ...]:
    """Read the whole-scan estimates of a recorded result.

    Returns:
        The estimates, without saliency and agreement; none of networks of later versions.

    Raises:
        UnreadableError: An estimate has no number.
    """
    recorded = {network: item for network, item in record.second_opinions.items() if network in ESTIMATORS}
    for network, item in recorded.items():
        if item.total is None and None in (item.probability, item.limit) and not item.undetermined:
            raise UnreadableError(f"The record of the score has no numbers of {network}. Score the scan again.")
    return tuple(WholeScanEstimate(network, replace(item, agreement={})) for network, item in recorded.items())


def estimates_as_text(estimates: Iterable[WholeScanEstimate], methods: Mapping[str, MethodScore]) -> list[str]:
    """Return lines for a terminal."""
    lines = []
    for estimate in estimates:
        lines.append(f"Whole-scan estimate, {TITLES[estimate.network].lower()}: {describe_estimate(estimate)}")
        for name, verdict in agreements(estimate, methods).items():
            prediction = prediction_of(name, methods[name])
            if verdict is not None:
                lines.append(f"  {_lower(str(prediction))}, {verdict.text}")
        lines.append(f"  {estimate.record.trust}")
    return lines


def describe_estimate(estimate: WholeScanEstimate) -> str:
    """Return a text as "Agatston about 120 (risk class 11–100)", "calcium (87%; positive from 31%)" or UNDETERMINED.

    What is undetermined beside a score follows it (`undetermined_text`).
    """
    record, prediction = estimate.record, estimate.prediction
    if prediction is None:
        return UNDETERMINED
    if record.probability is not None and record.limit is not None:
        word = "calcium" if prediction.calcium else "no calcium"
        return f"{word} ({percent(record.probability)}; positive from {percent(record.limit)})"
    return f"Agatston about {record.total:.0f} (risk class {prediction.risk_class}){undetermined_text(record)}"


def undetermined_text(record: EstimateRecord) -> str:
    """Return a text as "; 80 more undetermined, most in the RCA"; empty if nothing is."""
    scores = record.undetermined_agatston
    if not scores:
        return ""
    return f"; {sum(scores.values()):.0f} more undetermined, most in the {max(scores, key=lambda a: scores[a])}"
