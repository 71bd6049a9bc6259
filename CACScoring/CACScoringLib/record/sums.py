"""Checks that the scores of a stored result fit together: signs, sums over lesions and arteries, intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..core.errors import WrongValueError

_NOT_NEGATIVE = ("agatston", "clinical_agatston", "volume_mm3", "lesions")
"""Quantities that are never negative; masses above the background may be, by noise."""

_SUMMED = (*_NOT_NEGATIVE, "pseudo_mass_hu_mm3")
"""Quantities that add up over lesions."""

NEGLIGIBLE = 0.5
"""Equivalent of a calcium map's lesions below which there is no calcium on the clinical scale."""

RELATIVE_TOLERANCE, TOLERANCE = 1e-6, 1e-3
"""Largest difference of a stored sum from the sum of its parts: share, and number; both are written unrounded."""


def check_sums(total: Any, arteries: Sequence[tuple[str, Any]], lesions: Sequence[Any]) -> None:
    """Raise WrongValueError, with the place of the wrong value, if scores of one method contradict each other.

    Args:
        total: `SumScore` of all lesions that count.
        arteries: Key and `SumScore` of each artery.
        lesions: Each `Lesion` that counts.
    """
    of_artery = [(key, [lesion for lesion in lesions if lesion.site.key == key]) for key, _ in arteries]
    sums = [("total", total, list(lesions))]
    sums += [(f"arteries.{key}", score, part) for (key, score), (_, part) in zip(arteries, of_artery, strict=True)]
    for place, score, parts in sums:
        check_signs(score, place)
        for name in _SUMMED:
            value, expected = getattr(score, name), math.fsum(getattr(part, name) for part in parts)
            is_negligible = name == "clinical_agatston" and value == 0 and expected < NEGLIGIBLE
            if not is_negligible and not math.isclose(value, expected, rel_tol=RELATIVE_TOLERANCE, abs_tol=TOLERANCE):
                raise WrongValueError(f"{place}.{name}", value)
        for name in ("interval_90", "mass_interval_90"):
            if (limits := getattr(score, name)) is not None and not 0 <= limits[0] <= limits[1]:
                raise WrongValueError(f"{place}.{name}", limits)


def check_signs(score: Any, place: str) -> None:
    """Raise WrongValueError if a quantity of a `Score` is negative that cannot be."""
    for name in _NOT_NEGATIVE:
        if getattr(score, name) < 0:
            raise WrongValueError(f"{place}.{name}", getattr(score, name))
