"""A result at a glance, in the same words for the report, the panel and the page of the review: one headline, one
table, and one line per warning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.categories import category_of, whole_score
from ..core.labels import Artery
from ..core.warning_codes import ADVICE, ADVICE_AFTER_REVIEW
from ..record.findings import Categories
from ..record.score_record import TruthRecord
from ..record.scores import CATEGORISED_BELOW, STATUSES, MethodScore, SumScore
from ..results import CLINICAL_TITLES
from ..scoring.doubt import POSSIBLE_METAL_HU, at_most_99_percent, doubtful_text, possible_stents
from ..scoring.uncertainty import TOTAL

if TYPE_CHECKING:
    from ..core.ct import ScanWarning
    from ..record.provenance import Confirmation

_MIN_NAMED = 0.1
"""Probability from which a category is named beside the likeliest."""

BY_STATUS = ("automatic", "lesions-automatic", "lesions-given", "unreviewed", "reviewed-empty", "doubt-decides")
"""Codes of warnings that repeat the headline's state or decision."""

_SENTENCE_END = re.compile(r"(?<=[a-z0-9)]\.)\s+(?=[A-Z])")


@dataclass(frozen=True)
class WarningLine:
    """A warning as one line. why: the rest of it, and what to do."""

    code: str
    line: str
    why: str
    severe: bool


@dataclass(frozen=True)
class Decision:
    """Doubtful lesion that decides between two scores.

    Attributes:
        lesion: ID of the lesion.
        artery: Artery for which it counts, if it does.
        question: Question to the reader, which names it.
        counted: Score if it is coronary calcium.
        rejected: Score if it is not.
    """

    lesion: int
    artery: Artery
    question: str
    counted: str
    rejected: str


@dataclass(frozen=True)
class Headline:
    """Text above all numbers.

    Attributes:
        score: Score by the clinical rule, such as "Agatston 161".
        interval: Its 90 % interval; empty if unknown.
        category: Probable categories of an automatic score, classes of a reviewed one.
        state: Status in words, with the reader of a reviewed score.
        reviewed: True if a reader confirmed the score.
        warning: Worst warning; None if there is none but the state.
        more: Number of further warnings.
        decision: Doubtful lesion that decides the score; None if none does.
    """

    score: str
    interval: str
    category: str
    state: str
    reviewed: bool
    warning: WarningLine | None
    more: int
    decision: Decision | None = None

    @property
    def summary(self) -> str:
        """Interval and category in one line."""
        text = " · ".join(filter(None, (self.interval, self.category)))
        return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class TableRow:
    """One row of the table of scores.

    Attributes:
        site: Artery; None for the total.
        name: Title of the row.
        cells: Texts below all column titles but the first.
        note: Number of doubtful lesions, as "13 of 84 doubtful"; empty if there are none.
    """

    site: Artery | None
    name: str
    cells: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class ScoreTable:
    """Scores by artery, the total first.

    Attributes:
        titles: Titles of the columns; MAP_TITLE for the score of the calcium map.
        rows: Rows.
    """

    titles: tuple[str, ...]
    rows: tuple[TableRow, ...]


MAP_TITLE = "Map"


