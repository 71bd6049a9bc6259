"""Sentences on the trust in a whole-scan estimate, from the tests on its model's card.

A card's `validation["test"]` was measured once, on patients outside training. An estimate is {"estimate", "low",
"high"}, with its 95% interval. Missing measures are left out; a model without a test cannot be relied on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..networks.configs import VESSELS

GUESSING = 0.5
"""Area under the ROC curve of guessing."""

SUBSTANTIAL = 0.6
"""Kappa above which two raters can replace each other (Landis and Koch 1977, 10.2307/2529310)."""

MISLED = 0.1
"""Share of false positives among patients with non-coronary calcium only from which a model is not trusted there."""

NO_TEST = "Its card reports no test on other patients, so its accuracy is unknown. Do not rely on it."
NOT_CLINICAL = "Its accuracy in real patients is not known."


@dataclass(frozen=True)
class CardEstimate:
    """Measure on a card with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @classmethod
    def of(cls, test: Mapping[str, object], name: str) -> CardEstimate | None:
        """Read a measure of a card's test; None if it is missing."""
        stated = test.get(name)
        if not isinstance(stated, Mapping):
            return None
        numbers = [stated.get(key) for key in ("estimate", "low", "high")]
        finite = [float(n) for n in numbers if isinstance(n, int | float) and math.isfinite(n)]
        return cls(*finite) if len(finite) == len(numbers) else None


def trust_in(network: str, validation: Mapping[str, object]) -> str:
    """Return sentences on when to trust a model's estimate.

    Args:
        network: One of `ESTIMATORS`.
        validation: Validation of its card.
    """
    test = validation.get("test")
    if not isinstance(test, Mapping):
        return NO_TEST
    sentences = _vessel_trust(test) if network == VESSELS else _radiomics_trust(test)
    if not sentences:
        return NO_TEST
    if "digital" in str(test.get("data", "")).lower():
        sentences.append(NOT_CLINICAL)
    return " ".join(sentences)


def _vessel_trust(test: Mapping[str, object]) -> list[str]:
    """Return sentences on a vessel regression, none without a rank correlation with the truth.

    It is better than age and heart size if its interval lies above their value.
    """
    rank, simple = (CardEstimate.of(test, f"rank_correlation{end}") for end in ("", "_age_and_heart_size"))
    if rank is None:
        return []
    kappa = CardEstimate.of(test, "kappa_categories")
    sentence = f"{_tested(test)}: rank correlation with the true score {rank}"
    sentence += "" if simple is None else f", with age and heart size alone {simple.value:.2f}"
    sentence += "." if kappa is None else f"; kappa of risk classes {kappa}."
    if rank.low <= (0.0 if simple is None else simple.value):
        than = "guessing" if simple is None else "age and heart size"
        return [sentence, f"It was not shown to perform better than {than}. Do not rely on it."]
    if kappa is not None and kappa.low > SUBSTANTIAL:
        advice = "Its risk class is accurate enough to question another one. Review the slices where they differ."
    else:
        advice = "It can question a total score but not replace it. For class and arteries, rely on a reviewed score."
    return [sentence, advice, *_misled(test, "gave a score")]


def _radiomics_trust(test: Mapping[str, object]) -> list[str]:
    """Return sentences on radiomics, none without sensitivity and specificity."""
    sensitivity, specificity, area = (CardEstimate.of(test, name) for name in ("sensitivity", "specificity", "auc"))
    if sensitivity is None or specificity is None:
        return []
    sentence = f"{_tested(test)}: sensitivity {sensitivity}, specificity {specificity}."
    if (area is not None and area.low <= GUESSING) or sensitivity.low + specificity.low <= 1:
        return [sentence, "It was not shown to perform better than guessing. Do not rely on it."]
    if sensitivity.value > specificity.value:
        advice = "It misses few patients with calcium, so a negative result is more reliable than a positive one."
    else:
        advice = "It has few false positives, so a positive result is more reliable than a negative one."
    return [sentence, advice, *_misled(test, "was positive")]


def _misled(test: Mapping[str, object], did: str) -> list[str]:
    """Return a warning if calcium in aorta or valves alone misled the model. did: its error."""
    stated = test.get("non_coronary_only")
    if not isinstance(stated, Mapping):
        return []
    patients, called = stated.get("patients"), stated.get("called_coronary")
    if not isinstance(patients, int) or not isinstance(called, int) or not patients or called < MISLED * patients:
        return []
    counted = f"it {did} in {called} of {patients} patients with calcium only there"
    return [f"Do not rely on it where the aorta or valves are calcified: {counted}."]


def _tested(test: Mapping[str, object]) -> str:
    count, data = test.get("patients"), str(test.get("data", "")).strip()
    on = f" on {count} patients" if isinstance(count, int) else ""
    notes = [*([data] if data else []), "95% intervals in brackets"]
    return f"Tested{on} ({'; '.join(notes)})"
