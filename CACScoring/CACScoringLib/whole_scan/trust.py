"""Sentences on the trust in a whole-scan estimate, from the tests on its model's card.

A card's `validation["test"]` was measured once, on patients outside training. An estimate is {"estimate", "low",
"high"}, with its 95% interval. A model without a test cannot be relied on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..networks.configs import RADIOMICS, VESSELS

MEASURES = {
    VESSELS: {"rank_correlation": "rank correlation with the true score", "kappa_categories": "kappa of risk classes"},
    RADIOMICS: {"sensitivity": "sensitivity", "specificity": "specificity"},
}
"""Words for the measures of a test, by network."""

SUBSTANTIAL = 0.6
"""Kappa above which two raters can replace each other (Landis and Koch 1977, 10.2307/2529310)."""

MISLED = 0.1
"""Share of false positives among patients with non-coronary calcium only from which a model is not trusted there."""

NO_TEST = "Its card reports no test on other patients, so its accuracy is unknown. Do not rely on it."
NOT_CLINICAL = "Its accuracy in real patients is not known."


def trust_in(network: str, validation: Mapping[str, object]) -> str:
    """Return sentences on when to trust a model's estimate.

    Args:
        network: One of `ESTIMATORS`.
        validation: Validation of its card.
    """
    test = validation.get("test")
    measured = {name: _estimate(test, name) for name in MEASURES[network]}
    estimates = [estimate for estimate in measured.values() if estimate is not None]
    if not isinstance(test, Mapping) or len(estimates) < len(measured):
        return NO_TEST
    results = ", ".join(
        f"{words} {value:.2f} [{low:.2f}, {high:.2f}]"
        for words, (value, low, high) in zip(MEASURES[network].values(), estimates, strict=True)
    )
    data = str(test.get("data", "")).strip()
    notes = "; ".join(filter(None, (data, "95% intervals in brackets")))
    sentences = [f"Tested on {test.get('patients')} patients ({notes}): {results}."]
    if network == VESSELS:
        simple = _estimate(test, "rank_correlation_age_and_heart_size")
        sentences += [f"Age and heart size alone: {simple[0]:.2f}."] if simple else []
        sentences += _vessel_advice(estimates, simple[0] if simple else 0.0)
    else:
        sentences += _radiomics_advice(estimates)
    controls = test.get("non_coronary_only")
    if isinstance(controls, Mapping) and controls["called_coronary"] >= MISLED * controls["patients"]:
        count = f"{controls['called_coronary']} of {controls['patients']} patients with calcium only there"
        sentences.append(f"Do not rely on it where the aorta or valves are calcified: it found calcium in {count}.")
    return " ".join([*sentences, *([NOT_CLINICAL] if "digital" in data.lower() else [])])


def _vessel_advice(estimates: list[tuple[float, float, float]], simple: float) -> list[str]:
    """Return advice from rank correlation and kappa. simple: rank correlation of age and heart size, 0 if unknown."""
    (_, rank_low, _), (_, kappa_low, _) = estimates
    if rank_low <= simple:
        than = "age and heart size" if simple else "guessing"
        return [f"It was not shown to perform better than {than}. Do not rely on it."]
    if kappa_low > SUBSTANTIAL:
        return ["Its risk class is accurate enough to question another one. Review the slices where they differ."]
    return ["It can question a total score but not replace it. For class and arteries, rely on a reviewed score."]


def _radiomics_advice(estimates: list[tuple[float, float, float]]) -> list[str]:
    (sensitivity, least_sensitivity, _), (specificity, least_specificity, _) = estimates
    if least_sensitivity + least_specificity <= 1:
        return ["It was not shown to perform better than guessing. Do not rely on it."]
    if sensitivity > specificity:
        return ["It misses few patients with calcium, so a negative result is more reliable than a positive one."]
    return ["It has few false positives, so a positive result is more reliable than a negative one."]


def _estimate(test: object, name: str) -> tuple[float, float, float] | None:
    """Return a measure of a card's test with its interval; None if it is missing."""
    stated = test.get(name) if isinstance(test, Mapping) else None
    if not isinstance(stated, Mapping):
        return None
    value, low, high = (stated.get(key) for key in ("estimate", "low", "high"))
    numbers = [float(n) for n in (value, low, high) if isinstance(n, int | float) and math.isfinite(n)]
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None
