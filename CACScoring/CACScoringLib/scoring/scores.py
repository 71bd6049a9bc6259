"""Scores by both methods: Agatston score, volume, mass and pseudo-mass of lesions, their sums and their classes.

The calcium map has no threshold, so sums over it are no Agatston scores. But the clinical score of a plaque follows
from its mass (`equivalent_agatston`), in a soft kernel, slices of 3 mm and 120 kVp: large ones score in proportion,
small ones lose to partial volume what stays below 130 HU. The curve is that of 891 lesions of 152 digital patients
(patients of the calibration; up to 290 mg), imaged without noise or motion, where a map without errors is divided into
lesions; it keeps the sum of all scores. Of lesions of one mass the dense ones score higher: from 4 to 16 mg half of all
lie between 0.66 and 1.39 of the curve, eight of ten between 0.35 and 1.95.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from ..core.categories import whole_score
from ..core.errors import CTError
from ..core.labels import MAIN_ARTERIES, AnySite, Artery, NonCoronary, SiteMap
from ..record.findings import Categories, Percentile
from ..record.rules import ScoringRules
from ..record.scores import (
    COUNTED,
    OUTSIDE,
    Lesion,
    LesionSet,
    MethodScore,
    NonCoronaryScore,
    Score,
    SumScore,
)
from ..record.sums import NEGLIGIBLE

AGATSTON_PER_MG = 3.54
HALF_MG, STEEPNESS = 5.35, 2.06
"""A lesion of this mass loses half of its score to partial volume, and how fast that changes with mass."""


def score_of(lesions: Iterable[Lesion], has_masses: bool = False) -> SumScore:
    """Add up lesions.

    Sums do not depend on the order of the lesions. The errors of their masses are taken as independent. A calcium map's
    equivalent below NEGLIGIBLE is 0.

    Args:
        lesions: The lesions.
        has_masses: True if masses of lesions were measured; the sum is None where that of a lesion is None.
    """
    lesions = list(lesions)

    def total(name: str, power: int = 1) -> float | None:
        values = [getattr(lesion, name) for lesion in lesions]
        return None if None in values else math.fsum(value**power for value in values) ** (1 / power)

    mass_mg = total("integrated_mass_mg") if has_masses else None
    agatston = math.fsum(lesion.agatston for lesion in lesions)
    clinical = math.fsum(lesion.clinical_agatston for lesion in lesions)
    return SumScore(
        agatston=agatston,
        clinical_agatston=0.0 if clinical < NEGLIGIBLE and clinical < agatston else clinical,
        volume_mm3=math.fsum(lesion.volume_mm3 for lesion in lesions),
        mass_mg=mass_mg,
        pseudo_mass_hu_mm3=math.fsum(lesion.pseudo_mass_hu_mm3 for lesion in lesions),
        lesions=len(lesions),
        peak_hu=max((lesion.peak_hu for lesion in lesions), default=None),
        integrated_mass_mg=mass_mg,
        mass_standard_error_mg=total("mass_standard_error_mg", 2) if has_masses else None,
    )


def scores_by_site(
    lesions: Iterable[Lesion], sites: type[AnySite], has_masses: bool = False
) -> SiteMap[AnySite, SumScore]:
    """Return the score of every artery, or of every site beside them, those without calcium included."""
    lesions = list(lesions)
    return SiteMap({site: score_of((x for x in lesions if x.site == site), has_masses) for site in sites})


def method_score(
    status: str,
    rules: ScoringRules,
    table: LesionSet,
    no_calcium: bool = False,
    has_masses: bool = False,
    non_coronary: NonCoronaryScore | None = None,
) -> MethodScore:
    """Add up the lesions of a table that count.

    Arguments as the fields of `MethodScore`, and has_masses as of `score_of`.
    """
    lesions = [lesion for lesion in table.lesions if lesion.status == COUNTED]
    return MethodScore(
        status=status,
        rules=rules,
        total=score_of(lesions, has_masses),
        arteries=scores_by_site(lesions, Artery, has_masses),
        no_calcium=no_calcium,
        table=table,
        non_coronary=non_coronary,
    )


def non_coronary_score(reviewed: bool, lesions: LesionSet) -> NonCoronaryScore:
    """Score the non-coronary lesions of a set, which get no masses."""
    scores = scores_by_site(lesions.of_status(OUTSIDE).lesions, NonCoronary)
    sites = {
        site.key: Score(**{f.name: getattr(score, f.name) for f in fields(Score)}) for site, score in scores.items()
    }
    return NonCoronaryScore(reviewed=reviewed, **sites)


def equivalent_agatston(mass_mg: float | np.ndarray) -> float | np.ndarray:
    """Agatston score of one lesion, by its mass in mg of hydroxyapatite."""
    mass = np.maximum(mass_mg, 0.0)
    powered = mass**STEEPNESS
    return AGATSTON_PER_MG * mass * powered / (powered + HALF_MG**STEEPNESS)


def rules_of_map(rules: ScoringRules, floor_hu: float, kvp: float | None) -> ScoringRules:
    """The rules by which lesions of the calcium map are scored, from those of the clinical score.

    Weights are read from the CT, because their bounds are HU of tissue and not of what the calcium adds to it: so the
    score equals the conventional one where the map is what a 130 HU threshold segments. The clinical score follows
    from each lesion's mass, by the scan's calibration or the usual one of its tube voltage.

    Args:
        rules: Of the clinical score.
        floor_hu: Lowest HU of the map.
        kvp: Tube voltage of the calcium (`Acquisition.calcium_kvp`); None where unknown.
    """
    from ..quality.mass_calibration import usual_calibration  # not loaded by the panel, which scores lesions only

    return replace(
        rules,
        name=f"Adjusted Agatston of the calcium map (van Velzen), otherwise: {rules.name}",
        threshold_hu=floor_hu,
        equivalent_mg_per_mm3_hu=rules.calibration_mg_per_mm3_hu or usual_calibration(kvp),
    )


ROUNDING = "Scores are rounded to the nearest integer for classes; a score above 0 counts as at least 1."

_CLASSES = ((0, "0"), (10, "1–10"), (100, "11–100"), (400, "101–400"))
RISK_CLASSES = (*(name for _, name in _CLASSES), "> 400")
_CAC_DRS = ((0, "A0"), (99, "A1"), (299, "A2"))


def categories_of(clinical: MethodScore, percentile: Percentile | None = None) -> Categories | None:
    """Return the published classes of a clinical score.

    Returns:
        The classes; None for unevaluated candidates, scores by other rules, and where they are withheld.
    """
    if clinical.status == "candidates" or clinical.withheld or not clinical.rules.is_clinical:
        return None
    agatston = clinical.total.agatston
    vessels = sum(clinical.arteries[artery].agatston > 0 for artery in MAIN_ARTERIES)
    return Categories(
        "threshold",
        clinical.status,
        risk_class(agatston),
        cac_drs(agatston, vessels),
        arterial_age_years(agatston),
        percentile,
        clinical.category_probabilities,
        clinical.probabilities_withheld,
        ROUNDING,
    )


def risk_class(agatston: float) -> str:
    """0, 1–10, 11–100, 101–400 or > 400."""
    return RISK_CLASSES[class_number(agatston)]


def class_number(agatston: float) -> int:
    """Place of a score's class among RISK_CLASSES, from 0. Raises ValueError for a negative score."""
    score = whole_score(agatston)
    return next((number for number, (highest, _) in enumerate(_CLASSES) if score <= highest), len(_CLASSES))