def headline(
    methods: Mapping[str, MethodScore],
    categories: Categories | None,
    warnings: Iterable[ScanWarning],
    confirmation: Confirmation | None = None,
    readers: Sequence[str] = (),
) -> Headline:
    """Return the headline of a result.

    Args:
        methods: Scores by method.
        categories: Classes of the clinical score.
        warnings: Warnings of the result.
        confirmation: Confirmation of the clinical score, which names the reader; None if unknown.
        readers: Readers whose consensus was confirmed; empty without a consensus.
    """
    method = methods.get("threshold")
    lines = [line for line in warning_lines(warnings, methods) if line.code not in BY_STATUS]
    warning, more = (lines[0] if lines else None), max(0, len(lines) - 1)
    if method is None:  # a review whose labels contradict each other
        return Headline("No score", "", "", "not reviewed", False, warning, more)
    if method.reviewed:
        looked_at = "" if confirmation is None else confirmation.part
        state = "reviewed" if confirmation is None else f"reviewed by {confirmation.name}"
        state += f" (consensus of {', '.join(readers)})" if readers else ""
        state += ": no coronary calcium" if method.no_calcium else ""
        state += f", {looked_at}" if looked_at else ""
    else:
        state = "candidates, not reviewed" if method.status == "candidates" else STATUSES[method.status]
    score = f"Agatston {whole_score(method.total.agatston):,}"
    if method.alternative_agatston is not None:
        score += f" or {whole_score(method.alternative_agatston):,}"
    if method.status == "candidates":
        count = method.total.lesions
        score = f"{count:,} candidate{'' if count == 1 else 's'}" if count else "No candidates"
    category = " · ".join(_category(method, categories))
    decision = _decision(method)
    return Headline(score, interval_text(method), category, state, method.reviewed, warning, more, decision)


def blind_headline(reviewed: bool, undecided_count: int) -> Headline:
    """Return the headline of a blind reading, from whose numbers the scan could be told.

    Args:
        reviewed: True if the reader has confirmed the score.
        undecided_count: Number of candidates without a decision.
    """
    state = "reviewed" if reviewed else "not reviewed"
    return Headline("Blind reading", "", f"candidates to decide: {undecided_count}", state, reviewed, None, 0)


def _decision(method: MethodScore) -> Decision | None:
    number, alternative = method.alternative_lesion, method.alternative_agatston
    lesion = next((lesion for lesion in method.listed if lesion.id == number), None)
    if lesion is None or lesion.verdict is None or alternative is None:
        return None
    rejected, counted = sorted((method.total.agatston, alternative))
    verdict, chance = lesion.verdict, at_most_99_percent(lesion.verdict.probability)
    metal = f"peak {lesion.peak_hu:,.0f} HU as of metal" if lesion.peak_hu > POSSIBLE_METAL_HU else ""
    stents = len(possible_stents(method)) if verdict.is_stent else 0
    stent = "" if not stents else "possible stent" if stents == 1 else f"largest of {stents} possible stents"
    facts = (verdict.arteries, f"slices {lesion.slice_range}", f"probability {chance}", verdict.reason, metal, stent)
    question = f"Is lesion {lesion.id} ({', '.join(filter(None, facts))}) coronary calcium?"
    scores = f"{whole_score(counted):,}", f"{whole_score(rejected):,}"
    return Decision(lesion.id, min(verdict.artery, Artery.OTHER), question, *scores)


def _category(method: MethodScore, categories: Categories | None) -> list[str]:
    if method.withheld:
        return ["interval and category withheld"]
    if method.status == "candidates":
        together = f", {method.total.agatston:.0f} Agatston units in all" if method.total.lesions else ""
        return [f"not a calcium score{together}"]
    parts = [text] if (text := category_text(method)) else []
    if categories is not None:
        parts = parts or [f"category {category_of(method.total.clinical_agatston).replace('-', '–')}"]
        parts.append(f"CAC-DRS {categories.cac_drs}")
        parts += [str(categories.percentile)] if categories.percentile is not None else []
    return parts