def cac_drs(agatston: float, vessels: int) -> str:
    """CAC-DRS for Agatston scores, as "A2/N3". vessels: how many of LM, LAD, LCX and RCA hold calcium.

    A0 0, A1 1–99, A2 100–299, A3 ≥ 300 (Hecht 2018, secondary source). Raises ValueError for impossible counts.
    """
    if not 0 <= vessels <= 4 or (vessels > 0 and agatston == 0):
        raise ValueError(f"{vessels} vessels with calcium do not fit a score of {agatston:g}")
    score = whole_score(agatston)
    level = next((name for highest, name in _CAC_DRS if score <= highest), "A3")
    return level if level == "A0" else f"{level}/N{vessels}"


def arterial_age_years(agatston: float) -> float:
    """39.1 + 7.25 ln(score + 1), McClelland 2009, doi:10.1016/j.amjcard.2008.08.031 (secondary source).

    Raises ValueError for a negative score.
    """
    _check_score(agatston)
    return 39.1 + 7.25 * math.log(agatston + 1)


def percentile_of(
    clinical: MethodScore, table: Path | None, sex: str | None, age_years: int | None
) -> Percentile | None:
    """Look a reviewed score up in a table of percentiles (`percentile_from_table`); None without one, and of others.

    Raises CTError also if sex or age is unknown.
    """
    if table is None or not clinical.reviewed:
        return None
    if sex is None or age_years is None:
        raise CTError(
            "Percentiles need sex and age_years as the scan's header does not state them: add --settings "
            """'{"scoring": {"sex": "F", "age_years": 60}}'."""
        )
    return percentile_from_table(clinical.total.agatston, sex, age_years, table)


def percentile_from_table(agatston: float, sex: str, age_years: int, table: Path) -> Percentile:
    """Look a score up in the user's own table of percentiles by sex and age.

    Args:
        agatston: The Agatston score.
        sex: "F" or "M".
        age_years: Age in years.
        table: CSV with the columns sex (F or M), age_from, age_to (years, both included) and one column per percentile
            named p25, p50, …, holding the lowest Agatston score of that percentile.

    Raises:
        CTError: If the table cannot be read or has no single row for this person.
        ValueError: For a negative score.
    """
    from ..core.errors import TableError
    from ..core.tables import read_table

    _check_score(agatston)
    read = read_table(table, ("sex", "age_from", "age_to"))
    percents = {name: float(name[1:]) for name in read.columns if re.fullmatch(r"p\d+(\.\d+)?", name)}
    names = sorted((name for name, percent in percents.items() if 0 < percent < 100), key=percents.__getitem__)
    if not names:
        raise TableError(f"The table {table} has no column of a percentile. Name them p25, p50, …")
    matches = []
    for line in read.lines:
        line.need("sex")
        if line.text("sex").upper() == sex.upper():
            line.need("age_from", "age_to", *names)
            first, last, *limits = (line.number_in(name) or 0.0 for name in ("age_from", "age_to", *names))
            if first <= age_years <= last:
                matches.append(limits)
    if len(matches) != 1:
        raise CTError(
            f"The percentile table {table.name} has {len(matches)} rows for sex {sex}, age {age_years}; exactly one "
            "is needed."
        )
    limits = matches[0]
    if limits != sorted(limits):
        raise CTError(
            f"The percentiles of {table.name} for sex {sex}, age {age_years} do not increase. Correct the row."
        )
    reached = sum(agatston >= limit for limit in limits)
    ends = [None, *(percents[name] for name in names), None]
    return Percentile(ends[reached], ends[reached + 1], table.name)


def _check_score(agatston: float) -> None:
    if not (agatston >= 0 and math.isfinite(agatston)):
        raise ValueError(f"an Agatston score is a number from 0 up, not {agatston}")