def score_table(methods: Mapping[str, MethodScore], truth: TruthRecord | None = None) -> ScoreTable:
    """Return the table of clinical scores, with the calcium map's score in the last column.

    Mass is the integrated mass. Arteries are omitted while lesions are
    unassigned, so that none reads as free of calcium; *other* is omitted if empty.

    truth: Masses of a digital patient.
    """
    method, map_method = methods.get("threshold"), methods.get("decomposition")
    if method is None:
        return ScoreTable(("Artery",), ())
    parts: list[Artery | None] = [None, *_arteries(method)]
    columns = {"Agatston": [_number(_score(method, part).clinical_agatston) for part in parts]}
    columns["Volume mm³"] = [_number(_score(method, part).volume_mm3) for part in parts]
    masses = [mass_text(method, part) for part in parts]
    if any(mass != "–" for mass in masses):
        columns["Mass mg"] = masses
    if method.has_intervals:
        columns["90 % interval"] = [interval_cell(method, part) for part in parts]
    if truth is not None:
        columns["True mg"] = [_number(truth.mass_mg.get(TOTAL if part is None else part.key, 0)) for part in parts]
    if map_method is not None:
        columns[MAP_TITLE] = [_number(_score(map_method, part).clinical_agatston) for part in parts]
    names = ["Total" if part is None else part.key for part in parts]
    notes = [doubtful_text(method, part) for part in parts]
    rows = zip(parts, names, zip(*columns.values(), strict=True), notes, strict=True)
    return ScoreTable(("Artery", *columns), tuple(TableRow(*row) for row in rows))


def warning_lines(warnings: Iterable[ScanWarning], methods: Mapping[str, MethodScore]) -> list[WarningLine]:
    """Return warnings of a result as lines, severe ones first and what the headline states last."""
    reviewed = "threshold" in methods and methods["threshold"].reviewed
    reviewed_advice = ADVICE_AFTER_REVIEW if reviewed else {}
    lines = []
    for warning in warnings:
        line, *explanation = _SENTENCE_END.split(warning.message)
        advice = _SENTENCE_END.split(reviewed_advice.get(warning.code, ADVICE.get(warning.code, "")))
        why = " ".join([*explanation, *(sentence for sentence in advice if sentence not in warning.message)])
        lines.append(WarningLine(warning.code, line, why, bool(warning.severe)))
    return sorted(lines, key=lambda line: (not line.severe, line.code in BY_STATUS))


def range_text(low: float, high: float) -> str:
    """Return an interval in whole numbers, as scores are reported."""
    return f"{low:.0f}–{high:.0f}" if round(low) < round(high) else f"{high:.0f}"


def interval_text(method: MethodScore) -> str:
    """Return the total's interval and what it is of, such as "90 % interval 40–130 for an expert's reading".

    The text explains a missing interval of a score above the repeatability study; it is empty if no errors are known.
    """
    if method.total.interval_90 is None:
        return "no 90 % interval: the repeatability of such high scores was not studied" if method.has_intervals else ""
    return f"90 % interval {range_text(*method.total.interval_90)} for {_predicted(method)}"


def _predicted(method: MethodScore) -> str:
    """Name what the interval of a score predicts: confirming a score changes it."""
    if method.reviewed:
        return "the score of a second scan"
    if method.calibrated_on is not None:
        return "the reading of the reference"
    return "a scan without motion and noise" if method.is_map else "an expert's reading"


def category_text(method: MethodScore) -> str:
    """Return the probable categories of an automatic score, such as "category 1–99 (78 %), 100–399 (20 %)".

    Of a score of 0: "of 100 such simulated scans 69 have no calcium, 23 have 100–399".
    The text explains categories withheld from a high score; it is empty if they are unknown.
    """
    if method.probabilities_withheld:
        return f"category probabilities are withheld from a score of {CATEGORISED_BELOW:.0f}"
    likely = sorted(method.category_probabilities.items(), key=lambda item: -item[1])
    named = [item for n, item in enumerate(likely) if n == 0 or item[1] >= _MIN_NAMED]
    percents = [(name.replace("-", "–"), f"{100 * min(max(p, 0.01), 0.99):.0f}") for name, p in named]
    if percents and not method.total.lesions:
        kind = "simulated " if method.calibrated_on is None else ""
        counts = [f"{percent} have {'no calcium' if name == '0' else name}" for name, percent in percents]
        return f"of 100 such {kind}scans {', '.join(counts)}"
    texts = [f"{name} ({percent} %)" for name, percent in percents]
    return f"category {', '.join(texts)}" if texts else ""


def interval_note(method: MethodScore) -> str:
    """Return a note on what the interval covers and on its calibration; empty without one."""
    if not method.has_intervals:
        return ""
    arteries = (
        "Intervals of arteries come from errors of single arteries and need not add up to the total's; one that would "
        "reach beyond it is left out."
    )
    if method.reviewed:
        truth = "the reviewed score of a second scan of this patient, from the scan–rescan study stored with the model."
    elif method.calibrated_on is not None:
        truth = (
            f"the score that the reference's readers would give to this scan. Calibrated on {method.calibrated_on}; it "
            "holds for patients and scans like theirs."
        )
    else:
        by_map, by_rule = "a motion- and noise-free scan of this patient", "an expert reader's score of this scan"
        truth = (
            f"{by_map if method.is_map else by_rule}. Calibrated on simulated patients; errors that the simulation "
            "does not reproduce are not covered."
        )
    return f"90 % prediction interval for {truth} {arteries}"


def features_sentence(method: MethodScore) -> str:
    """Return "12 lesions in 3 arteries, 41 % of the mass in the proximal LAD"; empty if arteries are unknown."""
    features = method.features
    if features is None or not features.diseased_arteries:
        return ""
    lesions, arteries = len(features.lesions), features.diseased_arteries
    text = f"{lesions} lesion{'' if lesions == 1 else 's'} in {arteries} arter{'y' if arteries == 1 else 'ies'}"
    parts = {}
    for key, artery in features.arteries.items():
        if key == Artery.LM.key:
            parts["left main"] = artery.mass_share
        elif artery.proximal_share is not None:
            parts[f"proximal {key}"] = artery.mass_share * artery.proximal_share
            parts[f"{key} beyond its proximal third"] = artery.mass_share * (1 - artery.proximal_share)
    if not parts:
        return text
    largest = max(parts, key=parts.__getitem__)
    return f"{text}, {100 * parts[largest]:.0f} % of the mass in the {largest}"


def map_sentence(method: MethodScore) -> str:
    """Return the calcium map's score, such as "Agatston equivalent 374 · 90 % interval 21–414 · category …"."""
    if not method.total.lesions:
        return "The calcium map is empty; small and faint lesions may be missed"
    parts = (f"{CLINICAL_TITLES['decomposition']} {method.total.clinical_agatston:,.0f}", interval_text(method))
    return " · ".join(filter(None, (*parts, category_text(method))))


def _arteries(method: MethodScore) -> list[Artery]:
    has_artery = any(lesion.site != Artery.UNASSIGNED for lesion in method.lesions)
    if not (method.status in ("reviewed", "given") or method.has_intervals or has_artery):
        return [Artery.UNASSIGNED] if method.lesions else []
    return [a for a, score in method.arteries.items() if a <= Artery.RCA or score.lesions]


def _score(method: MethodScore, part: Artery | None) -> SumScore:
    return method.total if part is None else method.arteries[part]


def _number(value: float) -> str:
    return f"{value:,.1f}" if value else "0"


def mass_text(method: MethodScore, part: Artery | None) -> str:
    """Return the mass of a site, or of all sites (None), with its standard error; "–" if unknown."""
    score = _score(method, part)
    mass, error = score.integrated_mass_mg, score.mass_standard_error_mg
    if mass is None:
        return "–"
    if not score.lesions:
        return "0"
    return f"{mass:,.1f} ± {error:,.1f}" if error else f"{mass:,.1f}"


def interval_cell(method: MethodScore, part: Artery | None) -> str:
    """Return the interval of an artery, no higher than the total's, or of all (None)."""
    interval, of_total = _score(method, part).interval_90, method.total.interval_90
    if interval is None or of_total is None:
        return ""
    return range_text(interval[0], min(interval[1], of_total[1]))
